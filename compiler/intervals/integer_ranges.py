"""Ranges of integer operations: what each operator can give, for many ranges at once.

They are computed in int64; where the true result could leave the dtype, the value wraps, and its
range is that of the whole dtype.
"""

from __future__ import annotations

import numpy as np

from attnc.intervals import congruence
from attnc.intervals.congruence import ANY, Congruence
from attnc.intervals.ranges import LIMITS, Array, Flags, Range, everything, point
from attnc.ir import BinaryOp, DType, UnaryOp

_NO = np.zeros(1, bool)
# Beyond this an int64 computation may itself have wrapped; the check is done in float64.
_SAFE = float(2**62)


def unary(op: UnaryOp, x: Range, dtype: DType) -> Range:
    """Range of ``op(x)``, for ``x`` of an integer ``dtype``."""
    return congruent(_unary(op, x, dtype), congruence.unary(op, x.congruence))


def binary(op: BinaryOp, x: Range, y: Range, dtype: DType, *, same: bool) -> Range:
    """Range of ``x op y`` for integers of ``dtype``; ``same``: both are one expression."""
    result = _binary(op, x, y, dtype, same=same)
    return congruent(result, congruence.binary(op, x.congruence, y.congruence))


def congruent(result: Range, known: Congruence) -> Range:
    """``result`` with a congruence that holds where the operation does not wrap around."""
    if result.congruence != ANY or known == ANY:
        return result
    if result.wrapped.any():
        known = known.wrapping()
    elif known.stride == 0:
        value = np.array([known.offset], np.int64)
        return Range(value, value, congruence=known)
    return Range(
        result.lo, result.hi, _NO, result.wrapped, result.zeros, result.ones, congruence=known
    )


def _unary(op: UnaryOp, x: Range, dtype: DType) -> Range:
    low = LIMITS[dtype][0]
    match op:
        case UnaryOp.NOT:
            return Range(~x.hi, ~x.lo, zeros=x.ones, ones=x.zeros)
        case UnaryOp.NEG:
            return fitted(-x.hi, -x.lo, dtype, x.lo == low)
        case UnaryOp.ABS:
            straddles = (x.lo < 0) & (x.hi > 0)
            a, z = np.abs(x.lo), np.abs(x.hi)
            return fitted(
                np.where(straddles, 0, np.minimum(a, z)), np.maximum(a, z), dtype, x.lo == low
            )
        case _:
            return everything(dtype)


def _binary(op: BinaryOp, x: Range, y: Range, dtype: DType, *, same: bool) -> Range:
    match op:
        case BinaryOp.ADD:
            return _sum(x, y.lo, y.hi, dtype)
        case BinaryOp.SUB if same:
            return point(0, dtype)
        case BinaryOp.SUB:
            return _difference(x, y, dtype)
        case BinaryOp.MUL:
            return _product(x, y, dtype, same)
        case BinaryOp.FLOORDIV:
            return _quotient(x, y, dtype)
        case BinaryOp.MOD:
            return _remainder(x, y)
        case BinaryOp.MIN:
            return Range(np.minimum(x.lo, y.lo), np.minimum(x.hi, y.hi))
        case BinaryOp.MAX:
            return Range(np.maximum(x.lo, y.lo), np.maximum(x.hi, y.hi))
        case BinaryOp.AND | BinaryOp.OR | BinaryOp.XOR:
            return _bitwise(op, x, y)
        case BinaryOp.SHL:
            return _shifted_left(x, y, dtype)
        case BinaryOp.SHR:
            return _shifted_right(x, y, dtype)
        case BinaryOp.POW if y.scalar == 2:
            return _product(x, x, dtype, same=True)
        case _:
            return everything(dtype)


def fitted(lo: Array, hi: Array, dtype: DType, overflows: Flags | None = None) -> Range:
    """Range of a computed integer: the whole dtype where the true value could leave it."""
    low, high = LIMITS[dtype]
    if dtype is DType.INT32:
        bad = (lo < low) | (hi > high)
        if overflows is not None:
            bad = bad | overflows
    else:
        bad = _NO if overflows is None else overflows
    if not bad.any():
        return Range(lo, hi)
    return Range(np.where(bad, low, lo), np.where(bad, high, hi), wrapped=bad)


def _is_unsafe(lo: Array, hi: Array) -> Flags:
    return np.asarray((lo < -_SAFE) | (hi > _SAFE), bool)


def _sum(x: Range, lo: Array, hi: Array, dtype: DType) -> Range:
    unsafe = None
    if dtype is DType.INT64:
        unsafe = _is_unsafe(x.lo.astype(float) + lo, x.hi.astype(float) + hi)
    return fitted(x.lo + lo, x.hi + hi, dtype, unsafe)


def _difference(x: Range, y: Range, dtype: DType) -> Range:
    unsafe = None
    if dtype is DType.INT64:
        unsafe = _is_unsafe(x.lo.astype(float) - y.hi, x.hi.astype(float) - y.lo)
    return fitted(x.lo - y.hi, x.hi - y.lo, dtype, unsafe)


def _product(x: Range, y: Range, dtype: DType, same: bool) -> Range:
    """Range of ``x * y``; of a square if ``same``."""

    def bounds(a: Array, z: Array, c: Array, f: Array) -> tuple[Array, Array]:
        if same:
            squares = a * a, z * z
            least = np.minimum(*squares)
            return np.where((a <= 0) & (z >= 0), 0 * least, least), np.maximum(*squares)
        corners = a * c, a * f, z * c, z * f
        return (
            np.minimum(np.minimum(corners[0], corners[1]), np.minimum(corners[2], corners[3])),
            np.maximum(np.maximum(corners[0], corners[1]), np.maximum(corners[2], corners[3])),
        )

    unsafe = None
    if dtype is DType.INT64:
        unsafe = _is_unsafe(*bounds(*(end.astype(float) for end in (x.lo, x.hi, y.lo, y.hi))))
    result = fitted(*bounds(x.lo, x.hi, y.lo, y.hi), dtype, unsafe)
    factor = y.scalar
    if factor is None or factor <= 0 or factor & (factor - 1) or result.wrapped.any():
        return result
    return _with_bits(result, x, factor.bit_length() - 1)


def _with_bits(result: Range, x: Range, count: int) -> Range:
    """``result = x << count`` with the known bits of ``x``, if it has any."""
    if x.zeros is None or x.ones is None:
        return result
    zeros = (x.zeros << count) | ((1 << count) - 1)
    return Range(result.lo, result.hi, zeros=zeros, ones=x.ones << count)


def _quotient(x: Range, y: Range, dtype: DType) -> Range:
    divisor = y.scalar
    if divisor is not None and divisor > 0:
        if divisor & (divisor - 1) == 0:
            return _shifted_right(x, point(divisor.bit_length() - 1, dtype), dtype)
        return Range(x.lo // divisor, x.hi // divisor)
    # |x // y| <= max(|x|, 1), and x // 0 is 0; the least integer // -1 wraps.
    least = x.lo == LIMITS[dtype][0]
    bound = np.maximum(np.maximum(np.abs(x.lo), np.abs(x.hi)), 1)
    wide = fitted(-bound, bound, dtype, least)
    crosses = (y.lo <= 0) & (y.hi >= 0)
    first, last = np.where(crosses, 1, y.lo), np.where(crosses, 1, y.hi)
    with np.errstate(over="ignore"):
        corners = [a // d for a in (x.lo, x.hi) for d in (first, last)]
    unknown = crosses | least
    return Range(
        np.where(unknown, wide.lo, np.minimum.reduce(corners)),
        np.where(unknown, wide.hi, np.maximum.reduce(corners)),
        wrapped=wide.wrapped,
    )


def _remainder(x: Range, y: Range) -> Range:
    divisor = y.scalar
    if divisor == 0:
        return Range(0 * x.lo, 0 * x.lo)
    if divisor is None or divisor == -1:
        # The sign is that of the divisor; x % 0 is 0.
        lo, hi = np.minimum(y.lo + 1, 0), np.maximum(y.hi - 1, 0)
        inside = (x.lo >= 0) & (x.hi < y.lo)
        return Range(np.where(inside, x.lo, lo), np.where(inside, x.hi, hi))
    if divisor > 0 and divisor & (divisor - 1) == 0 and x.zeros is not None:
        return _bitwise(BinaryOp.AND, x, point(divisor - 1, DType.INT64))
    quotient = x.lo // divisor
    one_period = quotient == x.hi // divisor
    offset = quotient * divisor
    least, greatest = min(divisor + 1, 0), max(divisor - 1, 0)
    return Range(
        np.where(one_period, x.lo - offset, least), np.where(one_period, x.hi - offset, greatest)
    )


def _bitwise(op: BinaryOp, x: Range, y: Range) -> Range:
    (x_zeros, x_ones), (y_zeros, y_ones) = x.known_bits(), y.known_bits()
    match op:
        case BinaryOp.AND:
            zeros, ones = x_zeros | y_zeros, x_ones & y_ones
        case BinaryOp.OR:
            zeros, ones = x_zeros & y_zeros, x_ones | y_ones
        case _:
            zeros = (x_zeros & y_zeros) | (x_ones & y_ones)
            ones = (x_zeros & y_ones) | (x_ones & y_zeros)
    sign = np.int64(-(2**63))
    unknown = ~(zeros | ones)
    # An unknown sign bit makes the least value negative and the greatest one not.
    lo, hi = ones | (unknown & sign), (ones | unknown) & ~(unknown & sign)
    both = (x.lo >= 0) & (y.lo >= 0)
    match op:
        case BinaryOp.AND:
            hi = np.where(both, np.minimum(hi, np.minimum(x.hi, y.hi)), hi)
        case BinaryOp.OR:
            lo = np.where(both, np.maximum(lo, np.maximum(x.lo, y.lo)), lo)
    return Range(lo, hi, zeros=zeros, ones=ones)


def _shifted_left(x: Range, y: Range, dtype: DType) -> Range:
    n_bits = 32 if dtype is DType.INT32 else 62
    if not ((y.lo >= 0) & (y.hi < n_bits)).all():
        return everything(dtype)
    one = np.int64(1)
    return _product(x, Range(one << y.lo, one << y.hi), dtype, same=False)


def _shifted_right(x: Range, y: Range, dtype: DType) -> Range:
    if (y.lo < 0).any():
        return everything(dtype)
    few, many = np.minimum(y.lo, 63), np.minimum(y.hi, 63)
    lo, hi = np.minimum(x.lo >> few, x.lo >> many), np.maximum(x.hi >> few, x.hi >> many)
    count = y.scalar
    if count is None or x.zeros is None or x.ones is None:
        return Range(lo, hi)
    return Range(lo, hi, zeros=x.zeros >> min(count, 63), ones=x.ones >> min(count, 63))
