"""What a node can be on many boxes at once, from what its operands can be."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from attnc.intervals import float_ranges, integer_ranges
from attnc.intervals.boxes import Boxes, Truths, Value
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
    Param,
    Reduce,
    ReduceOp,
    Ref,
    RowIndex,
    Score,
    Select,
    Unary,
    UnaryOp,
)

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
_NO = np.zeros(1, bool)


class Truth(IntEnum):
    """Value of a predicate on a box: false everywhere, unknown or mixed, true everywhere."""

    NEVER = 0
    MAYBE = 1
    ALWAYS = 2


def truths_in(value: Value) -> Truths:
    """A value that is no range."""
    assert not isinstance(value, Range)
    return value


def _number(value: Value) -> Range:
    """A value as a range; of a truth, the range of 0 and 1."""
    if isinstance(value, Range):
        return value
    return Range((value == Truth.ALWAYS).astype(np.int64), (value >= Truth.MAYBE).astype(np.int64))


def value_of(node: Expr, values: Mapping[Expr, Value], boxes: Boxes | None, facts: Facts) -> Value:
    """What ``node`` can be; ``values`` has what its operands can be, ``boxes`` the indices."""
    match node:
        case Index(name):
            assert boxes is not None
            return boxes.range_of(name)
        case Const(value, DType.BOOL):
            return np.array([Truth.ALWAYS if value else Truth.NEVER], np.int8)
        case Const(value, dtype):
            return point(value, dtype)
        case Param(number, dtype) if facts.params is not None:
            return value_of(Const(facts.params[number], dtype), values, boxes, facts)
        case Param() | Ref() | Score() | RowIndex():
            return _unknown(node.dtype)
        case Unary(UnaryOp.NOT, x) if x.dtype is DType.BOOL:
            return (2 - truths_in(values[x])).astype(np.int8)
        case Unary(UnaryOp.ISNAN, x):
            return _number(values[x]).may_nan.astype(np.int8)
        case Unary(op, x):
            if x.dtype.is_float:
                return float_ranges.unary(op, _number(values[x]), x.dtype)
            return integer_ranges.unary(op, _number(values[x]), x.dtype)
        case Binary(op, lhs, rhs) if lhs.dtype is DType.BOOL:
            return _logical(op, truths_in(values[lhs]), truths_in(values[rhs]))
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
    truths = truths_in(cond)
    if isinstance(x, Range) and isinstance(y, Range):
        return chosen(truths, x, y)
    a, b = truths_in(x), truths_in(y)
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
