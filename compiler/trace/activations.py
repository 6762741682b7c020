"""Torch functions that are compositions of the operators kernels have.

Pieces are chosen by ``where``, never by a product with 0, so that no piece can make NaN of another.
"""

from __future__ import annotations

import math
from typing import Any

from attnc.trace.context import Context
from attnc.trace.operators import ELEMENTWISE, elementwise
from attnc.trace.promotion import Scalar, as_float, as_symbol, cast, select


def _call(context: Context, name: str, *args: Scalar) -> Any:
    return ELEMENTWISE[name](context, *args)


@elementwise("relu")
def _relu(context: Context, x: Scalar, inplace: bool = False) -> Any:
    symbol = as_symbol(context, x)
    if not symbol.kind.is_float:
        return _call(context, "maximum", x, 0)
    return select(context, symbol <= 0, 0, symbol)  # derivative 0 at 0, NaN stays


@elementwise("relu6")
def _relu6(context: Context, x: Scalar, inplace: bool = False) -> Any:
    return _call(context, "hardtanh", x, 0, 6)


@elementwise("leaky_relu")
def _leaky_relu(
    context: Context, x: Scalar, negative_slope: float = 0.01, inplace: bool = False
) -> Any:
    value = as_float(context, x)
    return select(context, value > 0, value, value * negative_slope)


@elementwise("elu")
def _elu(context: Context, x: Scalar, alpha: float = 1.0, inplace: bool = False) -> Any:
    value = as_float(context, x)
    return select(context, value > 0, value, alpha * _call(context, "expm1", value))


@elementwise("silu")
def _silu(context: Context, x: Scalar, inplace: bool = False) -> Any:
    value = as_float(context, x)
    return value * _call(context, "sigmoid", value)


@elementwise("gelu")
def _gelu(context: Context, x: Scalar, approximate: str = "none") -> Any:
    value = as_float(context, x)
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (value + 0.044715 * value * value * value)
        return 0.5 * value * (1.0 + _call(context, "tanh", inner))
    return 0.5 * value * (1.0 + _call(context, "erf", value * math.sqrt(0.5)))


@elementwise("softplus")
def _softplus(context: Context, x: Scalar, beta: float = 1.0, threshold: float = 20.0) -> Any:
    value = as_float(context, x)
    smooth = _call(context, "log1p", _call(context, "exp", value * beta)) / beta
    return select(context, value * beta > threshold, value, smooth)


@elementwise("mish")
def _mish(context: Context, x: Scalar, inplace: bool = False) -> Any:
    value = as_float(context, x)
    return value * _call(context, "tanh", _softplus(context, value))


@elementwise("logsigmoid", "log_sigmoid")
def _logsigmoid(context: Context, x: Scalar) -> Any:
    value = as_float(context, x)
    return _call(context, "minimum", value, 0.0) - _call(
        context, "log1p", _call(context, "exp", -abs(value))
    )


@elementwise("hardsigmoid")
def _hardsigmoid(context: Context, x: Scalar, inplace: bool = False) -> Any:
    return _call(context, "hardtanh", as_float(context, x) + 3.0, 0.0, 6.0) / 6.0


@elementwise("hardswish")
def _hardswish(context: Context, x: Scalar, inplace: bool = False) -> Any:
    return as_float(context, x) * _hardsigmoid(context, x)


@elementwise("softsign")
def _softsign(context: Context, x: Scalar) -> Any:
    value = as_float(context, x)
    return value / (1.0 + abs(value))


@elementwise("threshold", "_threshold")
def _threshold(
    context: Context, x: Scalar, threshold: Scalar, value: Scalar, inplace: bool = False
) -> Any:
    symbol = as_symbol(context, x)
    return select(context, symbol <= threshold, cast(context, value, symbol.kind), symbol)


@elementwise("heaviside")
def _heaviside(context: Context, x: Scalar, values: Scalar) -> Any:
    symbol = as_symbol(context, x)
    step = cast(context, symbol > 0, symbol.kind)
    return select(context, symbol == 0, values, step)


@elementwise("square")
def _square(context: Context, x: Scalar) -> Any:
    return x * x


@elementwise("reciprocal")
def _reciprocal(context: Context, x: Scalar) -> Any:
    return 1.0 / as_float(context, x)


@elementwise("frac")
def _frac(context: Context, x: Scalar) -> Any:
    return x - _call(context, "trunc", x)


@elementwise("log10")
def _log10(context: Context, x: Scalar) -> Any:
    return _call(context, "log", x) / math.log(10.0)


@elementwise("tan")
def _tan(context: Context, x: Scalar) -> Any:
    return _call(context, "sin", x) / _call(context, "cos", x)


@elementwise("sinh")
def _sinh(context: Context, x: Scalar) -> Any:
    value = as_float(context, x)
    # The difference of exponentials cancels near 0, the other form overflows early.
    small = _call(context, "expm1", value)
    near_zero = 0.5 * (small + small / (small + 1.0))
    far = 0.5 * (_call(context, "exp", value) - _call(context, "exp", -value))
    return select(context, abs(value) < 1.0, near_zero, far)


@elementwise("cosh")
def _cosh(context: Context, x: Scalar) -> Any:
    value = as_float(context, x)
    return 0.5 * (_call(context, "exp", value) + _call(context, "exp", -value))


@elementwise("erfc", "special_erfc")
def _erfc(context: Context, x: Scalar) -> Any:
    return 1.0 - _call(context, "erf", x)


@elementwise("logit", "special_logit")
def _logit(context: Context, x: Scalar, eps: float | None = None) -> Any:
    value = as_float(context, x)
    if eps is not None:
        value = _call(context, "clamp", value, eps, 1.0 - eps)
    return _call(context, "log", value / (1.0 - value))


@elementwise("logaddexp")
def _logaddexp(context: Context, x: Scalar, y: Scalar) -> Any:
    high, low = _call(context, "maximum", x, y), _call(context, "minimum", x, y)
    # Equal infinities would give inf - inf.
    smooth = high + _call(context, "log1p", _call(context, "exp", low - high))
    return select(context, abs(high) == math.inf, high, smooth)


@elementwise("lerp")
def _lerp(context: Context, start: Any, end: Any, weight: Any) -> Any:
    near = start + weight * (end - start)
    far = end - (end - start) * (1.0 - weight)
    return select(context, _call(context, "lt", abs(weight), 0.5), near, far)


@elementwise("addcmul")
def _addcmul(context: Context, x: Any, a: Any, b: Any, *, value: Scalar = 1) -> Any:
    product = _call(context, "mul", a, b)
    return x + (product if value == 1 else value * product)


@elementwise("addcdiv")
def _addcdiv(context: Context, x: Any, a: Any, b: Any, *, value: Scalar = 1) -> Any:
    quotient = _call(context, "div", a, b)
    return x + (quotient if value == 1 else value * quotient)
