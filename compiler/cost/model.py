"""From a mask, a score and sizes to the cost of a call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attnc.analysis.counts import n_pairs_by_kind
from attnc.blocks import classify
from attnc.cost.pairs import Pairs, pairs_of
from attnc.cost.record import Cost
from attnc.cost.work import Sizes, work_of
from attnc.ir import TRUE
from attnc.plan import Plan, Spec, Wanted, make_plan
from attnc.program import Program
from attnc.run_table import RunTable
from attnc.target import CpuTarget, GpuTarget, Target

_SHORT_QUERIES = 16
_CACHED_BYTES = 4 << 20  # inputs and results of fewer are in a cache when the kernel comes to them


@dataclass(frozen=True)
class Problem:
    """One call: sizes in elements, storage ``dtype`` by its short name, and the machine.

    ``table`` are the tiles of a BlockMask, or None where the mask implies them. ``measures``: rates
    of this machine that are not known yet are measured; else there are no seconds then.
    """

    program: Program
    n_batch: int
    n_heads: int
    kv_heads: int
    n_queries: int
    n_keys: int
    head_dim: int
    value_dim: int
    dtype: str
    target: Target
    n_threads: int = 1
    backward: bool = False
    table: RunTable | None = None
    measures: bool = True

    @property
    def itemsize(self) -> int:
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype.itemsize

    @property
    def sizes(self) -> Sizes:
        return Sizes(
            self.n_batch,
            self.n_heads,
            self.kv_heads,
            self.n_queries,
            self.n_keys,
            self.head_dim,
            self.value_dim,
            self.itemsize,
        )

    def spec(self, **changes: Any) -> Spec:
        lifted = self.program.lifted
        given = self.table
        fields: dict[str, Any] = {
            "mask": lifted.exprs[0],
            "score": lifted.exprs[1],
            "slots": self.program.slots,
            "params": lifted.dtypes,
            "dtype": self.dtype,
            "head_dim": self.head_dim,
            "value_dim": self.value_dim,
            "target": self.target,
            "from_table": given is not None,
            "block_multiple": (0, 0) if given is None else (given.block_m, given.block_n),
            "short_queries": self.n_queries <= _SHORT_QUERIES,
            "gradients": Wanted(True, True, True) if self.backward else None,
        }
        return Spec(**{**fields, **changes})


def cost_of(problem: Problem) -> Cost:
    """What the call takes: tiles, operations and bytes exactly, seconds as predicted.

    On CPUs seconds come from rates of this machine, which are measured at the first use for each
    dtype and pass. On GPUs they are the roofline: the larger of operations over the published peak
    and of bytes, each read or written once, over the bandwidth. None where no rate is known.
    """
    plan = make_plan(problem.spec())
    block_m, block_n = plan.tiles.block_m, plan.tiles.block_n
    table = _table_of(problem, block_m, block_n)
    mask = TRUE if problem.program.mask is None else problem.program.mask
    n_groups = problem.n_batch * problem.n_heads
    repeats = n_groups // max(table.n_batch * table.n_heads, 1)
    tensors = problem.program.tensors
    n_pairs = float(n_groups * problem.n_queries * problem.n_keys)
    visited = n_pairs * (1.0 - _skipped_share(table))
    per_pair = 2.0 * _multiplied_widths(problem)
    if isinstance(problem.target, CpuTarget):
        pairs = pairs_of(table, mask, tensors, plan, repeats)
        seconds = _cpu_seconds(problem, plan, table, pairs)
        dense = _whole(table)
        dense_plan = make_plan(problem.spec(mask=None, from_table=True, block_multiple=(0, 0)))
        dense_seconds = _cpu_seconds(problem, dense_plan, dense, Pairs(n_pairs, 0.0, 0.0, 0.0, 0.0))
    else:
        seconds = _roofline(problem, problem.target, visited * per_pair)
        dense_seconds = _roofline(problem, problem.target, n_pairs * per_pair)
    return Cost(
        block_m=block_m,
        block_n=block_n,
        n_full=table.n_full * repeats,
        n_partial=table.n_partial * repeats,
        n_empty=table.n_empty * repeats,
        flops=visited * per_pair,
        dense_flops=n_pairs * per_pair,
        n_bytes=_scheduled_bytes(problem, plan, table, repeats),
        seconds=seconds,
        dense_seconds=dense_seconds,
        is_bound=isinstance(problem.target, GpuTarget),
    )


def backward_target(target: Target) -> Target:
    """The machine as backward kernels use it: they multiply pairs of bfloat16 in vectors only."""
    return CpuTarget("avx512_bf16") if target == CpuTarget("amx") else target


def _table_of(problem: Problem, block_m: int, block_n: int) -> RunTable:
    if problem.table is not None:
        return problem.table.refine(block_m, block_n)
    mask = problem.program.mask
    return classify(
        TRUE if mask is None else mask,
        problem.program.tensors,
        n_batch=problem.n_batch,
        n_heads=problem.n_heads,
        n_queries=problem.n_queries,
        n_keys=problem.n_keys,
        block_m=block_m,
        block_n=block_n,
    ).table


def _whole(table: RunTable) -> RunTable:
    """Every tile FULL, alike for all batches and heads."""
    n_rows = table.n_q_blocks
    return RunTable.from_runs(
        np.arange(n_rows),
        np.zeros(n_rows, np.int64),
        np.full(n_rows, table.n_kv_blocks),
        np.full(n_rows, 2, np.int8),
        n_batch=1,
        n_heads=1,
        n_queries=table.n_queries,
        n_keys=table.n_keys,
        block_m=table.block_m,
        block_n=table.block_n,
    )


def _skipped_share(table: RunTable) -> float:
    """Share of the pairs that lie in EMPTY tiles."""
    n_pairs = table.n_batch * table.n_heads * table.n_queries * table.n_keys
    return 1.0 - sum(n_pairs_by_kind(table)) / n_pairs if n_pairs else 0.0


def _multiplied_widths(problem: Problem) -> int:
    """Widths of the matrix products together: two forward; backward five, or, where two kernels
    share the work on GPUs, seven."""
    head, value = problem.head_dim, problem.value_dim
    if not problem.backward:
        return head + value
    if isinstance(problem.target, GpuTarget):
        return 4 * head + 3 * value
    return 3 * head + 2 * value


def _scheduled_bytes(problem: Problem, plan: Plan, table: RunTable, repeats: int) -> float:
    """Read and written by tiles: queries and results once, keys and values at each visit."""
    sizes = problem.sizes
    by_query = sizes.head_dim + sizes.value_dim
    by_key = sizes.head_dim + sizes.value_dim
    if problem.backward:
        by_query, by_key = 2 * by_query, by_key + sizes.head_dim
    queries = sizes.n_batch * sizes.n_heads * sizes.n_queries * by_query * sizes.itemsize
    starts, stops = table.starts.astype(np.int64), table.stops.astype(np.int64)
    keys = np.minimum(stops * table.block_n, table.n_keys) - starts * table.block_n
    visits = int(keys.sum()) * repeats * by_key * sizes.itemsize
    if problem.backward:  # gradients of keys and values are sums in the dtype of accumulation
        sums = 8 if problem.dtype == "float64" else 4
        visits += int(keys.sum()) * repeats * 2 * (sizes.head_dim + sizes.value_dim) * sums
    arrays = (table.offsets, table.starts, table.stops, table.kinds) if plan.uses_table else ()
    return float(queries + visits + sum(array.nbytes for array in arrays))


def _cpu_seconds(problem: Problem, plan: Plan, table: RunTable, pairs: Pairs) -> float | None:
    from attnc.cost.rates import known_rates, rates_of
    from attnc.errors import NoCompilerError
    from attnc.runtime.isa import runnable_isas

    target = problem.target
    assert isinstance(target, CpuTarget)
    if target.isa not in runnable_isas():
        return None
    asked = rates_of if problem.measures else known_rates
    try:
        rates = asked(target.isa, problem.dtype, backward=problem.backward)
    except NoCompilerError:
        return None
    if rates is None:
        return None
    work = work_of(plan, table, pairs, problem.sizes, backward=problem.backward)
    if work.moved + work.written <= _CACHED_BYTES:
        work = work._replace(moved=0.0, written=0.0)
    n_items = problem.n_batch * problem.n_heads * table.n_q_blocks
    return rates.time(work, max(min(problem.n_threads, n_items), 1))


def _roofline(problem: Problem, target: GpuTarget, flops: float) -> float | None:
    peaks = target.peaks
    if peaks is None:
        return None
    sizes, backward = problem.sizes, problem.backward
    n_bytes = sizes.moved(backward=backward) + sizes.written(backward=backward)
    return max(flops / peaks.flops[problem.dtype], n_bytes / peaks.bytes_per_second)
