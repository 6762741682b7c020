"""Three-valued truth of a predicate on many boxes of indices at once.

Sound: what is called NEVER is false, and what is called ALWAYS is true, at every point of the
box, with the wrap-around, rounding and NaN of the IR. A box is a product of index ranges. Ranges
of captured tensors come from ``pyramid``; bit tricks are followed by known bits; a difference of
sums in which one index occurs twice is bounded as one linear form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from attnc.intervals import float_ranges, integer_ranges
from attnc.intervals.boxes import Boxes, Products, Side, Truths, Value, taken
from attnc.intervals.congruence import may_be_equal
from attnc.intervals.facts import Facts
from attnc.intervals.gathers import gathered
from attnc.intervals.linear_bounds import linear_bounds
from attnc.intervals.ranges import LIMITS, NUMPY, Array, Range, chosen, everything, hull, point
from attnc.ir import (
    Binary,
    BinaryOp,
    Cast,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    Gather,
    Index,
    Level,
    Param,
    Reduce,
    ReduceOp,
    Ref,
    RowIndex,
    Score,
    Select,
    Unary,
    UnaryOp,
    walk,
)

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
_NO = np.zeros(1, bool)


class Truth(IntEnum):
    """Value of a predicate on a box: false everywhere, unknown or mixed, true everywhere."""

    NEVER = 0
    MAYBE = 1
    ALWAYS = 2


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
    return [np.broadcast_to(_truths(values[p]), (products.n_boxes,)) for p in predicates]


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
            self.elements[node] = _value(node, self, None, facts)

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
    side.values[node] = _value(node, side.values, side.boxes, facts)


def may_wrap(exprs: Sequence[Expr], boxes: Boxes, facts: Facts) -> Flags:
    """Boxes on which some integer operation in ``exprs`` might wrap around: (n_boxes,), bool.

    Where it is False, integers of the IR behave as mathematical integers.
    """
    values: dict[Expr, Value] = {}
    result = np.zeros(boxes.n_boxes, bool)
    for node in walk(*exprs):
        value = values[node] = _value(node, values, boxes, facts)
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


def _truths(value: Value) -> Truths:
    assert not isinstance(value, Range)
    return value


def _number(value: Value) -> Range:
    """A value as a range; of a truth, the range of 0 and 1."""
    if isinstance(value, Range):
        return value
    return Range((value == Truth.ALWAYS).astype(np.int64), (value >= Truth.MAYBE).astype(np.int64))


def _value(node: Expr, values: Mapping[Expr, Value], boxes: Boxes | None, facts: Facts) -> Value:
    match node:
        case Index(name):
            assert boxes is not None
            return boxes.range_of(name)
        case Const(value, DType.BOOL):
            return np.array([Truth.ALWAYS if value else Truth.NEVER], np.int8)
        case Const(value, dtype):
            return point(value, dtype)
        case Param(number, dtype) if facts.params is not None:
            return _value(Const(facts.params[number], dtype), values, boxes, facts)
        case Param() | Ref() | Score() | RowIndex():
            return _unknown(node.dtype)
        case Unary(UnaryOp.NOT, x) if x.dtype is DType.BOOL:
            return (2 - _truths(values[x])).astype(np.int8)
        case Unary(UnaryOp.ISNAN, x):
            return _number(values[x]).may_nan.astype(np.int8)
        case Unary(op, x):
            if x.dtype.is_float:
                return float_ranges.unary(op, _number(values[x]), x.dtype)
            return integer_ranges.unary(op, _number(values[x]), x.dtype)
        case Binary(op, lhs, rhs) if lhs.dtype is DType.BOOL:
            return _logical(op, _truths(values[lhs]), _truths(values[rhs]))
        case Binary(op, lhs, rhs):
            return _arithmetic(node, values)
        case Compare(op, lhs, rhs):
            return _compared(op, lhs, rhs, values)
        case Select(cond, if_true, if_false):
            return _selected(values[cond], values[if_true], values[if_false])
        case Cast(x, to):
            return _converted(_number(values[x]), x.dtype, to)
        case Gather(_, indices, _):
            places = [_number(values[index]) for index in indices]
            return gathered(node, places, boxes, facts)
        case Reduce():
            return _reduced(node, values[node.body])
        case _:
            raise AssertionError(f"unknown node {node}")


def _unknown(dtype: DType) -> Value:
    return np.array([Truth.MAYBE], np.int8) if dtype is DType.BOOL else everything(dtype)


def _logical(op: BinaryOp, x: Truths, y: Truths) -> Truths:
    match op:
        case BinaryOp.AND | BinaryOp.MIN | BinaryOp.MUL:
            return np.minimum(x, y)
        case BinaryOp.OR | BinaryOp.MAX | BinaryOp.ADD:
            return np.maximum(x, y)
        case BinaryOp.XOR:
            unknown = (x == Truth.MAYBE) | (y == Truth.MAYBE)
            return np.where(unknown, Truth.MAYBE, np.abs(x - y)).astype(np.int8)
        case _:
            return np.array([Truth.MAYBE], np.int8)


def _arithmetic(node: Binary, values: Mapping[Expr, Value]) -> Range:
    op, lhs, rhs = node.op, node.lhs, node.rhs
    x, y = _number(values[lhs]), _number(values[rhs])
    if node.dtype.is_float:
        return float_ranges.binary(op, x, y, node.dtype, same=lhs is rhs)
    result = integer_ranges.binary(op, x, y, node.dtype, same=lhs is rhs)
    if op not in (BinaryOp.ADD, BinaryOp.SUB):
        return result
    bounds = linear_bounds(lhs, rhs, -1 if op is BinaryOp.SUB else 1, values)
    if bounds is None:
        return result
    lo, hi, exact = bounds
    usable = exact & ~result.wrapped
    return Range(
        np.where(usable, np.maximum(result.lo, lo), result.lo),
        np.where(usable, np.minimum(result.hi, hi), result.hi),
        wrapped=result.wrapped,
        congruence=result.congruence,
    )


def _compared(op: CompareOp, lhs: Expr, rhs: Expr, values: Mapping[Expr, Value]) -> Truths:
    x, y = _number(values[lhs]), _number(values[rhs])
    may_nan = x.may_nan | y.may_nan
    never_equal = _NO
    if lhs is rhs:
        x = y = point(0, DType.INT32)
    elif lhs.dtype.is_int:
        if op in (CompareOp.EQ, CompareOp.NE):
            never_equal = _never_equal(x, y)
        bounds = linear_bounds(lhs, rhs, -1, values)
        if bounds is not None:
            x, y = _difference_sign(x, y, *bounds), point(0, DType.INT32)
    match op:
        case CompareOp.LT:
            return _three(x.hi < y.lo, x.lo >= y.hi, may_nan, False)
        case CompareOp.GE:
            return _three(x.lo >= y.hi, x.hi < y.lo, may_nan, False)
        case CompareOp.GT:
            return _three(x.lo > y.hi, x.hi <= y.lo, may_nan, False)
        case CompareOp.LE:
            return _three(x.hi <= y.lo, x.lo > y.hi, may_nan, False)
        case CompareOp.EQ:
            differ = (x.hi < y.lo) | (x.lo > y.hi) | never_equal
            return _three((x.lo >= y.hi) & (x.hi <= y.lo), differ, may_nan, False)
        case CompareOp.NE:
            differ = (x.hi < y.lo) | (x.lo > y.hi) | never_equal
            return _three(differ, (x.lo >= y.hi) & (x.hi <= y.lo), may_nan, True)
        case _:
            assert_never(op)


def _difference_sign(x: Range, y: Range, lo: Ints, hi: Ints, exact: Flags) -> Range:
    """Range of the sign of ``x - y``, of which ``lo <= x - y <= hi`` is known where ``exact``."""
    above, below = (x.lo > y.hi) | (exact & (lo > 0)), (x.hi < y.lo) | (exact & (hi < 0))
    not_below = (x.lo >= y.hi) | (exact & (lo >= 0))
    not_above = (x.hi <= y.lo) | (exact & (hi <= 0))
    one = np.int64(1)
    return Range(above * one - ~not_below * one, ~not_above * one - below * one)


def _never_equal(x: Range, y: Range) -> Flags:
    """Whether known bits or congruences of two integers exclude that they are equal."""
    if not may_be_equal(x.congruence, y.congruence):
        return ~_NO
    if x.zeros is None and y.zeros is None:
        return _NO
    (x_zeros, x_ones), (y_zeros, y_ones) = x.known_bits(), y.known_bits()
    return np.asarray((x_zeros & y_ones) | (x_ones & y_zeros) != 0)


def _three(always: Flags, never: Flags, may_nan: Flags, with_nan: bool) -> Truths:
    """Truth from two certainties about numbers, if NaN makes the comparison ``with_nan``."""
    if may_nan.any():
        if with_nan:
            never = never & ~may_nan
        else:
            always = always & ~may_nan
    return always.view(np.int8) - never.view(np.int8) + np.int8(1)


def _selected(cond: Value, x: Value, y: Value) -> Value:
    truths = _truths(cond)
    if isinstance(x, Range) and isinstance(y, Range):
        return chosen(truths, x, y)
    a, b = _truths(x), _truths(y)
    either = np.where(a == b, a, np.int8(Truth.MAYBE))
    return np.where(truths == Truth.ALWAYS, a, np.where(truths == Truth.NEVER, b, either)).astype(
        np.int8
    )


def _converted(x: Range, source: DType, to: DType) -> Value:
    if to is source and source is not DType.BOOL:
        return x
    if to is DType.BOOL:
        zero, other = (x.lo == 0) & (x.hi == 0), (x.lo > 0) | (x.hi < 0)
        return _three(other, zero, x.may_nan, True)
    with np.errstate(over="ignore", invalid="ignore"):
        if to.is_float:
            number = NUMPY[to]
            return Range(x.lo.astype(number), x.hi.astype(number), x.may_nan)
        if not source.is_float:
            fitted = integer_ranges.fitted(x.lo, x.hi, to)
            result = Range(fitted.lo, fitted.hi, wrapped=fitted.wrapped | x.wrapped)
            return integer_ranges.congruent(result, x.congruence)
        lo, hi = _saturated(x.lo, to), _saturated(x.hi, to)
    # NaN becomes 0.
    return Range(
        np.where(x.may_nan, np.minimum(lo, 0), lo), np.where(x.may_nan, np.maximum(hi, 0), hi)
    )


def _saturated(x: Array, to: DType) -> Ints:
    low, high = LIMITS[to]
    wide = np.trunc(x.astype(np.float64))
    inside = (wide >= low) & (wide < -float(low))
    numbers = np.where(inside, wide, 0).astype(np.int64)
    return np.where(inside, numbers, np.where(wide < 0, low, high))


def _reduced(node: Reduce, body: Value) -> Value:
    if node.dtype is DType.BOOL or node.extent == 0:
        return _unknown(node.dtype)
    numbers = _number(body)
    match node.op:
        case ReduceOp.MIN | ReduceOp.MAX:
            return hull(numbers, numbers)
        case ReduceOp.SUM if node.dtype.is_int:
            extent = point(node.extent, node.dtype)
            total = integer_ranges.binary(BinaryOp.MUL, numbers, extent, node.dtype, same=False)
            # Partial sums lie between 0 and the total; of a sum of unlike terms no more is known.
            return Range(total.lo, total.hi, wrapped=total.wrapped)
        case _:
            return everything(node.dtype)
