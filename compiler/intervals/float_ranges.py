"""Ranges of float operations: what each operator can give, for many ranges at once.

They are computed in the dtype itself: rounding to nearest is monotone, so the bounds of correctly
rounded operations are exact; those of other functions are moved outward by some units in the last
place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attnc.intervals.ranges import Array, Flags, Range, everything
from attnc.ir import BinaryOp, DType, UnaryOp

_N_ULPS = 16


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


def unary(op: UnaryOp, x: Range, dtype: DType) -> Range:
    """Range of ``op(x)``, for ``x`` of a float ``dtype``."""
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
                return _wave(x, 0.0 if op is UnaryOp.COS else 0.5 * np.pi)
            case UnaryOp.SIGMOID | UnaryOp.ERF:
                one = np.ones(1, x.lo.dtype)
                return widened(-one if op is UnaryOp.ERF else 0 * one, one, x.may_nan)
            case _:
                return everything(dtype)


def _wave(x: Range, peak: float) -> Range:
    """Range of the cosine moved by ``peak``: that of its ends, and the extremes between them."""
    lo, hi = x.lo.astype(np.float64), x.hi.astype(np.float64)
    # Where reducing the argument could itself be wrong by much, nothing is known.
    usable = (np.abs(lo) < 1e6) & (np.abs(hi) < 1e6)
    lo, hi = np.where(usable, lo, 0.0), np.where(usable, hi, 0.0)
    ends = np.cos(lo - peak), np.cos(hi - peak)
    least = np.where(_holds_multiple(lo, hi, peak + np.pi), -1.0, np.minimum(*ends))
    greatest = np.where(_holds_multiple(lo, hi, peak), 1.0, np.maximum(*ends))
    number = x.lo.dtype.type
    return widened(
        # What the function gives near a zero is wrong by the rounding of its argument.
        np.where(usable, np.maximum(least - 1e-9, -1.0), -1.0).astype(number),
        np.where(usable, np.minimum(greatest + 1e-9, 1.0), 1.0).astype(number),
        x.may_nan | np.isinf(x.lo) | np.isinf(x.hi),
    )


def _holds_multiple(lo: Array, hi: Array, offset: float) -> Flags:
    """Whether some ``offset + 2 pi k`` lies in ``[lo, hi]``, give or take a little."""
    turn = 2 * np.pi
    return np.asarray(np.floor((hi + 1e-6 - offset) / turn) >= (lo - 1e-6 - offset) / turn)


def binary(op: BinaryOp, x: Range, y: Range, dtype: DType, *, same: bool) -> Range:
    """Range of ``x op y`` for floats of ``dtype``; ``same``: both are one expression."""
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
                result = _product(x, y, same, may_nan)
            case BinaryOp.DIV:
                finite = finite & ((y.lo > 0) | (y.hi < 0))
                corners = [a / d for a in (x.lo, x.hi) for d in (y.lo, y.hi)]
                result = widened(np.minimum.reduce(corners), np.maximum.reduce(corners), may_nan)
            case BinaryOp.POW if y.scalar == 2:
                square = _product(x, x, True, may_nan)
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


def _product(x: Range, y: Range, same: bool, may_nan: Flags) -> Range:
    if same:
        squares = x.lo * x.lo, x.hi * x.hi
        least = np.minimum(*squares)
        straddles = (x.lo <= 0) & (x.hi >= 0)
        return Range(np.where(straddles, 0 * least, least), np.maximum(*squares), may_nan)
    corners = [a * c for a in (x.lo, x.hi) for c in (y.lo, y.hi)]
    return Range(np.minimum.reduce(corners), np.maximum.reduce(corners), may_nan)


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
