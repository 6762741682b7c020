"""Elementwise torch functions, by name, on symbols and Python numbers.

Each takes the context and then what the torch function takes. Tensors with dimensions never
arrive here: ``rows.lift`` takes them apart into elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from attnc.ir import BinaryOp, CompareOp, DType
from attnc.ir import UnaryOp as U
from attnc.trace.context import Context, refuse
from attnc.trace.promotion import (
    INTEGER_TO_NEGATIVE_POWER,
    Scalar,
    as_float,
    as_symbol,
    binary,
    cast,
    common_dtype,
    compare,
    select,
    to_dtype,
    unary,
)
from attnc.trace.slots import BOOL, INT32, INT64, TORCH_DTYPES
from attnc.trace.symbols import Symbol

ELEMENTWISE: dict[str, Callable[..., Any]] = {}


def elementwise(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function under the names of torch functions and methods."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            ELEMENTWISE[name] = function
        return function

    return register


def _register_reflected(name: str, function: Callable[..., Any]) -> None:
    elementwise(name)(lambda context, x, y: function(context, y, x))


def _register_float_function(op: U, *names: str) -> None:
    elementwise(*names)(lambda context, x: unary(context, op, as_float(context, x)))


def _register_rounding(op: U, *names: str) -> None:
    def function(context: Context, x: Scalar) -> Any:
        value = as_symbol(context, x)
        return unary(context, op, value) if value.kind.is_float else value

    elementwise(*names)(function)


def _register_comparison(op: CompareOp, *names: str) -> None:
    elementwise(*names)(lambda context, x, y: compare(context, op, x, y))


def _register_bitwise(op: BinaryOp, *names: str) -> None:
    def function(context: Context, x: Scalar, y: Scalar) -> Any:
        if common_dtype(context, (x, y)).is_float:
            raise refuse(f"{names[0]} of a float", "Use it on bool or integer values.")
        return binary(context, op, x, y)

    elementwise(*names, f"__r{names[0].removeprefix('bitwise_')}__")(function)


def _register_shift(op: BinaryOp, *names: str) -> None:
    def function(context: Context, x: Scalar, y: Scalar) -> Any:
        if common_dtype(context, (x, y)) not in (INT32, INT64):
            raise refuse(f"{names[0]} of a value that is no integer", "Use * or / powers of two.")
        return binary(context, op, x, y)

    elementwise(*names)(function)
    _register_reflected(f"__r{names[1].strip('_')}__", function)


for _op, *_names in (
    (U.EXP, "exp"),
    (U.EXP2, "exp2", "special_exp2"),
    (U.EXPM1, "expm1", "special_expm1"),
    (U.LOG, "log"),
    (U.LOG2, "log2"),
    (U.LOG1P, "log1p", "special_log1p"),
    (U.SQRT, "sqrt"),
    (U.RSQRT, "rsqrt"),
    (U.SIN, "sin"),
    (U.COS, "cos"),
    (U.TANH, "tanh"),
    (U.SIGMOID, "sigmoid", "special_expit"),
    (U.ERF, "erf", "special_erf"),
):
    _register_float_function(_op, *_names)
for _op, *_names in ((U.FLOOR, "floor"), (U.CEIL, "ceil"), (U.TRUNC, "trunc", "fix")):
    _register_rounding(_op, *_names)
for _compare, *_names in (
    (CompareOp.EQ, "eq", "__eq__"),
    (CompareOp.NE, "ne", "__ne__", "not_equal"),
    (CompareOp.LT, "lt", "__lt__", "less"),
    (CompareOp.LE, "le", "__le__", "less_equal"),
    (CompareOp.GT, "gt", "__gt__", "greater"),
    (CompareOp.GE, "ge", "__ge__", "greater_equal"),
):
    _register_comparison(_compare, *_names)
_register_bitwise(BinaryOp.AND, "bitwise_and", "__and__")
_register_bitwise(BinaryOp.OR, "bitwise_or", "__or__")
_register_bitwise(BinaryOp.XOR, "bitwise_xor", "__xor__")
_register_shift(BinaryOp.SHL, "bitwise_left_shift", "__lshift__")
_register_shift(BinaryOp.SHR, "bitwise_right_shift", "__rshift__")


@elementwise("add", "__add__", "__radd__")
def _add(context: Context, x: Scalar, y: Scalar, *, alpha: Scalar = 1) -> Any:
    if alpha != 1:
        y = _mul(context, y, alpha)
    if common_dtype(context, (x, y)) is BOOL:
        return binary(context, BinaryOp.OR, x, y)  # as torch: the sum of bools is bool
    return binary(context, BinaryOp.ADD, x, y)


@elementwise("sub", "subtract", "__sub__")
def _sub(context: Context, x: Scalar, y: Scalar, *, alpha: Scalar = 1) -> Any:
    if alpha != 1:
        y = _mul(context, y, alpha)
    if common_dtype(context, (x, y)) is BOOL:
        raise refuse("the difference of two bools", "Use ^, or convert with .int() first.")
    return binary(context, BinaryOp.SUB, x, y)


@elementwise("rsub", "__rsub__")
def _rsub(context: Context, x: Scalar, y: Scalar, *, alpha: Scalar = 1) -> Any:
    return _sub(context, y, x, alpha=alpha)


@elementwise("mul", "multiply", "__mul__", "__rmul__")
def _mul(context: Context, x: Scalar, y: Scalar) -> Any:
    if common_dtype(context, (x, y)) is BOOL:
        return binary(context, BinaryOp.AND, x, y)
    return binary(context, BinaryOp.MUL, x, y)


@elementwise("div", "divide", "true_divide", "__div__", "__truediv__")
def _div(context: Context, x: Scalar, y: Scalar, *, rounding_mode: str | None = None) -> Any:
    if rounding_mode == "floor":
        return _floor_divide(context, x, y)
    kind = common_dtype(context, (x, y))
    if rounding_mode == "trunc" and not kind.is_float:
        a, b = cast(context, x, _integer(kind)), cast(context, y, _integer(kind))
        size = _floor_divide(context, abs(a), abs(b))
        return select(context, (a < 0) ^ (b < 0), -size, size)
    quotient = binary(context, BinaryOp.DIV, x, y, kind if kind.is_float else context.float_dtype)
    return unary(context, U.TRUNC, quotient) if rounding_mode == "trunc" else quotient


def _integer(kind: DType) -> DType:
    return INT32 if kind is BOOL else kind


@elementwise("floor_divide", "__floordiv__")
def _floor_divide(context: Context, x: Scalar, y: Scalar) -> Any:
    kind = common_dtype(context, (x, y))
    return binary(context, BinaryOp.FLOORDIV, x, y, _integer(kind))


@elementwise("remainder", "__mod__")
def _remainder(context: Context, x: Scalar, y: Scalar) -> Any:
    kind = common_dtype(context, (x, y))
    return binary(context, BinaryOp.MOD, x, y, _integer(kind))


@elementwise("fmod")
def _fmod(context: Context, x: Scalar, y: Scalar) -> Any:
    kind = _integer(common_dtype(context, (x, y)))
    a, b = cast(context, x, kind), cast(context, y, kind)
    # Of floats not abs(a), whose derivative at 0 is 0.
    positive = select(context, a < 0, -a, a) if kind.is_float else abs(a)
    size = binary(context, BinaryOp.MOD, positive, abs(b))
    return select(context, a < 0, -size, size)  # sign of the dividend, as C


@elementwise("pow", "__pow__", "float_power")
def _pow(context: Context, x: Scalar, exponent: Scalar) -> Any:
    kind = _integer(common_dtype(context, (x, exponent)))
    if not kind.is_float and not isinstance(exponent, Symbol) and exponent < 0:
        raise refuse(*INTEGER_TO_NEGATIVE_POWER)
    return binary(context, BinaryOp.POW, x, exponent, kind)


for _name, _function in (
    ("__rdiv__", _div),
    ("__rtruediv__", _div),
    ("__rfloordiv__", _floor_divide),
    ("__rmod__", _remainder),
    ("__rpow__", _pow),
):
    _register_reflected(_name, _function)


@elementwise("where")
def _where(context: Context, condition: Scalar, input: Scalar, other: Scalar) -> Any:
    return select(context, condition, input, other)


@elementwise("Tensor.where")
def _where_method(context: Context, self: Scalar, condition: Scalar, other: Scalar) -> Any:
    return select(context, condition, self, other)


@elementwise("masked_fill")
def _masked_fill(context: Context, x: Scalar, mask: Scalar, value: Scalar) -> Any:
    value_ = cast(context, value, as_symbol(context, x).kind)
    return select(context, mask, value_, x)


@elementwise("neg", "negative", "__neg__")
def _neg(context: Context, x: Scalar) -> Any:
    value = as_symbol(context, x)
    if value.kind is BOOL:
        raise refuse("the negative of a bool", "Use ~ for not.")
    return unary(context, U.NEG, value)


@elementwise("positive", "clone", "detach", "contiguous", "cpu", "cuda")
def _identity(context: Context, x: Scalar, *args: Any, **kwargs: Any) -> Any:
    return as_symbol(context, x)


@elementwise("abs", "absolute", "__abs__", "fabs")
def _abs(context: Context, x: Scalar) -> Any:
    value = as_symbol(context, x)
    return value if value.kind is BOOL else unary(context, U.ABS, value)


@elementwise("bitwise_not", "__invert__")
def _bitwise_not(context: Context, x: Scalar) -> Any:
    value = as_symbol(context, x)
    if value.kind.is_float:
        raise refuse("~ of a float", "Compare it first, or use torch.logical_not.")
    return unary(context, U.NOT, value)


@elementwise("logical_not")
def _logical_not(context: Context, x: Scalar) -> Any:
    return unary(context, U.NOT, cast(context, x, BOOL))


def _register_logical(op: BinaryOp, name: str) -> None:
    elementwise(name)(lambda context, x, y: binary(context, op, x, y, BOOL))


_register_logical(BinaryOp.AND, "logical_and")
_register_logical(BinaryOp.OR, "logical_or")
_register_logical(BinaryOp.XOR, "logical_xor")


@elementwise("round")
def _round(context: Context, x: Scalar, *, decimals: int = 0) -> Any:
    value = as_symbol(context, x)
    if not value.kind.is_float:
        return value
    if decimals == 0:
        return unary(context, U.ROUND, value)
    factor = 10.0 ** abs(decimals)
    scaled = value * factor if decimals > 0 else value / factor
    rounded = unary(context, U.ROUND, scaled)
    return rounded / factor if decimals > 0 else rounded * factor


@elementwise("isnan")
def _isnan(context: Context, x: Scalar) -> Any:
    value = as_symbol(context, x)
    if not value.kind.is_float:
        return cast(context, False, BOOL)
    return context.symbol(context, unary(context, U.ISNAN, value).expr, BOOL)


@elementwise("isinf")
def _isinf(context: Context, x: Scalar) -> Any:
    value = as_symbol(context, x)
    return abs(value) == math.inf if value.kind.is_float else cast(context, False, BOOL)


@elementwise("isfinite")
def _isfinite(context: Context, x: Scalar) -> Any:
    value = as_symbol(context, x)
    return abs(value) < math.inf if value.kind.is_float else cast(context, True, BOOL)


elementwise("isposinf")(lambda context, x: compare(context, CompareOp.EQ, x, math.inf))
elementwise("isneginf")(lambda context, x: compare(context, CompareOp.EQ, x, -math.inf))


@elementwise("sign", "sgn")
def _sign(context: Context, x: Scalar) -> Any:
    value = as_symbol(context, x)
    if value.kind is BOOL:
        return value
    one, minus_one, zero = (cast(context, n, value.kind) for n in (1, -1, 0))
    return select(context, value > 0, one, select(context, value < 0, minus_one, zero))


@elementwise("nan_to_num")
def _nan_to_num(
    context: Context,
    x: Scalar,
    nan: float | None = None,
    posinf: float | None = None,
    neginf: float | None = None,
) -> Any:
    value = as_symbol(context, x)
    if not value.kind.is_float:
        return value
    limits = torch.finfo(TORCH_DTYPES[value.kind])
    high = limits.max if posinf is None else posinf
    low = limits.min if neginf is None else neginf
    finite = select(
        context, value == math.inf, high, select(context, value == -math.inf, low, value)
    )
    return select(context, _isnan(context, value), 0.0 if nan is None else nan, finite)


_CASTS = {
    "bool": torch.bool,
    "int": torch.int32,
    "long": torch.int64,
    "float": torch.float32,
    "double": torch.float64,
    "half": torch.float16,
    "bfloat16": torch.bfloat16,
    "char": torch.int8,
    "short": torch.int16,
    "byte": torch.uint8,
}


def _register_cast(name: str, dtype: torch.dtype) -> None:
    elementwise(name)(lambda context, x, **kwargs: to_dtype(context, x, dtype))


for _name, _dtype in _CASTS.items():
    _register_cast(_name, _dtype)
