"""Boxes of indices, many at once: a product of four ranges each, or a row of tiles by a column."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from attnc.intervals.ranges import Array, Range
from attnc.ir import Expr, IndexName

Ints = NDArray[np.int64]
Truths = NDArray[np.int8]
Value = Range | Truths


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of indices, both ends inclusive and least <= greatest: (n_boxes,) or (1,), int64."""

    b: tuple[Ints, Ints]
    h: tuple[Ints, Ints]
    q_idx: tuple[Ints, Ints]
    kv_idx: tuple[Ints, Ints]

    @property
    def n_boxes(self) -> int:
        return max(len(end) for pair in self.pairs() for end in pair)

    def pairs(self) -> tuple[tuple[Ints, Ints], ...]:
        return (self.b, self.h, self.q_idx, self.kv_idx)

    def range_of(self, name: IndexName) -> Range:
        """The range of one coordinate."""
        match name:
            case IndexName.B:
                return Range(*self.b)
            case IndexName.H:
                return Range(*self.h)
            case IndexName.Q:
                return Range(*self.q_idx)
            case IndexName.KV:
                return Range(*self.kv_idx)
            case _:
                assert_never(name)


@dataclass(frozen=True, eq=False)
class Side:
    """Rows (or columns) of boxes, each once, and what is known of expressions on them.

    Of ``boxes`` only b, h and q_idx count (or b, h and kv_idx).
    """

    boxes: Boxes
    values: dict[Expr, Value] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Products:
    """Boxes that are each the product of a row and a column, given by number.

    What depends on q_idx alone is computed once for each row, not for each box. ``row, column``:
    (n_boxes,), int64, or None where there is one row (or column) per box, in their order.
    """

    rows: Side
    columns: Side
    row: Ints | None
    column: Ints | None

    @property
    def n_boxes(self) -> int:
        if self.row is not None:
            return len(self.row)
        if self.column is not None:
            return len(self.column)
        return max(self.rows.boxes.n_boxes, self.columns.boxes.n_boxes)

    @staticmethod
    def of(boxes: Boxes) -> Products:
        """The same boxes, each with a row and a column of its own."""
        side = Side(boxes)
        return Products(side, side, None, None)


def taken(value: Value, places: Ints | None) -> Value:
    """What is known on numbered boxes: ``value[places]``, element by element of a range."""
    if places is None:
        return value
    if not isinstance(value, Range):
        return _taken(value, places)
    lo = _taken(value.lo, places)
    return Range(
        lo,
        lo if value.hi is value.lo else _taken(value.hi, places),
        _taken(value.may_nan, places),
        _taken(value.wrapped, places),
        None if value.zeros is None else _taken(value.zeros, places),
        None if value.ones is None else _taken(value.ones, places),
        value.congruence,
    )


def _taken(values: Array, places: Ints) -> Array:
    return values if values.size == 1 else values.take(places)
