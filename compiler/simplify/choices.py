"""Laws of choices and casts. Each function gives the node after one law, or None.

Operands are simplified and not all constant. Every case carries its law as a comment.
"""

from __future__ import annotations

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
from attnc.simplify.numbers import inverted


def select_law(cond: Expr, x: Expr, y: Expr) -> Expr | None:
    match cond:
        case Const(value):
            return x if value else y  # TRUE ? x : y = x
        case _ if x is y:
            return x  # c ? x : x = x
        case Unary(UnaryOp.NOT, c):
            return Select(c, y, x)  # ~c ? x : y = c ? y : x
    match x, y:
        case (Select(c, z, _), _) if c is cond:
            return Select(cond, z, y)  # c ? (c ? z : w) : y = c ? z : y
        case (_, Select(c, _, z)) if c is cond:
            return Select(cond, x, z)  # c ? x : (c ? w : z) = c ? x : z
    if x.dtype is not DType.BOOL:
        return None
    match x, y:
        case (Const(True), _):
            return Binary(BinaryOp.OR, cond, y)  # c ? TRUE : y = c | y
        case (Const(False), _):
            return Binary(BinaryOp.AND, inverted(cond), y)  # c ? FALSE : y = ~c & y
        case (_, Const(True)):
            return Binary(BinaryOp.OR, inverted(cond), x)  # c ? x : TRUE = ~c | x
        case (_, Const(False)):
            return Binary(BinaryOp.AND, cond, x)  # c ? x : FALSE = c & x
        case _:
            return None


# Casts that keep every value.
_LOSSLESS = frozenset(
    {
        (DType.BOOL, DType.INT32),
        (DType.BOOL, DType.INT64),
        (DType.BOOL, DType.FLOAT32),
        (DType.BOOL, DType.FLOAT64),
        (DType.INT32, DType.INT64),
        (DType.INT32, DType.FLOAT64),
        (DType.FLOAT32, DType.FLOAT64),
    }
)


def cast_law(x: Expr, to: DType) -> Expr | None:
    if x.dtype is to:
        return x
    match x:
        case Cast(y) if (y.dtype, x.dtype) in _LOSSLESS:
            return Cast(y, to)  # int32(int64(y)) = y, bool(int32(y)) = y, and so on
        case Select(cond, (Const() as y), (Const() as z)):
            return Select(cond, Cast(y, to), Cast(z, to))  # float(c ? 1 : 0) = c ? 1.0 : 0.0
    if to is DType.BOOL:
        zero = Const(0.0 if x.dtype.is_float else 0, x.dtype)
        return Compare(CompareOp.NE, x, zero)  # bool(x) = (x != 0)
    return None
