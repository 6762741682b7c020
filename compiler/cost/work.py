"""What a CPU kernel does in one call, counted in the units that rates are measured for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from attnc.analysis.counts import n_pairs_by_kind
from attnc.evaluate import evaluate
from attnc.ir import (
    Binary,
    BinaryOp,
    Const,
    DType,
    Expr,
    Gather,
    Leaf,
    Level,
    Reduce,
    Unary,
    UnaryOp,
    walk,
)
from attnc.plan import Plan
from attnc.run_table import Kind, RunTable
from attnc.schedule import Schedule
from attnc.target import CpuTarget

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_MAX_SAMPLED = 256
_SPECIAL = {
    UnaryOp.EXP,
    UnaryOp.EXP2,
    UnaryOp.EXPM1,
    UnaryOp.LOG,
    UnaryOp.LOG2,
    UnaryOp.LOG1P,
    UnaryOp.SIN,
    UnaryOp.COS,
    UnaryOp.TANH,
    UnaryOp.SIGMOID,
    UnaryOp.ERF,
}


class Work(NamedTuple):
    """Amounts of each kind of work.

    Attributes:
        calls: Kernels launched.
        rows: Elements of queries loaded and of outputs stored, by tiles of queries.
        packed: Elements of keys and values brought into the order of the loops.
        products: Multiplications of the matrix products.
        scores: Pairs of visited tiles that go through the softmax.
        masked: Pairs of PARTIAL tiles, for which the mask is computed.
        changed: Pairs whose scores are read and written once more, once for each loop that does:
            for a score_mod and for its derivatives.
        cheap, special, single: Operations of mask and score_mod per pair: of one instruction for
            a vector; functions like tanh; those that take the elements of a vector one by one.
        moved: Bytes of q, k, v and results that come from memory, or go there.
    """

    calls: float = 0.0
    rows: float = 0.0
    packed: float = 0.0
    products: float = 0.0
    scores: float = 0.0
    masked: float = 0.0
    changed: float = 0.0
    cheap: float = 0.0
    special: float = 0.0
    single: float = 0.0
    moved: float = 0.0


class Sizes(NamedTuple):
    """The sizes of a call: of keys with ``kv_heads`` heads, in elements of ``itemsize`` bytes."""

    n_batch: int
    n_heads: int
    kv_heads: int
    n_queries: int
    n_keys: int
    head_dim: int
    value_dim: int
    itemsize: int

    def moved(self, *, backward: bool) -> int:
        """Bytes of every input and output, each once."""
        queries = self.n_batch * self.n_heads * self.n_queries
        keys = self.n_batch * self.kv_heads * self.n_keys
        by_query = self.head_dim + self.value_dim
        if backward:  # q, out, grad_out and grad_q; k, v and their gradients
            by_query, keys = 2 * by_query, 2 * keys
        return (queries * by_query + keys * (self.head_dim + self.value_dim)) * self.itemsize


class Pairs(NamedTuple):
    """Pairs of the visited tiles of a call, over all batches and heads.

    Attributes:
        full, partial: In FULL tiles and in PARTIAL ones, ragged tiles by their true size.
        live: Of the latter, those that the kernel computes: it leaves out columns that some rows
            next to each other do not see.
        spanned: The same where all rows of a tile take the columns that any of them takes.
    """

    full: float
    partial: float
    live: float
    spanned: float


def pairs_of(
    table: RunTable, mask: Expr, tensors: Sequence[torch.Tensor], plan: Plan, repeats: int
) -> Pairs:
    """Pairs in the tiles of ``table``, ``repeats`` times.

    ``mask`` is simplified, its constants in place. Where there are many PARTIAL tiles, the columns
    that they compute are those of a sample, evenly spread.
    """
    full, partial = n_pairs_by_kind(table)
    live, spanned = _live_shares(table, *_sampled_tiles(table), mask, tensors, plan)
    return Pairs(
        float(full * repeats),
        float(partial * repeats),
        partial * live * repeats,
        partial * spanned * repeats,
    )


def _sampled_tiles(table: RunTable) -> tuple[Ints, Ints]:
    """Rows and key blocks of at most ``_MAX_SAMPLED`` PARTIAL tiles, evenly spread."""
    runs = np.flatnonzero(table.kinds == Kind.PARTIAL)
    starts = table.starts[runs].astype(np.int64)
    ends = (table.stops[runs].astype(np.int64) - starts).cumsum()
    n_tiles = int(ends[-1]) if len(ends) else 0
    number = np.linspace(0, n_tiles - 1, min(n_tiles, _MAX_SAMPLED)).astype(np.int64)
    run = np.searchsorted(ends, number, "right")
    before = np.append(0, ends)[run]
    return table.run_rows()[runs[run]], starts[run] + number - before


def _live_shares(
    table: RunTable,
    row: Ints,
    column: Ints,
    mask: Expr,
    tensors: Sequence[torch.Tensor],
    plan: Plan,
) -> tuple[float, float]:
    if not len(row):
        return 1.0, 1.0
    group, q_block = np.divmod(row, table.n_q_blocks)
    b, h = np.divmod(group, table.n_heads)
    q_idx = q_block[:, None] * table.block_m + np.arange(table.block_m)
    kv_idx = column[:, None] * table.block_n + np.arange(table.block_n)

    def indices(values: Ints, *shape: int) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.int32)).reshape(shape)

    seen = evaluate(
        mask,
        b=indices(b, -1, 1, 1),
        h=indices(h, -1, 1, 1),
        q_idx=indices(np.minimum(q_idx, table.n_queries - 1), len(row), -1, 1),
        kv_idx=indices(np.minimum(kv_idx, table.n_keys - 1), len(row), 1, -1),
        tensors=tensors,
    ).expand(len(row), table.block_m, table.block_n)
    inside = (q_idx < table.n_queries)[:, :, None] & (kv_idx < table.n_keys)[:, None, :]
    visible = seen.numpy() & inside
    n_rows, n_columns = _granularity(plan)
    by_group = visible.reshape(len(row), table.block_m // n_rows, n_rows, -1, n_columns)
    groups: NDArray[np.bool_] = np.any(by_group, axis=(2, 4))
    first = groups.argmax(2)
    stop = groups.shape[2] - groups[:, :, ::-1].argmax(2)
    spans = np.where(np.any(groups, axis=2), stop - first, 0).sum() * n_rows * n_columns
    union: NDArray[np.bool_] = np.any(groups, axis=1)
    whole = union.shape[1] - union[:, ::-1].argmax(1) - union.argmax(1)
    heights = np.minimum(table.block_m, table.n_queries - q_block * table.block_m)
    wholes = (np.where(np.any(union, axis=1), whole, 0) * heights).sum() * n_columns
    n_pairs = inside.sum()
    return float(min(spans / n_pairs, 1.0)), float(min(wholes / n_pairs, 1.0))


def _granularity(plan: Plan) -> tuple[int, int]:
    """Rows that share their columns, and how many columns are taken or left together."""
    target = plan.spec.target
    assert isinstance(target, CpuTarget)
    if plan.multiplies_pairs and target.isa == "amx":
        return 16, 32
    return 4, target.vector_bytes // (8 if plan.spec.dtype == "float64" else 4)


def work_of(
    plan: Plan, table: RunTable, pairs: Pairs, sizes: Sizes, *, backward: bool = False
) -> Work:
    """What a kernel of ``plan`` does with the tiles of ``table``."""
    widths = sizes.head_dim + sizes.value_dim
    score_pairs = pairs.full + pairs.live
    heads_of_keys = sizes.n_batch * sizes.kv_heads
    products = score_pairs * (widths if plan.qk_is_live else sizes.value_dim)
    parts = [plan.score]
    if backward:
        products += score_pairs * sizes.head_dim + (pairs.full + pairs.spanned) * widths
        parts += [plan.derivative, *(a.factor for a in plan.accumulations)]
    mask_counts = _counts(plan.mask)
    score_counts = np.sum([_counts(part) for part in parts], axis=0)
    counts = pairs.partial * mask_counts + score_pairs * score_counts
    return Work(
        calls=1.0,
        rows=float(sizes.n_batch * sizes.n_heads * sizes.n_queries * widths),
        packed=float(heads_of_keys * _n_read_blocks(table) * table.block_n * widths),
        products=products,
        scores=score_pairs,
        masked=pairs.partial if plan.mask is not None else 0.0,
        changed=score_pairs * sum(part is not None for part in parts),
        cheap=float(counts[0]),
        special=float(counts[1]),
        single=float(counts[2]),
        moved=float(sizes.moved(backward=backward)),
    )


def _n_read_blocks(table: RunTable) -> float:
    """Blocks of keys that some tile of queries reads, on average over batches and heads."""
    n_groups = table.n_batch * table.n_heads
    if not n_groups or not len(table.starts):
        return 0.0
    ends = np.zeros((n_groups, table.n_kv_blocks + 1), np.int64)
    group = table.run_rows() // table.n_q_blocks
    np.add.at(ends, (group, table.starts), 1)
    np.add.at(ends, (group, table.stops), -1)
    return float((ends.cumsum(1) > 0).sum() / n_groups)


def _counts(part: Schedule | None) -> Floats:
    """Operations per pair of each of the three kinds: (3,)."""
    counts = np.zeros(3)
    if part is None:
        return counts
    for let in part.at(Level.ELEMENT):
        counts += _operations(let.expr)
    if not isinstance(part.result, Leaf):
        counts += _operations(part.result)
    return counts


def _operations(expr: Expr) -> Floats:
    counts = np.zeros(3)
    extent = 1
    for node in walk(expr):
        match node:
            case Leaf():
                continue
            case Reduce():
                extent *= node.extent
                counts[2] += node.extent
            case Gather():
                counts[2] += 1
            case Unary(op) if op in _SPECIAL:
                counts[1] += 1
            case Binary(BinaryOp.POW, _, y) if not isinstance(y, Const):
                counts[1] += 2
            case Binary(BinaryOp.FLOORDIV | BinaryOp.MOD, x, y) if x.dtype.is_int:
                counts[0 if _is_power_of_two(y) else 2] += 1
            case _:
                counts[0] += 1 + (node.dtype is DType.INT64)
    return counts * extent


def _is_power_of_two(expr: Expr) -> bool:
    if not isinstance(expr, Const):
        return False
    value = int(expr.value)
    return value > 0 and not value & (value - 1)
