"""Triton kernels at run time: loaded from the disk cache, launched on GPUs or interpreted.

The interpreter runs on CPU tensors and needs TRITON_INTERPRET=1 before Triton is imported: the
variable decides what Triton's own library functions are.
"""

from __future__ import annotations

import importlib.util
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attnc.errors import InterpreterNotActiveError
from attnc.plan import Spec
from attnc.run_table import RunTable
from attnc.runtime import cache
from attnc.runtime.call import Call
from attnc.runtime.triton_build import SOURCE, KernelFacts, kernel_digest, read_facts, source_entry
from attnc.target import INTERPRETER

_MAX_TABLES = 64

_kernels: dict[str, TritonKernel] = {}
_tables: OrderedDict[tuple[int, torch.device], tuple[RunTable, dict[str, torch.Tensor]]] = (
    OrderedDict()
)
_lock = threading.Lock()
_launch_lock = threading.Lock()


@dataclass(frozen=True)
class TritonKernel:
    """A Triton kernel that is ready to run; ``function`` is its JIT function."""

    spec: Spec
    facts: KernelFacts
    function: Any

    @property
    def block_m(self) -> int:
        return self.facts.block_m

    @property
    def block_n(self) -> int:
        return self.facts.block_n

    @property
    def uses_table(self) -> bool:
        return self.facts.uses_table

    def run(self, call: Call) -> None:
        """Fills ``call.out`` and, where asked, ``call.lse`` and ``call.max_scores``."""
        n_batch, n_heads, n_queries = call.q.shape[:3]
        n_q_blocks = -(-n_queries // self.block_m)
        n_programs = n_q_blocks * n_heads * n_batch
        if n_programs == 0:
            return
        arguments = self._arguments(call, n_q_blocks)
        options = {
            "num_warps": self.facts.n_warps,
            "num_stages": self.facts.n_stages,
            # A fused multiply-add rounds once where the analysis of the mask rounds twice.
            "enable_fp_fusion": False,
        }
        launch = self.function[(n_programs,)]
        if self.spec.target == INTERPRETER:
            with np.errstate(all="ignore"):  # overflow and NaN are values here
                launch(**arguments, **options)
            return
        from triton import knobs

        # One at a time: Triton's settings belong to the process.
        with _launch_lock, torch.cuda.device(call.q.device), knobs.cache.scope():
            knobs.cache.dir = str(cache.disk_cache().binaries())
            launch(**arguments, **options)

    def _arguments(self, call: Call, n_q_blocks: int) -> dict[str, Any]:
        q, k, v = call.q, call.k, call.v
        arguments: dict[str, Any] = {
            **_tensor_arguments("q", q, "bhmd"),
            **_tensor_arguments("k", k, "bhnd"),
            **_tensor_arguments("v", v, "bhnd"),
            **_tensor_arguments("out", call.out, "bhmd"),
            "scale": call.scale,
            "n_heads": q.shape[1],
            "n_queries": q.shape[2],
            "n_keys": k.shape[2],
            "group_size": q.shape[1] // k.shape[1],
            "n_q_blocks": n_q_blocks,
        }
        for name in ("k", "v"):
            if arguments[f"{name}_ptr"].shape[0] == 1:
                arguments[f"{name}_stride_b"] = 0
        if self.spec.wants_lse:
            arguments["lse_ptr"] = call.lse
        if self.spec.wants_max:
            arguments["max_ptr"] = call.max_scores
        for number, value in enumerate(call.params):
            arguments[f"p{number}"] = value
        for slot in self.facts.slots:
            arguments.update(_slot_arguments(slot, call.tensors[slot]))
        if self.uses_table:
            assert call.table is not None, "the kernel reads a table"
            assert (call.table.block_m, call.table.block_n) == (self.block_m, self.block_n)
            arguments.update(_table_arguments(call.table, q.device))
        return arguments


def load_triton_kernel(spec: Spec) -> TritonKernel:
    """The kernel of ``spec``, from memory, from disk, or rendered.

    Raises:
        InterpreterNotActiveError: ``spec`` is for the interpreter, which is switched off.
    """
    digest = kernel_digest(spec, "source")
    kernel = _kernels.get(digest)
    if kernel is not None:
        return kernel
    if spec.target == INTERPRETER and not is_interpreting():
        raise InterpreterNotActiveError
    folder = source_entry(spec).folder
    function = load_module(folder / SOURCE, digest).attention_forward
    kernel = TritonKernel(spec, read_facts(folder), function)
    with _lock:
        return _kernels.setdefault(digest, kernel)


def is_interpreting() -> bool:
    """Whether Triton kernels of this process are interpreted. Imports Triton."""
    import triton
    from triton.runtime.interpreter import InterpretedFunction

    return isinstance(triton.language.sum, InterpretedFunction)


def load_module(path: Path, digest: str) -> Any:
    """The module at ``path``. Triton reads a kernel's source from its file."""
    module_spec = importlib.util.spec_from_file_location(f"attnc_triton_{digest[:16]}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


def _tensor_arguments(name: str, tensor: torch.Tensor, dims: str) -> dict[str, Any]:
    strides = {
        f"{name}_stride_{dim}": stride for dim, stride in zip(dims, tensor.stride(), strict=True)
    }
    return {f"{name}_ptr": tensor, **strides}


def _slot_arguments(slot: int, tensor: torch.Tensor) -> dict[str, Any]:
    if tensor.dtype is torch.bool:
        tensor = tensor.view(torch.uint8)
    if 0 in tensor.shape:  # every element of it counts as 0
        tensor = tensor.new_zeros(()).expand((1,) * tensor.dim())
    arguments: dict[str, Any] = {f"t{slot}_ptr": tensor}
    for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        arguments[f"t{slot}_size{dim}"] = size
        arguments[f"t{slot}_stride{dim}"] = stride
    return arguments


def _table_arguments(table: RunTable, device: torch.device) -> dict[str, Any]:
    """The table's arrays on ``device``, kept there as long as the same table is used."""
    key = (id(table), device)
    known = _tables.get(key)
    if known is None:
        partial, full = table.split()
        arrays = {
            f"{kind}_{field}_ptr": torch.from_numpy(getattr(part, field)).to(device)
            for kind, part in (("partial", partial), ("full", full))
            for field in ("offsets", "starts", "stops")
        }
        known = (table, arrays)  # holds the table, so that its id stays its own
        with _lock:
            _tables[key] = known
            while len(_tables) > _MAX_TABLES:
                _tables.popitem(last=False)
    n_q_blocks = table.n_q_blocks
    return {
        **known[1],
        "table_stride_b": 0 if table.n_batch == 1 else table.n_heads * n_q_blocks,
        "table_stride_h": 0 if table.n_heads == 1 else n_q_blocks,
    }
