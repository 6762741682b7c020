"""Triton kernels at run time: loaded from the disk cache, launched on GPUs or interpreted.

The interpreter runs on CPU tensors and needs TRITON_INTERPRET=1 before Triton is imported: the
variable decides what Triton's own library functions are.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from attnc.errors import InterpreterNotActiveError
from attnc.plan import Spec
from attnc.runtime.call import BackwardCall, Call
from attnc.runtime.triton_backward import BackwardPass
from attnc.runtime.triton_build import SOURCE, KernelFacts, kernel_digest, read_facts, source_entry
from attnc.runtime.triton_launch import (
    Launcher,
    add_captured,
    kv_strides,
    table_arguments,
    table_of,
)
from attnc.storage import require_memory
from attnc.target import INTERPRETER

_kernels: dict[str, TritonKernel] = {}
_lock = threading.Lock()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True)
class TritonKernel:
    """A Triton kernel that is ready to run.

    Attributes:
        launchers: Its functions, by name.
    """

    spec: Spec
    facts: KernelFacts
    launchers: dict[str, Launcher]

    @property
    def block_m(self) -> int:
        return self.facts.block_m

    @property
    def block_n(self) -> int:
        return self.facts.block_n

    @property
    def uses_table(self) -> bool:
        return self.facts.uses_table

    @property
    def knows_terms(self) -> bool:
        return self.facts.knows_terms

    def run(self, call: Call) -> None:
        """Fills ``call.out`` and, where asked, ``call.lse`` and ``call.max_scores``."""
        n_batch, n_heads, n_queries = call.q.shape[:3]
        n_q_blocks = -(-n_queries // self.block_m)
        n_programs = n_q_blocks * n_heads * n_batch
        if n_programs == 0:
            return
        require_memory(q=call.q, k=call.k, v=call.v)
        q, scale = _with_positive_scale(call.q, call.scale)
        (launcher,) = self.launchers.values()
        fixed, moving = self._arguments(call, q, scale, n_q_blocks)
        launcher.launch(q.device, n_programs, fixed, moving)

    def run_backward(self, call: BackwardCall) -> None:
        """Fills the gradients that ``call`` has tensors for."""
        BackwardPass(self.spec, self.facts, self.launchers, call).run()

    def _arguments(
        self, call: Call, q: torch.Tensor, scale: float, n_q_blocks: int
    ) -> tuple[list[Any], list[Any]]:
        """The kernel's arguments in its order: those that Triton specializes on, and the others."""
        k, v = call.k, call.v
        fixed = [q, *q.stride(), k, *kv_strides(k), v, *kv_strides(v), call.out]
        fixed += call.out.stride()
        if self.spec.wants_lse:
            fixed.append(call.lse)
        if self.spec.wants_max:
            fixed.append(call.max_scores)
        n_heads = q.shape[1]
        moving = [scale, n_heads, q.shape[2], k.shape[2], n_heads // k.shape[1], n_q_blocks]
        add_captured(fixed, moving, call, self.facts)
        if self.uses_table:
            (function,) = self.facts.functions.values()
            table = table_of(call, function)
            fixed += table_arguments(table, q.device, knows_terms=self.knows_terms)
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
    module, facts = load_module(folder / SOURCE, digest), read_facts(folder)
    launchers = {
        name: Launcher(getattr(module, name), function, spec.target == INTERPRETER)
        for name, function in facts.functions.items()
    }
    kernel = TritonKernel(spec, facts, launchers)
    with _lock:
        return _kernels.setdefault(digest, kernel)


def is_interpreting() -> bool:
    """Whether Triton kernels of this process are interpreted. Imports Triton."""
    import triton
    from triton.runtime.interpreter import InterpretedFunction

    return isinstance(triton.language.sum, InterpretedFunction)


def load_module(path: Path, digest: str) -> Any:
    """The module at ``path``. Triton reads a kernel's source from its file."""
    module = ModuleType(f"attnc_triton_{digest[:16]}")
    module.__file__ = str(path)
    # Not imported: that would leave a .pyc in the entry, and trust it though no checksum has it.
    code = compile(path.read_bytes(), path, "exec", dont_inherit=True)
    exec(code, module.__dict__)  # noqa: S102 - it was generated here
    return module


def _with_positive_scale(q: torch.Tensor, scale: float) -> tuple[torch.Tensor, float]:
    """The same products q . k * scale with a scale that keeps their order, as kernels need it."""
    if scale < 0:
        return -q, -scale
    if scale == 0:
        return q * 0, 1.0
    return q, scale
