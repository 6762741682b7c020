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
    Expr,
    Index,
    IndexName,
    Level,
    Reduce,
    RowIndex,
    Score,
    level_of,
    slopes_of,
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


def dimensions_of(scatter: Scatter, coordinate: IndexName) -> tuple[int, ...]:
    """The dimensions whose index is ``coordinate`` (B or H) itself.

    Where one of them is as long as there are coordinates, no two of these read one element. All
    those that lie beyond a shorter one are clamped to its last element.
    """
    leaf = B_IDX if coordinate is IndexName.B else H_IDX
    return tuple(n for n, index in enumerate(scatter.indices) if index is leaf)


def coordinates_of(scatter: Scatter) -> tuple[IndexName, ...] | None:
    """The coordinates that the indices are, where no two (h, q_idx, kv_idx) read one element.

    So each element that is read has one summand per batch, or one at all where B is among them.
    """
    names = tuple(index.name for index in scatter.indices if isinstance(index, Index))
    is_one_to_one = len(names) == len(scatter.indices) == len(set(names))
    if scatter.rows or not is_one_to_one:
        return None
    return names if {IndexName.H, IndexName.Q, IndexName.KV} <= set(names) else None


def _depends_on_difference(expr: Expr) -> bool:
    """Whether ``expr`` reads q_idx and kv_idx only by their difference."""
    slopes = slopes_of(expr)
    seen: set[Expr] = set()
    stack = [expr]
    while stack:
        node = stack.pop()
        if node in seen or sum(slopes.get(node, (1, 1))) == 0:
            continue
        seen.add(node)
        if isinstance(node, Score | Reduce | RowIndex) or node in (Q_IDX, KV_IDX):
            return False
        stack.extend(node.children)
    return True
