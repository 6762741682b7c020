"""A range of numbers on each of many boxes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnc.intervals.congruence import ANY, Congruence, either, exactly
from attnc.ir import DType

Array = NDArray[Any]
Flags = NDArray[np.bool_]

LIMITS = {DType.INT32: (-(2**31), 2**31 - 1), DType.INT64: (-(2**63), 2**63 - 1)}
NUMPY = {DType.FLOAT32: np.float32, DType.FLOAT64: np.float64}
_NO = np.zeros(1, bool)


@dataclass(frozen=True, eq=False)
class Range:
    """Bounds of a number on each box: (n_boxes,) or (1,), both ends inclusive.

    ``lo, hi``: int64 for integers, the dtype itself for floats. ``may_nan``: a float may be NaN.
    ``wrapped``: the integer may have wrapped, so the bounds are those of the dtype.
    ``zeros, ones``: bits of an integer known to be 0 and 1, where somebody tracks them.
    ``congruence``: what an integer is on all boxes modulo a number.
    """

    lo: Array
    hi: Array
    may_nan: Flags = field(default_factory=lambda: _NO)
    wrapped: Flags = field(default_factory=lambda: _NO)
    zeros: Array | None = None
    ones: Array | None = None
    congruence: Congruence = ANY

    @property
    def scalar(self) -> Any:
        """The value where it is one number, the same on all boxes; else None."""
        if self.lo.size == 1 and self.hi.size == 1 and self.lo[0] == self.hi[0]:
            return None if self.may_nan.any() else self.lo[0].item()
        return None

    def known_bits(self) -> tuple[Array, Array]:
        """Masks of the bits known to be 0 and known to be 1, in int64 two's complement."""
        differing: Array = self.lo ^ self.hi
        for shift in (1, 2, 4, 8, 16, 32):
            differing = differing | (differing >> shift)
        # A negative difference (signs differ) smears to all ones: nothing is known.
        zeros: Array = ~self.lo & ~differing
        ones: Array = self.lo & ~differing
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
    return Range(number, number, congruence=exactly(int(value)))


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
        np.minimum(x.lo, y.lo),
        np.maximum(x.hi, y.hi),
        x.may_nan | y.may_nan,
        x.wrapped | y.wrapped,
        congruence=either(x.congruence, y.congruence),
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
        congruence=both.congruence,
    )
