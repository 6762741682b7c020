"""Operations on constants, equal bit for bit to ``evaluate`` but without torch.

Only operations that IEEE 754 or integer arithmetic determines completely are here; the others
(``exp``, float ``**``, ``//`` and ``%``, ...) stay in the expression.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from attnc.ir import (
    Binary,
    BinaryOp,
    Cast,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    Select,
    Unary,
    UnaryOp,
)

_BITS = {DType.INT32: 32, DType.INT64: 64}
_NUMPY: Mapping[DType, Callable[[Any], Any]] = {
    DType.BOOL: np.bool_,
    DType.INT32: np.int32,
    DType.INT64: np.int64,
    DType.FLOAT32: np.float32,
    DType.FLOAT64: np.float64,
}

_FLOAT_UNARY: Mapping[UnaryOp, Callable[[Any], Any]] = {
    UnaryOp.NEG: np.negative,
    UnaryOp.ABS: np.abs,
    UnaryOp.SQRT: np.sqrt,
    UnaryOp.FLOOR: np.floor,
    UnaryOp.CEIL: np.ceil,
    UnaryOp.TRUNC: np.trunc,
    UnaryOp.ROUND: np.rint,
}

_FLOAT_BINARY: Mapping[BinaryOp, Callable[[Any, Any], Any]] = {
    BinaryOp.ADD: np.add,
    BinaryOp.SUB: np.subtract,
    BinaryOp.MUL: np.multiply,
    BinaryOp.DIV: np.divide,
}

_COMPARE: Mapping[CompareOp, Callable[[Any, Any], Any]] = {
    CompareOp.EQ: np.equal,
    CompareOp.NE: np.not_equal,
    CompareOp.LT: np.less,
    CompareOp.LE: np.less_equal,
    CompareOp.GT: np.greater,
    CompareOp.GE: np.greater_equal,
}


def folded(node: Expr) -> Const | None:
    """The constant that ``node`` is, if its operands are constants and the value is determined."""
    match node:
        case Unary(op, Const(x, dtype)):
            return _constant(_unary(op, x, dtype), node.dtype)
        case Binary(op, Const(x, dtype), Const(y)):
            return _constant(_binary(op, x, y, dtype), dtype)
        case Compare(op, Const(x, dtype), Const(y)):
            return compared(op, x, y, dtype)
        case Select(Const(cond), if_true, if_false):
            chosen = if_true if cond else if_false
            return chosen if isinstance(chosen, Const) else None
        case Cast(Const(x, dtype), to):
            return converted(x, dtype, to)
        case _:
            return None


def compared(op: CompareOp, x: float, y: float, dtype: DType) -> Const:
    """``x op y`` of two values of ``dtype``."""
    number = _NUMPY[dtype]
    return Const(bool(_COMPARE[op](number(x), number(y))), DType.BOOL)


def converted(x: float, dtype: DType, to: DType) -> Const:
    """``x`` of ``dtype`` as ``Cast`` converts it."""
    if to is DType.BOOL:
        return Const(bool(x != 0), to)
    if to.is_float:
        with np.errstate(all="ignore"):
            # From int64 at once to float32: by way of a double it would round twice.
            return Const(float(_NUMPY[dtype](x).astype(_NUMPY[to])), to)
    if not dtype.is_float:
        return Const(wrapped(int(x), to), to)
    if math.isnan(x):
        return Const(0, to)
    limit = 1 << (_BITS[to] - 1)
    return Const(int(min(max(_NUMPY[dtype](x).item(), -limit), limit - 1)), to)


def wrapped(x: int, dtype: DType) -> int:
    """``x`` modulo 2**bits, as a signed number."""
    half = 1 << (_BITS[dtype] - 1)
    return (x + half) % (2 * half) - half


def _constant(value: bool | float | None, dtype: DType) -> Const | None:
    return None if value is None else Const(value, dtype)


def _unary(op: UnaryOp, x: Any, dtype: DType) -> bool | int | float | None:
    if dtype is DType.BOOL:
        return not x if op is UnaryOp.NOT else None
    if dtype.is_float:
        if op is UnaryOp.ISNAN:
            return math.isnan(x)
        if op not in _FLOAT_UNARY:
            return None
        with np.errstate(all="ignore"):
            return float(_FLOAT_UNARY[op](_NUMPY[dtype](x)))
    match op:
        case UnaryOp.NEG:
            return wrapped(-x, dtype)
        case UnaryOp.ABS:
            return wrapped(abs(x), dtype)
        case UnaryOp.NOT:
            return ~int(x)
        case _:
            return None


def _binary(op: BinaryOp, x: Any, y: Any, dtype: DType) -> bool | int | float | None:
    if dtype.is_float:
        return _float_binary(op, x, y, dtype)
    if dtype is DType.BOOL:
        return _bool_binary(op, x, y)
    value = _int_binary(op, x, y, _BITS[dtype])
    return None if value is None else wrapped(value, dtype)


def _float_binary(op: BinaryOp, x: float, y: float, dtype: DType) -> float | None:
    number = _NUMPY[dtype]
    if op in (BinaryOp.MIN, BinaryOp.MAX):
        x, y = float(number(x)), float(number(y))
        if x == y:  # of 0.0 and -0.0 torch may return either
            return x if math.copysign(1, x) == math.copysign(1, y) else None
        if math.isnan(x) or math.isnan(y):
            return math.nan
        return min(x, y) if op is BinaryOp.MIN else max(x, y)
    if op not in _FLOAT_BINARY:
        return None
    with np.errstate(all="ignore"):
        return float(_FLOAT_BINARY[op](number(x), number(y)))


def _bool_binary(op: BinaryOp, x: bool, y: bool) -> bool | None:
    match op:
        case BinaryOp.AND | BinaryOp.MIN:
            return x and y
        case BinaryOp.OR | BinaryOp.MAX:
            return x or y
        case BinaryOp.XOR:
            return x != y
        case _:
            return None


def _int_binary(op: BinaryOp, x: int, y: int, bits: int) -> int | None:
    """The value before it wraps; see ``evaluate`` for the cases that Python has no answer to."""
    match op:
        case BinaryOp.ADD:
            return x + y
        case BinaryOp.SUB:
            return x - y
        case BinaryOp.MUL:
            return x * y
        case BinaryOp.FLOORDIV:
            return x // y if y else 0
        case BinaryOp.MOD:
            return x % y if y else 0
        case BinaryOp.POW if y >= 0:
            return pow(x, y, 1 << bits)
        case BinaryOp.MIN:
            return min(x, y)
        case BinaryOp.MAX:
            return max(x, y)
        case BinaryOp.AND:
            return x & y
        case BinaryOp.OR:
            return x | y
        case BinaryOp.XOR:
            return x ^ y
        case BinaryOp.SHL:
            return x << y if 0 <= y < bits else 0
        case BinaryOp.SHR:
            return x >> (y if 0 <= y < bits else bits)
        case _:
            return None
