"""What a CPU kernel does in one call, counted in the units that rates are measured for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attnc.cost.pairs import Pairs
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
from attnc.run_table import RunTable
from attnc.schedule import Schedule

Floats = NDArray[np.float64]

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
        edges: Elements of the rows of PARTIAL tiles, by tiles and matrix products: what a product
            takes however few columns of a row are left.
        masked: Pairs of PARTIAL tiles, for which the mask is computed.
        changed: Pairs whose scores are read and written once more, once for each loop that does:
            for a score_mod and for its derivatives.
        cheap, special, single: Operations of mask and score_mod per pair: of one instruction for
            a vector; functions like tanh; those that take the elements of a vector one by one.
        moved: Bytes of inputs that come from memory.
        written: Bytes of results, in memory that the system gives anew.
    """

    calls: float = 0.0
    rows: float = 0.0
    packed: float = 0.0
    products: float = 0.0
    scores: float = 0.0
    edges: float = 0.0
    masked: float = 0.0
    changed: float = 0.0
    cheap: float = 0.0
    special: float = 0.0
    single: float = 0.0
    moved: float = 0.0
    written: float = 0.0


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

    @property
    def _queries(self) -> int:
        return self.n_batch * self.n_heads * self.n_queries * self.itemsize

    @property
    def _keys(self) -> int:
        return self.n_batch * self.kv_heads * self.n_keys * self.itemsize

    def moved(self, *, backward: bool) -> int:
        """Bytes of q, k and v, for the backward pass also of out and its gradient, each once."""
        by_query = self.head_dim + 2 * self.value_dim if backward else self.head_dim
        return self._queries * by_query + self._keys * (self.head_dim + self.value_dim)

    def written(self, *, backward: bool) -> int:
        """Bytes of out, or of the gradients of q, k and v."""
        if not backward:
            return self._queries * self.value_dim
        return self._queries * self.head_dim + self._keys * (self.head_dim + self.value_dim)


def work_of(
    plan: Plan, table: RunTable, pairs: Pairs, sizes: Sizes, *, backward: bool = False
) -> Work:
    """What a kernel of ``plan`` does with the tiles of ``table``."""
    widths = sizes.head_dim + sizes.value_dim
    score_pairs = pairs.full + pairs.live
    heads_of_keys = sizes.n_batch * sizes.kv_heads
    products = score_pairs * (widths if plan.qk_is_live else sizes.value_dim)
    edges = pairs.rows * widths
    parts = [plan.score]
    if backward:
        products += score_pairs * sizes.head_dim + (pairs.full + pairs.spanned) * widths
        edges += pairs.rows * (widths + sizes.head_dim)
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
        edges=edges,
        masked=pairs.partial if plan.mask is not None else 0.0,
        changed=score_pairs * sum(part is not None for part in parts),
        cheap=float(counts[0]),
        special=float(counts[1]),
        single=float(counts[2]),
        moved=float(sizes.moved(backward=backward)),
        written=float(sizes.written(backward=backward)),
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
