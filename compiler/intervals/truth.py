"""Three-valued truth of a predicate on many boxes of indices at once.

Sound: what is called NEVER is false, and what is called ALWAYS is true, at every point of the
box, with the wrap-around, rounding and NaN of the IR. A box is a product of index ranges. Ranges
of captured tensors come from ``pyramid``; bit tricks are followed by known bits; a difference of
sums in which one index occurs twice is bounded as one linear form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from attnc.intervals.boxes import Boxes, Products, Side, Truths, Value, taken
from attnc.intervals.facts import Facts
from attnc.intervals.ranges import Range
from attnc.intervals.values import Flags, truths_in, value_of
from attnc.ir import Binary, Cast, Expr, Level, Unary, walk


def truth_of(mask: Expr, boxes: Boxes | Products, facts: Facts) -> Truths:
    """``Truth`` of ``mask`` on each box: (n_boxes,), int8."""
    return truths_of((mask,), boxes, facts)[0]


def truths_of(predicates: Sequence[Expr], boxes: Boxes | Products, facts: Facts) -> list[Truths]:
    """``Truth`` of each of several boolean expressions on each box: arrays (n_boxes,), int8."""
    products = boxes if isinstance(boxes, Products) else Products.of(boxes)
    values = _Values(products)
    for predicate in predicates:
        for node, level in facts.levels_of(predicate):
            values.add(node, level, facts)
    return [np.broadcast_to(truths_in(values[p]), (products.n_boxes,)) for p in predicates]


class _Values(Mapping[Expr, Value]):
    """Values of nodes on products of rows and columns, each found where it changes."""

    def __init__(self, products: Products) -> None:
        self.products = products
        self.elements: dict[Expr, Value] = {}
        self.of_columns: set[Expr] = set()

    def add(self, node: Expr, level: Level, facts: Facts) -> None:
        """Finds the value of a node whose operands were added before."""
        products = self.products
        if level in (Level.UNIFORM, Level.ROW):
            _add(products.rows, node, level, facts)
        if level in (Level.UNIFORM, Level.COLUMN):
            _add(products.columns, node, level, facts)
        if level is Level.COLUMN:
            self.of_columns.add(node)
        if level in (Level.DIAGONAL, Level.ELEMENT) and node not in self.elements:
            self.elements[node] = value_of(node, self, None, facts)

    def __getitem__(self, node: Expr) -> Value:
        value = self.elements.get(node)
        if value is None:
            products = self.products
            if node in self.of_columns:
                value = taken(products.columns.values[node], products.column)
            else:
                value = taken(products.rows.values[node], products.row)
            self.elements[node] = value
        return value

    def __iter__(self) -> Iterator[Expr]:
        return iter(self.elements)

    def __len__(self) -> int:
        return len(self.elements)


def _add(side: Side, node: Expr, level: Level, facts: Facts) -> None:
    if node in side.values:
        return
    if level is Level.COLUMN and side.boxes.kv_idx is side.boxes.q_idx:
        # What a column knows of kv_idx a row of the same tokens knows of q_idx.
        mirrored = facts.mirrored(node)
        _add(side, mirrored, Level.ROW, facts)
        side.values[node] = side.values[mirrored]
        return
    side.values[node] = value_of(node, side.values, side.boxes, facts)


def may_wrap(exprs: Sequence[Expr], boxes: Boxes, facts: Facts) -> Flags:
    """Boxes on which some integer operation in ``exprs`` might wrap around: (n_boxes,), bool.

    Where it is False, integers of the IR behave as mathematical integers.
    """
    values: dict[Expr, Value] = {}
    result = np.zeros(boxes.n_boxes, bool)
    for node in walk(*exprs):
        value = values[node] = value_of(node, values, boxes, facts)
        if isinstance(node, Unary | Binary | Cast) and isinstance(value, Range):
            result |= value.wrapped
    return result


def never_wraps(
    exprs: Sequence[Expr],
    facts: Facts,
    *,
    n_batch: int,
    n_heads: int,
    n_queries: int,
    n_keys: int,
) -> bool:
    """Whether no integer operation in ``exprs`` can wrap at any index below these extents.

    It is what loop bounds in closed form rely on. ``facts`` holds the values of parameters.
    """
    extents = (n_batch, n_heads, n_queries, n_keys)
    whole = Boxes(*((np.array([0]), np.array([max(extent - 1, 0)])) for extent in extents))
    return not may_wrap(exprs, whole, facts).any()
