"""Type promotion of PyTorch for 0-dim tensors and Python numbers."""

from __future__ import annotations

from typing import Any

import torch

from attnc.errors.base import described
from attnc.ir import Binary, BinaryOp, Cast, Compare, CompareOp, Const, DType, Expr, Select, Unary
from attnc.ir import UnaryOp as U
from attnc.trace.context import Context, refuse
from attnc.trace.slots import (
    BOOL,
    FLOAT32,
    FLOAT64,
    INT32,
    INT32_MAX,
    INT32_MIN,
    INT64,
    INT64_MAX,
    INT64_MIN,
)
from attnc.trace.symbols import Symbol

Number = bool | int | float
Scalar = Symbol | Number

_RANK = {BOOL: 0, INT32: 1, INT64: 2, FLOAT32: 3, FLOAT64: 4}
_CATEGORY = {BOOL: 0, INT32: 1, INT64: 1, FLOAT32: 2, FLOAT64: 2}
_NUMBER_CATEGORY: dict[type, int] = {bool: 0, int: 1, float: 2}
#: Integers narrower than int32 are computed in int32: (least value, number of values).
_NARROW = {torch.int8: (-128, 256), torch.uint8: (0, 256), torch.int16: (-32768, 65536)}
#: What to write in place of a number that no integer of a kernel holds.
BEYOND_64_BITS = (
    "Integers have 64 bits there: for no limit use math.inf, for bits a number below 2**63."
)
INTEGER_TO_NEGATIVE_POWER = (
    "an integer to a negative power",
    "Convert the base with .float() first.",
)
_CONVERTED = {
    torch.bool: BOOL,
    torch.int32: INT32,
    torch.int64: INT64,
    torch.float16: FLOAT32,
    torch.bfloat16: FLOAT32,
    torch.float32: FLOAT32,
    torch.float64: FLOAT64,
}


def common_dtype(context: Context, values: tuple[Scalar, ...]) -> DType:
    """Dtype in which PyTorch would compute with ``values``; int32 where that holds all of them.

    A Python number only decides the category (bool, int, float), a symbol the width too. Float
    without a symbol to give the width is the float dtype of the kernel.
    """
    strong: DType | None = None
    category = 0
    is_wide = False
    for value in values:
        if isinstance(value, Symbol):
            if strong is None or _RANK[value.kind] > _RANK[strong]:
                strong = value.kind
            continue
        number_category = _NUMBER_CATEGORY.get(type(value))
        if number_category is None:
            raise TypeError(f"{type(value).__name__} is not a number")
        category = max(category, number_category)
        if number_category == 1 and not INT32_MIN <= value <= INT32_MAX:
            is_wide = True
    if strong is None or category > _CATEGORY[strong]:
        return (BOOL, INT64, context.float_dtype)[category]
    return INT64 if strong is INT32 and is_wide else strong


def convert(context: Context, value: Scalar, kind: DType) -> Expr:
    """``value`` as an expression of dtype ``kind``."""
    if isinstance(value, Symbol):
        if value.kind is kind:
            return value.expr
        if isinstance(value.expr, Const):
            return _constant(value.expr.value, kind)
        return Cast(value.expr, kind)
    return _constant(value, kind)


def _constant(value: Number, kind: DType) -> Expr:
    if kind is BOOL:
        return Const(bool(value), kind)
    if kind.is_float:
        try:
            return Const(float(value), kind)
        except OverflowError:
            raise refuse(f"the integer {described(value)}", "No float is as large.") from None
    bits = 32 if kind is INT32 else 64
    if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
        raise refuse(f"the integer {described(value)}", BEYOND_64_BITS)
    if isinstance(value, float) and not abs(value) < 2.0 ** (bits - 1):
        return Cast(Const(value, FLOAT64), kind)  # how that converts is up to the kernel
    return Const((int(value) + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1), kind)


def as_symbol(context: Context, value: Scalar) -> Symbol:
    """``value`` as a symbol; a Python number gets the dtype ``torch.tensor(value)`` has."""
    if isinstance(value, Symbol):
        return value
    kind = common_dtype(context, (value,))
    symbol: Symbol = context.symbol(context, _constant(value, kind), kind)
    return symbol


def cast(context: Context, value: Scalar, kind: DType) -> Symbol:
    """``value.to(kind)``."""
    if isinstance(value, Symbol) and value.kind is kind:
        return value
    symbol: Symbol = context.symbol(context, convert(context, value, kind), kind)
    return symbol


def to_dtype(context: Context, value: Scalar, dtype: torch.dtype) -> Symbol:
    """``value.to(dtype)``; float16 and bfloat16 are computed in float32, narrow ints in int32."""
    if (kind := _CONVERTED.get(dtype)) is not None:
        return cast(context, value, kind)
    if dtype not in _NARROW:
        raise refuse(f"dtype {dtype}", "Kernels compute in bool, int32, int64, float32, float64.")
    least, n_values = _NARROW[dtype]
    wide = cast(context, value, INT32)
    return cast(context, (wide - least) % n_values + least, INT32)


def as_float(context: Context, value: Scalar) -> Symbol:
    """``value`` if it is a float, else converted to the float dtype of the kernel."""
    if isinstance(value, Symbol) and value.kind.is_float:
        return value
    return cast(context, value, context.float_dtype)


def binary(context: Context, op: BinaryOp, x: Scalar, y: Scalar, kind: DType | None = None) -> Any:
    """``x op y`` in their common dtype, or in ``kind``."""
    kind = kind or common_dtype(context, (x, y))
    expr = Binary(op, convert(context, x, kind), convert(context, y, kind))
    return context.symbol(context, expr, kind)


def compare(context: Context, op: CompareOp, x: Scalar, y: Scalar) -> Any:
    kind = common_dtype(context, (x, y))
    expr = Compare(op, convert(context, x, kind), convert(context, y, kind))
    return context.symbol(context, expr, BOOL)


def select(context: Context, condition: Scalar, x: Scalar, y: Scalar) -> Any:
    """``x`` where ``condition`` holds, else ``y``, in their common dtype."""
    kind = common_dtype(context, (x, y))
    if_true, if_false = convert(context, x, kind), convert(context, y, kind)
    cond = convert(context, condition, BOOL)
    return context.symbol(context, Select(cond, if_true, if_false), kind)


def unary(context: Context, op: U, x: Scalar) -> Any:
    value = as_symbol(context, x)
    return context.symbol(context, Unary(op, value.expr), value.kind)
