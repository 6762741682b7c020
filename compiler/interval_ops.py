"""Operations on ranges of numbers: what each IR operator can give, for many ranges at once.

Integer ranges are computed in int64; where the true result could leave the dtype, the value
wraps, and its range is that of the whole dtype. Float ranges are computed in the dtype itself:
rounding to nearest is monotone, so the bounds of correctly rounded operations are exact; those
of other functions are moved outward by some units in the last place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnc.ir import BinaryOp, DType, UnaryOp

Array = NDArray[Any]
Flags = NDArray[np.bool_]

LIMITS = {DType.INT32: (-(2**31), 2**31 - 1), DType.INT64: (-(2**63), 2**63 - 1)}
NUMPY = {DType.FLOAT32: np.float32, DType.FLOAT64: np.float64}
_NO = np.zeros(1, bool)
# Beyond this an int64 computation may itself have wrapped; the check is done in float64.
_SAFE = float(2**62)
_N_ULPS = 16


@dataclass(frozen=True, eq=False)
class Range:
    """Bounds of a number on each box: (n_boxes,) or (1,), both ends inclusive.

    ``lo, hi``: int64 for integers, the dtype itself for floats. ``may_nan``: a float may be NaN.
    ``wrapped``: the integer may have wrapped, so the bounds are those of the dtype.
    ``zeros, ones``: bits of an integer known to be 0 and 1, where somebody tracks them.
    """

    lo: Array
    hi: Array
    may_nan: Flags = field(default_factory=lambda: _NO)
    wrapped: Flags = field(default_factory=lambda: _NO)
    zeros: Array | None = None
    ones: Array | None = None

    @property
    def scalar(self) -> Any:
        """The value where it is one number, the same on all boxes; else None."""
        if self.lo.size == 1 and self.hi.size == 1 and self.lo[0] == self.hi[0]:
            return None if self.may_nan.any() else self.lo[0].item()
        return None

    def known_bits(self) -> tuple[Array, Array]:
        """Masks of the bits known to be 0 and known to be 1, in int64 two's complement."""
        differing = self.lo ^ self.hi
        for shift in (1, 2, 4, 8, 16, 32):
            differing = differing | (differing >> shift)
        # A negative difference (signs differ) smears to all ones: nothing is known.
        zeros, ones = ~self.lo & ~differing, self.lo & ~differing
        if self.zeros is None or self.ones is None:
            return zeros, ones
        return zeros | self.zeros, ones | self.ones


def point(value: bool | float, dtype: DType) -> Range:
    """The range of a constant."""
    if dtype.is_float:
        with np.errstate(over="ignore"):
            number = np.array([value], np.float64).astype(NUMPY[dtype])
        nan = np.isnan(number)
        return Range(np.where(nan, 0, number), np.where(nan, 0, number), nan)
    number = np.array([value], np.int64)
    return Range(number, number)


def everything(dtype: DType) -> Range:
    """The range of an unknown value of ``dtype``, NaN included."""
    if dtype.is_float:
        infinity = np.array([np.inf], NUMPY[dtype])
        return Range(-infinity, infinity, ~_NO)
    low, high = LIMITS[dtype]
    return Range(np.array([low]), np.array([high]), wrapped=~_NO)


def hull(x: Range, y: Range) -> Range:
    """The least range that holds both."""
    return Range(
        np.minimum(x.lo, y.lo), np.maximum(x.hi, y.hi), x.may_nan | y.may_nan, x.wrapped | y.wrapped
    )


def chosen(cond: NDArray[np.int8], x: Range, y: Range) -> Range:
    """``x`` where ``cond`` is 2 (ALWAYS), ``y`` where it is 0 (NEVER), their hull elsewhere."""
    both = hull(x, y)
    always, never = cond == 2, cond == 0
    return Range(
        np.where(always, x.lo, np.where(never, y.lo, both.lo)),
        np.where(always, x.hi, np.where(never, y.hi, both.hi)),
        np.where(always, x.may_nan, np.where(never, y.may_nan, both.may_nan)),
        both.wrapped,
    )


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
    result: Flags = (lo < -_SAFE) | (hi > _SAFE)
    return result


def widened(lo: Array, hi: Array, may_nan: Flags) -> Range:
    """Float bounds moved outward, for functions that are not correctly rounded everywhere."""
    info = np.finfo(lo.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        slack = lo.dtype.type(_N_ULPS * info.eps)
        lower = lo - np.abs(lo) * slack - info.tiny
        upper = hi + np.abs(hi) * slack + info.tiny
    # inf - inf above: an infinite bound stays what it was.
    return Range(
        np.where(np.isfinite(lo), lower, np.where(lo > 0, info.max, lo)),
        np.where(np.isfinite(hi), upper, np.where(hi < 0, info.min, hi)),
        may_nan,
    )


def unary(op: UnaryOp, x: Range, dtype: DType) -> Range:
    """Range of ``op(x)``, for ``x`` of ``dtype``."""
    if dtype.is_int:
        return _integer_unary(op, x, dtype)
    return _float_unary(op, x, dtype)


def _integer_unary(op: UnaryOp, x: Range, dtype: DType) -> Range:
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


_INCREASING = {
    UnaryOp.EXP: np.exp,
    UnaryOp.EXP2: np.exp2,
    UnaryOp.EXPM1: np.expm1,
    UnaryOp.TANH: np.tanh,
}
_INCREASING_FROM: dict[UnaryOp, tuple[Any, float]] = {
    UnaryOp.LOG: (np.log, 0.0),
    UnaryOp.LOG2: (np.log2, 0.0),
    UnaryOp.LOG1P: (np.log1p, -1.0),
    UnaryOp.SQRT: (np.sqrt, 0.0),
}
_ROUNDING = {
    UnaryOp.FLOOR: np.floor,
    UnaryOp.CEIL: np.ceil,
    UnaryOp.TRUNC: np.trunc,
    UnaryOp.ROUND: np.rint,
}


def _float_unary(op: UnaryOp, x: Range, dtype: DType) -> Range:
    with np.errstate(all="ignore"):
        match op:
            case UnaryOp.NEG:
                return Range(-x.hi, -x.lo, x.may_nan)
            case UnaryOp.ABS:
                straddles = (x.lo < 0) & (x.hi > 0)
                a, z = np.abs(x.lo), np.abs(x.hi)
                least = np.where(straddles, np.zeros_like(a), np.minimum(a, z))
                return Range(least, np.maximum(a, z), x.may_nan)
            case _ if op in _ROUNDING:
                return Range(_ROUNDING[op](x.lo), _ROUNDING[op](x.hi), x.may_nan)
            case _ if op in _INCREASING:
                return widened(_INCREASING[op](x.lo), _INCREASING[op](x.hi), x.may_nan)
            case _ if op in _INCREASING_FROM:
                function, first = _INCREASING_FROM[op]
                start = x.lo.dtype.type(first)
                lo, hi = function(np.maximum(x.lo, start)), function(np.maximum(x.hi, start))
                return widened(lo, hi, x.may_nan | (x.lo < start))
            case UnaryOp.SIN | UnaryOp.COS:
                one = np.ones(1, x.lo.dtype)
                may_nan = x.may_nan | np.isinf(x.lo) | np.isinf(x.hi)
                return widened(-one, one, may_nan)
            case UnaryOp.SIGMOID | UnaryOp.ERF:
                one = np.ones(1, x.lo.dtype)
                return widened(-one if op is UnaryOp.ERF else 0 * one, one, x.may_nan)
            case _:
                return everything(dtype)


def binary(op: BinaryOp, x: Range, y: Range, dtype: DType, *, same: bool) -> Range:
    """Range of ``x op y`` for operands of ``dtype``; ``same``: both are one expression."""
    if dtype.is_float:
        return _float_binary(op, x, y, dtype, same)
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


def _float_binary(op: BinaryOp, x: Range, y: Range, dtype: DType, same: bool) -> Range:
    may_nan = x.may_nan | y.may_nan
    finite = np.isfinite(x.lo) & np.isfinite(x.hi) & np.isfinite(y.lo) & np.isfinite(y.hi)
    with np.errstate(all="ignore"):
        match op:
            case BinaryOp.MIN:
                return Range(np.minimum(x.lo, y.lo), np.minimum(x.hi, y.hi), may_nan)
            case BinaryOp.MAX:
                return Range(np.maximum(x.lo, y.lo), np.maximum(x.hi, y.hi), may_nan)
            case BinaryOp.ADD:
                result = Range(x.lo + y.lo, x.hi + y.hi, may_nan)
            case BinaryOp.SUB:
                result = Range(x.lo - y.hi, x.hi - y.lo, may_nan)
            case BinaryOp.MUL:
                result = _float_product(x, y, same, may_nan)
            case BinaryOp.DIV:
                finite = finite & ((y.lo > 0) | (y.hi < 0))
                corners = [a / d for a in (x.lo, x.hi) for d in (y.lo, y.hi)]
                result = widened(np.minimum.reduce(corners), np.maximum.reduce(corners), may_nan)
            case BinaryOp.POW if y.scalar == 2:
                square = _float_product(x, x, True, may_nan)
                result = widened(square.lo, square.hi, may_nan)
            case _:
                return everything(dtype)
    if finite.all():
        return result
    unknown = everything(dtype)
    return Range(
        np.where(finite, result.lo, unknown.lo),
        np.where(finite, result.hi, unknown.hi),
        ~finite | may_nan,
    )


def _float_product(x: Range, y: Range, same: bool, may_nan: Flags) -> Range:
    if same:
        squares = x.lo * x.lo, x.hi * x.hi
        least = np.minimum(*squares)
        straddles = (x.lo <= 0) & (x.hi >= 0)
        return Range(np.where(straddles, 0 * least, least), np.maximum(*squares), may_nan)
    corners = [a * c for a in (x.lo, x.hi) for c in (y.lo, y.hi)]
    return Range(np.minimum.reduce(corners), np.maximum.reduce(corners), may_nan)
