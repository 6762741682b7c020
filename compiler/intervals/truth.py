"""Three-valued truth of a predicate on many boxes of indices at once.

Sound: what is called NEVER is false, and what is called ALWAYS is true, at every point of the
box, with the wrap-around, rounding and NaN of the IR. A box is a product of index ranges. Ranges
of captured tensors come from ``pyramid``; bit tricks are followed by known bits; a difference of
sums in which one index occurs twice is bounded as one linear form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray

from attnc.intervals import float_ranges, integer_ranges
from attnc.intervals.linear_bounds import linear_bounds
from attnc.intervals.pyramid import TensorRanges
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
    IndexName,
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
Truths = NDArray[np.int8]
Flags = NDArray[np.bool_]
Value = Range | Truths


class Truth(IntEnum):
    """Value of a predicate on a box: false everywhere, unknown or mixed, true everywhere."""

    NEVER = 0
    MAYBE = 1
    ALWAYS = 2


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


@dataclass
class Facts:
    """What is known besides the boxes: captured tensors by slot, values of ``Param``s by number.

    Keep one object for many calls: it holds the range structures of the tensors.
    """

    tensors: Sequence[torch.Tensor] = ()
    params: Sequence[bool | int | float] | None = None
    _ranges: dict[tuple[int, DType], TensorRanges] = field(default_factory=dict)
    _orders: dict[Expr, tuple[Expr, ...]] = field(default_factory=dict)

    def ranges_of(self, slot: int, load_dtype: DType) -> TensorRanges:
        """Range structure of a captured tensor, built at first use."""
        key = slot, load_dtype
        if key not in self._ranges:
            self._ranges[key] = TensorRanges.of(self.tensors[slot], load_dtype)
        return self._ranges[key]

    def order_of(self, mask: Expr) -> tuple[Expr, ...]:
        """The nodes of ``mask``, operands first."""
        if mask not in self._orders:
            self._orders[mask] = tuple(walk(mask))
        return self._orders[mask]


def truth_of(mask: Expr, boxes: Boxes, facts: Facts) -> Truths:
    """``Truth`` of ``mask`` on each box: (n_boxes,), int8."""
    return truths_of((mask,), boxes, facts)[0]


def truths_of(predicates: Sequence[Expr], boxes: Boxes, facts: Facts) -> list[Truths]:
    """``Truth`` of each of several boolean expressions on each box: arrays (n_boxes,), int8."""
    values: dict[Expr, Value] = {}
    for predicate in predicates:
        for node in facts.order_of(predicate):
            if node not in values:
                values[node] = _value(node, values, boxes, facts)
    return [np.broadcast_to(_truths(values[p]), (boxes.n_boxes,)) for p in predicates]


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


def _value(node: Expr, values: Mapping[Expr, Value], boxes: Boxes, facts: Facts) -> Value:
    match node:
        case Index(name):
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
        case Gather(slot, indices, dtype):
            return _gathered(facts.ranges_of(slot, dtype), [values[i] for i in indices], dtype)
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
    )


def _compared(op: CompareOp, lhs: Expr, rhs: Expr, values: Mapping[Expr, Value]) -> Truths:
    x, y = _number(values[lhs]), _number(values[rhs])
    may_nan = x.may_nan | y.may_nan
    below, above = x.hi < y.lo, x.lo > y.hi
    not_below, not_above = x.lo >= y.hi, x.hi <= y.lo
    if lhs is rhs:
        below, above = np.zeros(1, bool), np.zeros(1, bool)
        not_below, not_above = ~below, ~above
    elif lhs.dtype.is_int:
        bounds = linear_bounds(lhs, rhs, -1, values)
        if bounds is not None:
            lo, hi, exact = bounds
            below, above = below | (exact & (hi < 0)), above | (exact & (lo > 0))
            not_below, not_above = not_below | (exact & (lo >= 0)), not_above | (exact & (hi <= 0))
    equal = not_below & not_above
    differ = below | above
    if x.zeros is not None or y.zeros is not None:
        (x_zeros, x_ones), (y_zeros, y_ones) = x.known_bits(), y.known_bits()
        differ = differ | ((x_zeros & y_ones) | (x_ones & y_zeros) != 0)
    match op:
        case CompareOp.LT:
            return _three(below, not_below, may_nan, False)
        case CompareOp.GE:
            return _three(not_below, below, may_nan, False)
        case CompareOp.GT:
            return _three(above, not_above, may_nan, False)
        case CompareOp.LE:
            return _three(not_above, above, may_nan, False)
        case CompareOp.EQ:
            return _three(equal, differ, may_nan, False)
        case CompareOp.NE:
            return _three(differ, equal, may_nan, True)
        case _:
            assert_never(op)


def _three(always: Flags, never: Flags, may_nan: Flags, with_nan: bool) -> Truths:
    """Truth from two certainties about numbers, if NaN makes the comparison ``with_nan``."""
    if with_nan:
        never = never & ~may_nan
    else:
        always = always & ~may_nan
    return (1 + always.astype(np.int8) - never.astype(np.int8)).astype(np.int8)


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
            result = integer_ranges.fitted(x.lo, x.hi, to)
            return Range(result.lo, result.hi, wrapped=result.wrapped | x.wrapped)
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


def _gathered(ranges: TensorRanges, indices: Sequence[Value], dtype: DType) -> Value:
    if 0 in ranges.sizes:
        return _converted(Range(np.zeros(1, np.int64), np.zeros(1, np.int64)), DType.INT64, dtype)
    lows, highs = [], []
    for index, size in zip(indices, ranges.sizes, strict=True):
        low, high = _into_range(_number(index), size)
        lows.append(low)
        highs.append(high)
    least, greatest = ranges.bounds(lows, highs)
    least, greatest = np.atleast_1d(least), np.atleast_1d(greatest)
    if dtype is DType.BOOL:
        return least + greatest
    if dtype.is_float:
        return Range(least, greatest, np.array([ranges.has_nan]))
    return Range(least.astype(np.int64), greatest.astype(np.int64))


def _into_range(index: Range, size: int) -> tuple[Ints, Ints]:
    """Range of the position that a load reads: negatives counted from the end, then clamped."""
    if (index.lo >= 0).all():
        low = np.minimum(index.lo, size - 1)
        high = low if index.hi is index.lo else np.minimum(index.hi, size - 1)
        return low, high
    crosses = (index.lo < 0) & (index.hi >= 0)
    low = np.clip(np.where(index.lo < 0, index.lo + size, index.lo), 0, size - 1)
    high = np.clip(np.where(index.hi < 0, index.hi + size, index.hi), 0, size - 1)
    return np.where(crosses, 0, low), np.where(crosses, size - 1, high)


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
            # Partial sums lie between 0 and the total.
            return total
        case _:
            return everything(node.dtype)
