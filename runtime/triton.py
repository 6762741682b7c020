"""Triton kernels at run time: loaded from the disk cache, launched on GPUs or interpreted.

The interpreter runs on CPU tensors and needs TRITON_INTERPRET=1 before Triton is imported: the
variable decides what Triton's own library functions are.
"""

from __future__ import annotations

import importlib.util
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
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
_MAX_LAYOUTS = 1024

_kernels: dict[str, TritonKernel] = {}
_tables: OrderedDict[tuple[int, torch.device], tuple[RunTable, tuple[torch.Tensor, ...]]] = (
    OrderedDict()
)
_lock = threading.Lock()
_launch_lock = threading.Lock()


@dataclass(frozen=True)
class TritonKernel:
    """A Triton kernel that is ready to run.

    Attributes:
        function: Its JIT function.
        compiled: What that made of it, by device and by what it specializes on: strides, and
            whether addresses are multiples of 16.
    """

    spec: Spec
    facts: KernelFacts
    function: Any
    compiled: dict[tuple[int, ...], Any] = field(default_factory=dict)

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
        q, scale = _with_positive_scale(call.q, call.scale)
        fixed, moving = self._arguments(call, q, scale, n_q_blocks)
        if self.spec.target == INTERPRETER:
            with np.errstate(all="ignore"):  # overflow and NaN are values here
                self.function[(n_programs,)](*fixed, *moving, **self._options)
            return
        device = q.device.index
        if device == torch.cuda.current_device():
            self._launch(device, n_programs, fixed, moving)
            return
        with torch.cuda.device(device):
            self._launch(device, n_programs, fixed, moving)

    def _launch(
        self, device: int, n_programs: int, arguments: list[Any], unspecialized: list[Any]
    ) -> None:
        """Launches what was compiled for such arguments, which Triton is asked for only once."""
        key = (
            device,
            *(x.data_ptr() % 16 if isinstance(x, torch.Tensor) else x for x in arguments),
        )
        compiled = self.compiled.get(key)
        if compiled is not None:
            compiled[n_programs, 1, 1](*arguments, *unspecialized)
            return
        from triton import knobs

        # One at a time: Triton's settings belong to the process.
        with _launch_lock, knobs.cache.scope():
            knobs.cache.dir = str(cache.disk_cache().binaries())
            compiled = self.function[(n_programs,)](*arguments, *unspecialized, **self._options)
            if len(self.compiled) >= _MAX_LAYOUTS:
                self.compiled.clear()
            self.compiled[key] = compiled

    @property
    def _options(self) -> dict[str, Any]:
        return {
            "num_warps": self.facts.n_warps,
            "num_stages": self.facts.n_stages,
            # A fused multiply-add rounds once where the analysis of the mask rounds twice.
            "enable_fp_fusion": False,
        }

    def _arguments(
        self, call: Call, q: torch.Tensor, scale: float, n_q_blocks: int
    ) -> tuple[list[Any], list[Any]]:
        """The kernel's arguments in its order: those that Triton specializes on, and the others."""
        k, v = call.k, call.v
        fixed = [q, *q.stride(), k, *_kv_strides(k), v, *_kv_strides(v), call.out]
        fixed += call.out.stride()
        if self.spec.wants_lse:
            fixed.append(call.lse)
        if self.spec.wants_max:
            fixed.append(call.max_scores)
        n_heads = q.shape[1]
        moving = [scale, n_heads, q.shape[2], k.shape[2], n_heads // k.shape[1], n_q_blocks]
        moving += call.params
        for slot in self.facts.slots:
            tensor = _readable(call.tensors[slot])
            fixed += (tensor, *tensor.stride())
            moving += tensor.shape
        if self.uses_table:
            table = call.table
            assert table is not None, "the kernel reads a table"
            assert (table.block_m, table.block_n) == (self.block_m, self.block_n)
            fixed += _table_arguments(table, q.device)
        return fixed, moving


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


def _with_positive_scale(q: torch.Tensor, scale: float) -> tuple[torch.Tensor, float]:
    """The same products q . k * scale with a scale that keeps their order, as kernels need it."""
    if scale < 0:
        return -q, -scale
    if scale == 0:
        return q * 0, 1.0
    return q, scale


def _kv_strides(tensor: torch.Tensor) -> tuple[int, ...]:
    """Strides of k or v, whose batch of one serves every query."""
    stride = tensor.stride()
    return stride if tensor.shape[0] != 1 else (0, *stride[1:])


def _readable(tensor: torch.Tensor) -> torch.Tensor:
    """A captured tensor as a kernel can read it at clamped indices."""
    if tensor.dtype is torch.bool:
        tensor = tensor.view(torch.uint8)
    if 0 in tensor.shape:  # every element of it counts as 0
        tensor = tensor.new_zeros(()).expand((1,) * tensor.dim())
    return tensor


def _table_arguments(table: RunTable, device: torch.device) -> tuple[Any, ...]:
    """The table's strides, and its arrays on ``device``, kept there as long as the same table is used."""
    key = (id(table), device)
    known = _tables.get(key)
    if known is None:
        partial, full = table.split()
        arrays = tuple(
            torch.from_numpy(array).to(device)
            for part in (partial, full)
            for array in (part.offsets, part.starts, part.stops)
        )
        known = (table, arrays)  # holds the table, so that its id stays its own
        with _lock:
            _tables[key] = known
            while len(_tables) > _MAX_TABLES:
                _tables.popitem(last=False)
    n_q_blocks = table.n_q_blocks
    return (
        *known[1],
        0 if table.n_batch == 1 else table.n_heads * n_q_blocks,
        0 if table.n_heads == 1 else n_q_blocks,
    )
