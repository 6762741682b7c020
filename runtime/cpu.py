"""Kernels for CPUs: C++ from templates, built by the compiler at hand, called through ctypes."""

from __future__ import annotations

import ctypes
import json
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from weakref import ref

import torch

from attnc.errors import InstructionSetError, NoCompilerError, NoCompilerWarning
from attnc.plan import Plan, Spec, make_plan
from attnc.run_table import RunTable
from attnc.runtime import cache
from attnc.runtime.arguments import ArgumentWriter, Block, backward_block, table_words
from attnc.runtime.build import (
    COMMON_FLAGS,
    Compiler,
    compile_library,
    find_compiler,
    load_library,
)
from attnc.runtime.call import BackwardCall, Call, CompiledKernel
from attnc.runtime.entries import Entry
from attnc.runtime.fingerprint import generator_digest
from attnc.runtime.isa import ISA_FLAGS, processor_text, runnable_isas
from attnc.runtime.parallel import parallel_for
from attnc.target import CpuTarget

#: The compiler's level for what users run.
OPTIMIZATION = "-O3"
_SOURCE, _LIBRARY, _PLAN = "kernel.cpp", "kernel.so", "plan.json"


# A call with more than this per thread is worth waking another one, which takes microseconds:
# multiplications of q . k and of the weights with v, hidden pairs included.
_WORK_PER_THREAD = 1 << 20

# By id, because tables are compared by content.
_table_words: dict[int, tuple[ref[RunTable], tuple[int, ...]]] = {}


@dataclass(frozen=True)
class CpuKernel:
    """A loaded kernel.

    Attributes:
        spec: What it computes.
        block_m, block_n: Its tiles, in tokens.
        uses_table: It visits the tiles of ``Call.table``.
        knows_terms: The table says which terms of the mask hold all over its PARTIAL runs.
        slots: The captured tensors that it reads, in its order.
        folder: Its entry in the cache: source, library, plan.
    """

    spec: Spec
    block_m: int
    block_n: int
    uses_table: bool
    knows_terms: bool
    slots: tuple[int, ...]
    folder: Path
    _entry: Callable[[int | bytes], int]
    _arguments: ArgumentWriter

    def run(self, call: Call) -> None:
        """Fills ``call.out`` and, where asked, ``call.lse`` and ``call.max_scores``.

        Raises:
            MemoryError: There is no room for the packed keys and values.
        """
        block = self._written(call)
        failed = self._entry(block.address)
        self._arguments.release(block)
        if failed:
            raise MemoryError(f"no room for the packed keys and values of {tuple(call.k.shape)}")

    def run_backward(self, call: BackwardCall) -> None:
        """Fills the gradients that ``call`` has tensors for.

        Raises:
            MemoryError: There is no room for sums of the gradients.
        """
        block = self._written(call.forward)
        backward = backward_block(call, block)
        failed = self._entry(backward.words)
        self._arguments.release(block)
        if failed:
            raise MemoryError(f"no room for the gradients of {tuple(call.forward.k.shape)}")

    def _written(self, call: Call) -> Block:
        n_threads = n_threads_for(call)
        table = None
        if self.uses_table:
            assert call.table is not None, "this kernel reads a table of tiles"
            assert (call.table.block_m, call.table.block_n) == (self.block_m, self.block_n)
            table = _words_of(call.table)
        return self._arguments.write(call, table, n_threads, parallel_for() if n_threads > 1 else 0)


def n_threads_for(call: Call) -> int:
    """Threads for a call: torch's number of them, fewer where there is little to do."""
    n_threads = torch.get_num_threads()
    if n_threads == 1:
        return 1
    n_batch, n_heads, n_queries, head_dim = call.q.shape
    n_keys, value_dim = call.v.shape[2:]
    work = n_batch * n_heads * n_queries * n_keys * (head_dim + value_dim)
    return min(n_threads, 1 + work // _WORK_PER_THREAD)


def _words_of(table: RunTable) -> tuple[int, ...]:
    """``table_words``, kept for as long as the table lives."""
    number = id(table)
    known = _table_words.get(number)
    if known is not None and known[0]() is table:
        return known[1]
    words = table_words(table)
    _table_words[number] = (ref(table, lambda _: _table_words.pop(number, None)), words)
    return words


_kernels: dict[str, CpuKernel] = {}
_lock = threading.Lock()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def load_cpu_kernel(spec: Spec, *, strict: bool = False) -> CompiledKernel:
    """The kernel of ``spec``: from memory, from the disk cache, or built.

    Without a C++ compiler it is a slow one in torch operations, with one warning.

    Raises:
        NoCompilerError: ``strict`` and there is no compiler.
        CompilerError: The compiler failed.
    """
    try:
        find_compiler()
    except NoCompilerError as error:
        if strict:
            raise
        from attnc.runtime.tiled import TiledKernel

        _warn_once(str(error))
        return TiledKernel(make_plan(spec))
    return load_cpu_kernels([spec])[0]


def load_cpu_kernels(specs: Sequence[Spec], *, optimization: str | None = None) -> list[CpuKernel]:
    """Kernels of several specs of one target; what is not in the cache is built as one unit.

    Args:
        specs: All with the same ``target``.
        optimization: The compiler's level, ``OPTIMIZATION`` if None; lower ones compile faster.

    Raises:
        InstructionSetError: The target has instructions that this machine has not.
    """
    if not specs:
        return []
    target = specs[0].target
    assert isinstance(target, CpuTarget)
    if target.isa not in runnable_isas():
        raise InstructionSetError(isa=target.isa, runnable=", ".join(runnable_isas()))
    digests, unit, build = _unit(specs, optimization)
    with _lock:
        known = [_kernels.get(f"{unit}/{number}") for number in range(len(specs))]
    if all(known):
        return [kernel for kernel in known if kernel is not None]
    kernels = cache.fetch_loaded(unit, build, lambda entry: _loaded(entry, specs))
    with _lock:
        for number, kernel in enumerate(kernels):
            _kernels[f"{unit}/{number}"] = kernel
            _kernels.setdefault(f"{digests[number]}/0", kernel)  # asked for alone, too
    return kernels


def library_of(spec: Spec) -> Path:
    """The shared library with the kernel of ``spec``, not loaded: this machine need not run it.

    Raises:
        NoCompilerError: There is no compiler.
        CompilerError: The compiler failed.
    """
    _, unit, build = _unit([spec], None)
    return cache.fetch(unit, build).folder / _LIBRARY


def _unit(
    specs: Sequence[Spec], optimization: str | None
) -> tuple[list[str], str, Callable[[Path], None]]:
    """Digests of kernels alone and as one unit, and what builds the unit into a folder."""
    compiler = find_compiler()
    target = specs[0].target
    assert isinstance(target, CpuTarget)
    flags = (optimization or OPTIMIZATION, *COMMON_FLAGS, *ISA_FLAGS[target.isa])
    machine = processor_text(compiler.command)
    generator = generator_digest(".cpp.jinja")
    environment = (version("attnc"), generator, machine, compiler.identity, *flags)
    digests = [spec.digest(*environment) for spec in specs]
    unit = digests[0] if len(digests) == 1 else cache.joint_digest(digests)

    def build(folder: Path) -> None:
        plans = [make_plan(spec) for spec in specs]
        _build(folder, plans, compiler, flags)

    return digests, unit, build


def _build(folder: Path, plans: Sequence[Plan], compiler: Compiler, flags: tuple[str, ...]) -> None:
    from attnc.render.cpp import render, render_many  # imports Jinja, which loading does not need

    source = render(plans[0]) if len(plans) == 1 else render_many(plans)
    (folder / _SOURCE).write_text(source, encoding="utf-8")
    compile_library(compiler, folder / _SOURCE, folder / _LIBRARY, flags)
    described = [
        {
            "block_m": plan.tiles.block_m,
            "block_n": plan.tiles.block_n,
            "uses_table": plan.uses_table,
            "knows_terms": plan.knows_terms,
            "slots": plan.slots,
            "decisions": [[decision.what, decision.why] for decision in plan.decisions],
        }
        for plan in plans
    ]
    (folder / _PLAN).write_text(json.dumps(described, indent=1), encoding="utf-8")


def _loaded(entry: Entry, specs: Sequence[Spec]) -> list[CpuKernel]:
    library = load_library(entry, _LIBRARY)
    described = json.loads((entry.folder / _PLAN).read_text(encoding="utf-8"))
    kernels = []
    for number, (spec, plan) in enumerate(zip(specs, described, strict=True)):
        name = "attnc" if len(specs) == 1 else f"attnc{number}"
        direction = "forward" if spec.gradients is None else "backward"
        function = library[f"{name}_{direction}"]
        function.argtypes = (ctypes.c_void_p,)
        slots = tuple(plan["slots"])
        ranks = [spec.slots[slot].rank for slot in slots]
        kernels.append(
            CpuKernel(
                spec=spec,
                block_m=plan["block_m"],
                block_n=plan["block_n"],
                uses_table=plan["uses_table"],
                knows_terms=plan["knows_terms"],
                slots=slots,
                folder=entry.folder,
                _entry=function,
                _arguments=ArgumentWriter(spec.params, slots, ranks),
            )
        )
    return kernels


_warned = False


def _warn_once(reason: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"attention runs tile by tile in torch operations, many times slower: {reason}",
            NoCompilerWarning,
            stacklevel=2,
        )
