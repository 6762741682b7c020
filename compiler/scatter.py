"""How the gradient of a captured tensor is summed: from the map that says which element is read.

A tile of scores contributes one number per pair (q_idx, kv_idx). Where the map ignores a
coordinate, its contributions are summed in the tile first, and reach the tensor once.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from attnc.ir import (
    B_IDX,
    H_IDX,
    KV_IDX,
    Q_IDX,
    Binary,
    BinaryOp,
    Const,
    DType,
    Expr,
    IndexName,
    Level,
    Reduce,
    RowIndex,
    Score,
    Unary,
    UnaryOp,
    level_of,
)

if TYPE_CHECKING:
    from attnc.derivative import Scatter


class Reduction(Enum):
    """What the element read depends on, besides b and h."""

    UNIFORM = "nothing"
    ROW = "q_idx"
    COLUMN = "kv_idx"
    DIFFERENCE = "q_idx - kv_idx"
    ELEMENT = "both, or the score"


_BY_LEVEL = {
    Level.UNIFORM: Reduction.UNIFORM,
    Level.ROW: Reduction.ROW,
    Level.COLUMN: Reduction.COLUMN,
}


def reduction_of(scatter: Scatter) -> Reduction:
    """What the indices of ``scatter`` depend on; reductions inside a score_mod count as ELEMENT."""
    if scatter.rows:
        return Reduction.ELEMENT
    level = Level.UNIFORM
    for index in scatter.indices:
        level = level.join(level_of(index))
    if level is not Level.ELEMENT:
        return _BY_LEVEL[level]
    if all(_depends_on_difference(index) for index in scatter.indices):
        return Reduction.DIFFERENCE
    return Reduction.ELEMENT


def is_owned(scatter: Scatter, coordinate: IndexName) -> bool:
    """Whether different ``coordinate`` (B or H) never read one element: it is itself an index."""
    leaf = B_IDX if coordinate is IndexName.B else H_IDX
    return any(index is leaf for index in scatter.indices)


def _depends_on_difference(expr: Expr) -> bool:
    """Whether ``expr`` reads q_idx and kv_idx only by their difference."""
    stack = [expr]
    while stack:
        node = stack.pop()
        slope = _slope(node)
        if slope is not None and slope[0] + slope[1] == 0:
            continue
        if isinstance(node, Score | Reduce | RowIndex) or node in (Q_IDX, KV_IDX):
            return False
        stack.extend(node.children)
    return True


def _slope(expr: Expr) -> tuple[int, int] | None:
    """Factors of q_idx and kv_idx where ``expr`` is an int32 sum of them and of uniform values."""
    if expr.dtype is not DType.INT32:
        return None
    if expr is Q_IDX:
        return (1, 0)
    if expr is KV_IDX:
        return (0, 1)
    match expr:
        case Unary(UnaryOp.NEG, x):
            inner = _slope(x)
            return None if inner is None else (-inner[0], -inner[1])
        case Binary(BinaryOp.ADD | BinaryOp.SUB as op, x, y):
            left, right = _slope(x), _slope(y)
            if left is None or right is None:
                return None
            sign = 1 if op is BinaryOp.ADD else -1
            return (left[0] + sign * right[0], left[1] + sign * right[1])
        case Binary(BinaryOp.MUL, x, Const(factor)):
            inner = _slope(x)
            return None if inner is None else (inner[0] * int(factor), inner[1] * int(factor))
    return (0, 0) if level_of(expr) is Level.UNIFORM else None
