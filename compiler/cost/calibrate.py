"""Rates of this machine, from timing a few kernels on known amounts of work."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attnc.cost.pairs import pairs_of
from attnc.cost.rates import Rates, rates_of
from attnc.cost.work import Sizes, Work, work_of
from attnc.ir import TRUE, DType
from attnc.mods import Mod
from attnc.plan import Plan, Spec, Wanted, make_plan
from attnc.program import Program, build_program
from attnc.run_table import Kind, RunTable
from attnc.runtime.call import BackwardCall, Call, CompiledKernel
from attnc.target import CpuIsa, CpuTarget

Floats = NDArray[np.float64]

_N_RUNS = 12
_N_QUERIES, _N_KEYS = 256, 1536  # of a probe: several tiles of queries, over keys that fill a cache
_READ_BYTES = 64 << 20  # far more than a cache next to the processor holds
_WRITTEN_BYTES = 16 << 20  # so many are new pages each time


def _parity(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return ((q_idx ^ kv_idx) & 1) == 0


def _long_parity(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    x = q_idx ^ kv_idx
    for n in range(3, 35, 2):
        x = (x ^ kv_idx * n) + q_idx * n
    return (x & 1) == 0


def _banded(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return ((q_idx - kv_idx) & 63) < 4


def _shifted(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score + 0.5


def _saturated(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return torch.tanh(torch.tanh(score))


def _captured(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score + _BIAS[(q_idx ^ kv_idx) & 1023]


_BIAS = torch.linspace(-1, 1, 1024)


@dataclass(frozen=True)
class _Probe:
    """A call whose time tells a rate."""

    mask: Mod | None
    score: Mod | None
    width: int
    n_queries: int
    n_keys: int


_COMMON = (
    _Probe(None, None, 64, _N_QUERIES, _N_KEYS),
    _Probe(None, None, 128, _N_QUERIES, _N_KEYS),
    _Probe(None, None, 64, 17, 64),
    _Probe(None, None, 64, 1024, 64),
    _Probe(None, None, 64, 64, 1024),
    _Probe(None, _shifted, 64, _N_QUERIES, _N_KEYS),
)
# Masks and scores cost the same per pair in both passes: they are timed in the forward one.
_FORWARD_ONLY = (
    _Probe(_parity, None, 64, _N_QUERIES, _N_KEYS),
    _Probe(_banded, None, 64, _N_QUERIES, _N_KEYS),
    _Probe(_long_parity, None, 64, _N_QUERIES, _N_KEYS),
    _Probe(None, _saturated, 64, _N_QUERIES, _N_KEYS),
    _Probe(None, _captured, 64, _N_QUERIES, _N_KEYS),
)
_FROM_FORWARD = ("edges", "masked", "cheap", "special", "single")


def measured_rates(isa: CpuIsa, dtype: str, backward: bool) -> Rates:
    """Rates of kernels that use ``isa``, on one thread.

    Times are those that the processor spent on this thread, so that other programs count little,
    and the least of several. Compiles 8 kernels as one unit, 3 for the backward pass.
    """
    probes = _COMMON if backward else _COMMON + _FORWARD_ONLY
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        calls, amounts = _prepared(probes, isa, dtype, backward)
        *times, dispatch = _least_times([*calls, _dispatcher()])
        (reading,) = _least_times([_reader()])
        (writing,) = _least_times([_writer()])
    finally:
        torch.set_num_threads(n_threads)
    known = Work(moved=reading / _READ_BYTES, written=writing / _WRITTEN_BYTES)
    if backward:
        forward = rates_of(isa, dtype, backward=False).seconds._asdict()
        known = known._replace(**{name: forward[name] for name in _FROM_FORWARD})
    rows = np.array(amounts)
    fitted = _non_negative_fit(rows, np.array(times), np.array(known))
    return Rates(isa, dtype, backward, Work(*fitted.tolist()), dispatch)


def _prepared(
    probes: Sequence[_Probe], isa: CpuIsa, dtype: str, backward: bool
) -> tuple[list[Callable[[], object]], list[Work]]:
    """What is timed, and what it does."""
    from attnc.runtime.cpu import load_cpu_kernels

    float_dtype = DType.FLOAT64 if dtype == "float64" else DType.FLOAT32
    programs = [build_program(probe.mask, probe.score, float_dtype) for probe in probes]
    specs = [
        _spec(program, probe.width, isa, dtype, backward)
        for probe, program in zip(probes, programs, strict=True)
    ]
    distinct = list(dict.fromkeys(specs))
    kernels = dict(zip(distinct, load_cpu_kernels(distinct), strict=True))
    calls: list[Callable[[], object]] = []
    amounts = []
    for probe, program, spec in zip(probes, programs, specs, strict=True):
        plan = make_plan(spec)
        table = _whole_table(probe, plan)
        calls.append(_runner(probe, program, plan, kernels[spec], table, backward))
        amounts.append(_amounts(probe, program, plan, table, backward))
    return calls, amounts


def _spec(program: Program, width: int, isa: CpuIsa, dtype: str, backward: bool) -> Spec:
    spec = Spec(
        mask=program.lifted.exprs[0],
        score=program.lifted.exprs[1],
        slots=program.slots,
        params=program.lifted.dtypes,
        dtype=dtype,
        head_dim=width,
        value_dim=width,
        target=CpuTarget(isa),
        from_table=True,
    )
    return replace(spec, gradients=Wanted(True, True, True)) if backward else spec


def _whole_table(probe: _Probe, plan: Plan) -> RunTable:
    """Every tile visited: with the mask if there is one."""
    tiles = plan.tiles
    shape = 1, 1, -(-probe.n_queries // tiles.block_m), -(-probe.n_keys // tiles.block_n)
    kind = Kind.FULL if probe.mask is None else Kind.PARTIAL
    return RunTable.from_dense(
        np.full(shape, kind, np.int8),
        n_queries=probe.n_queries,
        n_keys=probe.n_keys,
        block_m=tiles.block_m,
        block_n=tiles.block_n,
    )


def _amounts(probe: _Probe, program: Program, plan: Plan, table: RunTable, backward: bool) -> Work:
    mask = TRUE if program.mask is None else program.mask
    pairs = pairs_of(table, mask, program.tensors, plan, 1)
    sizes = Sizes(1, 1, 1, probe.n_queries, probe.n_keys, probe.width, probe.width, 4)
    # What a probe reads and writes is in the caches.
    work = work_of(plan, table, pairs, sizes, backward=backward)
    return work._replace(moved=0.0, written=0.0)


def _runner(
    probe: _Probe,
    program: Program,
    plan: Plan,
    kernel: CompiledKernel,
    table: RunTable,
    backward: bool,
) -> Callable[[], None]:
    generator = torch.Generator().manual_seed(0)
    dtype = getattr(torch, plan.spec.dtype)
    q, k, v = (
        torch.randn(1, 1, length, probe.width, generator=generator).to(dtype)
        for length in (probe.n_queries, probe.n_keys, probe.n_keys)
    )
    stat_dtype = torch.float64 if dtype is torch.float64 else torch.float32
    lse = torch.full((1, 1, probe.n_queries), 6.0, dtype=stat_dtype) if backward else None
    out = torch.zeros_like(q)
    scale = probe.width**-0.5
    call = Call(q, k, v, out, lse, None, scale, program.lifted.values, program.tensors, table)
    if not backward:
        return lambda: kernel.run(call)
    grad_q, grad_k, grad_v = (torch.empty_like(x) for x in (q, k, v))
    whole = BackwardCall(call, torch.ones_like(q), None, grad_q, grad_k, grad_v)
    return lambda: kernel.run_backward(whole)


def _reader() -> Callable[[], object]:
    return torch.ones(_READ_BYTES // 4).sum


def _writer() -> Callable[[], object]:
    return lambda: torch.ones(_WRITTEN_BYTES // 4)


def _dispatcher() -> Callable[[], object]:
    """A call without queries, which stops before the kernel."""
    from attnc.attend import attention

    q = torch.zeros(1, 1, 0, 64)
    k = torch.zeros(1, 1, 64, 64)
    return lambda: attention(q, k, k, mask=_parity)


def _least_times(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Of each call, in turns, so that a machine that becomes slower is so for all."""
    least = [math.inf] * len(calls)
    for _ in range(_N_RUNS):
        for number, call in enumerate(calls):
            call()  # brings what it reads into the caches
            start = time.thread_time()
            call()
            least[number] = min(least[number], time.thread_time() - start)
    return least


def _non_negative_fit(rows: Floats, times: Floats, known: Floats) -> Floats:
    """Rates, none negative, that come closest to ``times`` in relative terms: (n_kinds,).

    ``rows``: (n_probes, n_kinds). Rates that are ``known``, not 0, stay. What comes out negative
    is 0, and the others are fitted anew.
    """
    target = 1.0 - rows @ known / times
    relative = rows / times[:, None]
    scale = relative.max(0)
    used = np.flatnonzero((scale > 0) & (known == 0))
    fitted = known.copy()
    while len(used):
        found = np.linalg.lstsq(relative[:, used] / scale[used], target, rcond=None)[0]
        if (found >= 0).all():
            fitted[used] = found / scale[used]
            break
        used = used[found >= 0]
    return fitted
