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
from typing import Any

import torch

from attnc.errors import NoCompilerError, NoCompilerWarning
from attnc.ir import DType
from attnc.plan import Plan, Spec, make_plan
from attnc.runtime import cache
from attnc.runtime.build import (
    COMMON_FLAGS,
    Compiler,
    compile_library,
    find_compiler,
    load_library,
)
from attnc.runtime.call import Call, CompiledKernel
from attnc.runtime.fingerprint import generator_digest
from attnc.runtime.isa import ISA_FLAGS
from attnc.runtime.parallel import parallel_for
from attnc.target import CpuTarget

_SOURCE, _LIBRARY, _PLAN = "kernel.cpp", "kernel.so", "plan.json"


class _Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("strides", ctypes.c_int64 * 4)]


class _Slot(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("sizes", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
    ]


class _Args(ctypes.Structure):
    """``Args`` of ``prelude.cpp.jinja``."""

    _fields_ = [
        *((name, _Tensor) for name in ("q", "k", "v", "out")),
        *((name, ctypes.c_void_p) for name in ("lse", "max_scores")),
        *(
            (name, ctypes.c_int64)
            for name in ("n_batch", "n_heads", "kv_batch", "kv_heads", "n_queries", "n_keys")
        ),
        ("scale", ctypes.c_double),
        ("int_params", ctypes.POINTER(ctypes.c_int64)),
        ("float_params", ctypes.POINTER(ctypes.c_double)),
        ("slots", ctypes.POINTER(_Slot)),
        *((name, ctypes.c_void_p) for name in ("offsets", "starts", "stops", "kinds")),
        ("table_batch", ctypes.c_int64),
        ("table_heads", ctypes.c_int64),
        ("n_threads", ctypes.c_int64),
        ("parallel_for", ctypes.c_void_p),
    ]


# What a kernel reads of a captured tensor without elements: 0, whatever the index.
_NOTHING = torch.zeros(1, dtype=torch.int64)


@dataclass(frozen=True)
class CpuKernel:
    """A loaded kernel.

    Attributes:
        spec: What it computes.
        block_m, block_n: Its tiles, in tokens.
        uses_table: It visits the tiles of ``Call.table``.
        slots: The captured tensors that it reads, in its order.
        folder: Its entry in the cache: source, library, plan.
    """

    spec: Spec
    block_m: int
    block_n: int
    uses_table: bool
    slots: tuple[int, ...]
    folder: Path
    _forward: Callable[[Any], int]

    def run(self, call: Call) -> None:
        """Fills ``call.out`` and, where asked, ``call.lse`` and ``call.max_scores``.

        Raises:
            MemoryError: There is no room for the packed keys and values.
        """
        args = _Args()
        for name in ("q", "k", "v", "out"):
            _set_tensor(getattr(args, name), getattr(call, name))
        args.lse = None if call.lse is None else call.lse.data_ptr()
        args.max_scores = None if call.max_scores is None else call.max_scores.data_ptr()
        args.n_batch, args.n_heads, args.n_queries = call.q.shape[:3]
        args.kv_batch, args.kv_heads, args.n_keys = call.k.shape[:3]
        args.scale = call.scale
        args.int_params, args.float_params = _params(self.spec.params, call.params)
        args.slots = _slots([call.tensors[slot] for slot in self.slots])
        if self.uses_table:
            table = call.table
            assert table is not None, "this kernel reads a table of tiles"
            assert (table.block_m, table.block_n) == (self.block_m, self.block_n)
            args.offsets = table.offsets.ctypes.data
            args.starts = table.starts.ctypes.data
            args.stops = table.stops.ctypes.data
            args.kinds = table.kinds.ctypes.data
            args.table_batch, args.table_heads = table.n_batch, table.n_heads
        args.n_threads = torch.get_num_threads()
        args.parallel_for = parallel_for() if args.n_threads > 1 else None
        if self._forward(ctypes.byref(args)):
            raise MemoryError(f"no room for the packed keys and values of {tuple(call.k.shape)}")


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


def load_cpu_kernels(specs: Sequence[Spec], *, optimization: str = "-O3") -> list[CpuKernel]:
    """Kernels of several specs of one target; what is not in the cache is built as one unit.

    Args:
        specs: All with the same ``target``.
        optimization: The compiler's level; lower ones compile faster.
    """
    if not specs:
        return []
    compiler = find_compiler()
    target = specs[0].target
    assert isinstance(target, CpuTarget)
    flags = (optimization, *COMMON_FLAGS, *ISA_FLAGS[target.isa])
    environment = (version("attnc"), generator_digest(".cpp.jinja"), compiler.identity, *flags)
    digests = [spec.digest(*environment) for spec in specs]
    unit = digests[0] if len(digests) == 1 else cache.joint_digest(digests)
    with _lock:
        known = [_kernels.get(f"{unit}/{number}") for number in range(len(specs))]
    if all(known):
        return [kernel for kernel in known if kernel is not None]

    def build(folder: Path) -> None:
        plans = [make_plan(spec) for spec in specs]
        _build(folder, plans, compiler, flags)

    kernels = _loaded(cache.fetch(unit, build), specs)
    with _lock:
        for number, kernel in enumerate(kernels):
            _kernels[f"{unit}/{number}"] = kernel
    return kernels


def _build(folder: Path, plans: Sequence[Plan], compiler: Compiler, flags: tuple[str, ...]) -> None:
    from attnc.render.cpp import render, render_many  # imports Jinja, which loading does not need

    source = render(plans[0]) if len(plans) == 1 else render_many(plans)
    (folder / _SOURCE).write_text(source)
    compile_library(compiler, folder / _SOURCE, folder / _LIBRARY, flags)
    described = [
        {
            "block_m": plan.tiles.block_m,
            "block_n": plan.tiles.block_n,
            "uses_table": plan.uses_table,
            "slots": plan.slots,
            "decisions": [[decision.what, decision.why] for decision in plan.decisions],
        }
        for plan in plans
    ]
    (folder / _PLAN).write_text(json.dumps(described, indent=1))


def _loaded(entry: cache.Entry, specs: Sequence[Spec]) -> list[CpuKernel]:
    library = load_library(entry, _LIBRARY)
    described = json.loads((entry.folder / _PLAN).read_text())
    kernels = []
    for number, (spec, plan) in enumerate(zip(specs, described, strict=True)):
        name = "attnc" if len(specs) == 1 else f"attnc{number}"
        kernels.append(
            CpuKernel(
                spec=spec,
                block_m=plan["block_m"],
                block_n=plan["block_n"],
                uses_table=plan["uses_table"],
                slots=tuple(plan["slots"]),
                folder=entry.folder,
                _forward=library[f"{name}_forward"],
            )
        )
    return kernels


def _set_tensor(target: _Tensor, tensor: torch.Tensor) -> None:
    target.data = tensor.data_ptr()
    target.strides[:] = tensor.stride()


def _params(dtypes: Sequence[DType], values: Sequence[int | float]) -> tuple[Any, Any]:
    n = max(len(dtypes), 1)
    ints, floats = (ctypes.c_int64 * n)(), (ctypes.c_double * n)()
    for number, (dtype, value) in enumerate(zip(dtypes, values, strict=True)):
        if dtype.is_float:
            floats[number] = value
        else:
            ints[number] = int(value)
    return ints, floats


def _slots(tensors: Sequence[torch.Tensor]) -> Any:
    slots = (_Slot * max(len(tensors), 1))()
    for slot, tensor in zip(slots, tensors, strict=False):
        n = max(tensor.dim(), 1)
        integers = ctypes.c_int64 * n
        if tensor.numel():
            slot.data = tensor.data_ptr()
            slot.sizes = integers(*tensor.shape)
            slot.strides = integers(*tensor.stride())
        else:
            slot.data = _NOTHING.data_ptr()
            slot.sizes = integers(*[1] * n)
            slot.strides = integers()
    return slots


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
