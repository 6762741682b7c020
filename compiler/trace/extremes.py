"""Torch functions that take the lesser or the greater of two: minimum, maximum, clamp, hardtanh."""

from __future__ import annotations

import math
from typing import Any

from attnc.ir import BinaryOp, CompareOp
from attnc.trace.context import Context
from attnc.trace.operators import elementwise
from attnc.trace.promotion import (
    Scalar,
    as_symbol,
    binary,
    cast,
    common_dtype,
    compare,
    select,
)
from attnc.trace.slots import BOOL
from attnc.trace.symbols import Symbol


@elementwise("minimum", "Tensor.min")
def _minimum(context: Context, x: Scalar, y: Scalar) -> Any:
    is_bool = common_dtype(context, (x, y)) is BOOL
    return binary(context, BinaryOp.AND if is_bool else BinaryOp.MIN, x, y)


@elementwise("maximum", "Tensor.max")
def _maximum(context: Context, x: Scalar, y: Scalar) -> Any:
    is_bool = common_dtype(context, (x, y)) is BOOL
    return binary(context, BinaryOp.OR if is_bool else BinaryOp.MAX, x, y)


@elementwise("clamp", "clip")
def _clamp(
    context: Context, x: Scalar, min: Scalar | None = None, max: Scalar | None = None
) -> Any:
    if min is not None:
        x = _at_least(context, x, min)
    return x if max is None else _at_most(context, x, max)


@elementwise("clamp_min")
def _at_least(context: Context, x: Scalar, min: Scalar) -> Any:
    # Where x is the bound, torch's derivative by x is 1 here, a half for maximum.
    if not common_dtype(context, (x, min)).is_float:
        return _maximum(context, x, min)
    if _is_comparable(min):
        return select(context, compare(context, CompareOp.LT, x, min), min, x)
    is_inside = compare(context, CompareOp.GE, x, min)
    return select(context, is_inside, x, _maximum(context, x, min))


@elementwise("clamp_max")
def _at_most(context: Context, x: Scalar, max: Scalar) -> Any:
    if not common_dtype(context, (x, max)).is_float:
        return _minimum(context, x, max)
    if _is_comparable(max):
        return select(context, compare(context, CompareOp.GT, x, max), max, x)
    is_inside = compare(context, CompareOp.LE, x, max)
    return select(context, is_inside, x, _minimum(context, x, max))


def _is_comparable(bound: Scalar) -> bool:
    """Whether ``bound`` is known not to be NaN."""
    return not isinstance(bound, Symbol) and not math.isnan(bound)


@elementwise("hardtanh")
def _hardtanh(
    context: Context,
    x: Scalar,
    min_val: Scalar = -1.0,
    max_val: Scalar = 1.0,
    inplace: bool = False,
) -> Any:
    symbol = as_symbol(context, x)
    low, high = (cast(context, bound, symbol.kind) for bound in (min_val, max_val))
    # Torch's derivative is 0 at the bounds, other than that of clamp.
    return select(context, symbol <= low, low, select(context, symbol >= high, high, symbol))
