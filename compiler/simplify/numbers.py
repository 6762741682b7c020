"""Laws of numbers. Each function gives the node after one law, or None.

Operands are simplified and not all constant. Every case carries its law as a comment.
"""

from __future__ import annotations

import math

from attnc.ir import (
    Binary,
    BinaryOp,
    Const,
    Expr,
    Index,
    Unary,
    UnaryOp,
)
from attnc.simplify.division import division_law
from attnc.simplify.fold import folded, wrapped

COMMUTATIVE = frozenset(
    {
        BinaryOp.ADD,
        BinaryOp.MUL,
        BinaryOp.MIN,
        BinaryOp.MAX,
        BinaryOp.AND,
        BinaryOp.OR,
        BinaryOp.XOR,
    }
)


def inverted(x: Expr) -> Expr:
    """``not x``, or ``~x``."""
    return Unary(UnaryOp.NOT, x)


def unary_law(op: UnaryOp, x: Expr) -> Expr | None:
    """Laws of one operand, of numbers."""
    match op, x:
        case (UnaryOp.NOT | UnaryOp.NEG, Unary(inner, y)) if inner is op:
            return y  # ~~y = y, --y = y
        case (UnaryOp.NEG, Binary(BinaryOp.SUB, y, z)) if y.dtype.is_int:
            return Binary(BinaryOp.SUB, z, y)  # -(y - z) = z - y; not for floats, -(1 - 1) = -0.0
        case (UnaryOp.ABS, Unary(UnaryOp.NEG, y)):
            return Unary(UnaryOp.ABS, y)  # abs(-y) = abs(y)
        case (UnaryOp.ABS, Unary(UnaryOp.ABS) | Index()):
            return x  # abs(abs(y)) = abs(y), abs(q_idx) = q_idx
        case (UnaryOp.FLOOR | UnaryOp.CEIL | UnaryOp.TRUNC | UnaryOp.ROUND, _) if x.dtype.is_int:
            return x  # floor(x) = x
        case _:
            return None


def number_law(op: BinaryOp, x: Expr, y: Expr) -> Expr | None:
    """Laws of integers and floats alike."""
    match op, x, y:
        case (BinaryOp.MIN | BinaryOp.MAX, Const(0), _) if x.dtype.is_float:
            return None  # min(0.0, -0.0) may be either, by the order of the operands
        case (_, Const(), _) if op in COMMUTATIVE and not isinstance(y, Const):
            return Binary(op, y, x)  # 2 * y = y * 2
        case (BinaryOp.MUL | BinaryOp.DIV | BinaryOp.POW, _, Const(1)):
            return x  # x * 1 = x, x / 1 = x, x ** 1 = x
        case (BinaryOp.MUL, _, Const(-1)):
            return Unary(UnaryOp.NEG, x)  # x * -1 = -x
        case (BinaryOp.POW, _, Const(2)):
            return Binary(BinaryOp.MUL, x, x)  # x ** 2 = x * x
        case (BinaryOp.ADD, _, Unary(UnaryOp.NEG, z)):
            return Binary(BinaryOp.SUB, x, z)  # x + -z = x - z
        case (BinaryOp.ADD, Unary(UnaryOp.NEG, z), _):
            return Binary(BinaryOp.SUB, y, z)  # -z + y = y - z
        case (BinaryOp.SUB, _, Unary(UnaryOp.NEG, z)):
            return Binary(BinaryOp.ADD, x, z)  # x - -z = x + z
        case (BinaryOp.MUL, Unary(UnaryOp.NEG, w), Unary(UnaryOp.NEG, z)):
            return Binary(BinaryOp.MUL, w, z)  # -w * -z = w * z
        case (BinaryOp.MIN | BinaryOp.MAX, _, _) if x is y:
            return x  # min(x, x) = x
        case _:
            return None


def integer_law(op: BinaryOp, x: Expr, y: Expr) -> Expr | None:
    """Laws of integers, which wrap."""
    zero = Const(0, x.dtype)
    match op, x, y:
        case (
            BinaryOp.ADD | BinaryOp.SUB | BinaryOp.OR | BinaryOp.XOR | BinaryOp.SHL | BinaryOp.SHR,
            _,
            Const(0),
        ):
            return x  # x + 0 = x - 0 = x | 0 = x ^ 0 = x << 0 = x >> 0 = x
        case (BinaryOp.MUL | BinaryOp.AND | BinaryOp.FLOORDIV | BinaryOp.MOD, _, Const(0)):
            return zero  # x * 0 = x & 0 = 0; x // 0 = x % 0 = 0 by definition
        case (BinaryOp.POW, _, Const(0)):
            return Const(1, x.dtype)  # x ** 0 = 1
        case (BinaryOp.SUB, Const(0), _):
            return Unary(UnaryOp.NEG, y)  # 0 - y = -y; not for floats, 0.0 - 0.0 = 0.0
        case (BinaryOp.FLOORDIV, _, Const(1)):
            return x  # x // 1 = x
        case (BinaryOp.FLOORDIV, _, Const(-1)):
            return Unary(UnaryOp.NEG, x)  # x // -1 = -x
        case (BinaryOp.MOD, _, Const(1 | -1)):
            return zero  # x % 1 = x % -1 = 0
        case (BinaryOp.AND, _, Const(-1)):
            return x  # x & -1 = x
        case (BinaryOp.OR, _, Const(-1)):
            return y  # x | -1 = -1
        case (BinaryOp.XOR, _, Const(-1)):
            return inverted(x)  # x ^ -1 = ~x
        case (BinaryOp.AND | BinaryOp.OR, _, _) if x is y:
            return x  # x & x = x | x = x
        case (BinaryOp.SUB | BinaryOp.XOR, _, _) if x is y:
            return zero  # x - x = x ^ x = 0; not for floats, inf - inf is NaN
    match op, x, y:
        case (_, Binary(inner, z, Const(a)), Const(b)):
            chained = _integer_chain(op, inner, z, int(a), int(b))
            if chained is not None:
                return chained
    match op, y:
        case (BinaryOp.FLOORDIV | BinaryOp.MOD, Const(int(n))) if n > 1:
            return division_law(op, x, n)
        case _:
            return None


def _integer_chain(op: BinaryOp, inner: BinaryOp, x: Expr, a: int, b: int) -> Expr | None:
    """``(x inner a) op b`` with two constants."""
    dtype = x.dtype
    match inner, op:
        case (BinaryOp.ADD | BinaryOp.SUB, BinaryOp.ADD | BinaryOp.SUB):
            total = (a if inner is BinaryOp.ADD else -a) + (b if op is BinaryOp.ADD else -b)
            return _shifted(x, wrapped(total, dtype))  # (x + a) - b = x + (a - b)
        case (BinaryOp.MUL, BinaryOp.MUL):
            return Binary(op, x, Const(wrapped(a * b, dtype), dtype))  # (x * a) * b = x * (a * b)
        case (BinaryOp.FLOORDIV, BinaryOp.FLOORDIV) if a > 0 < b and wrapped(a * b, dtype) == a * b:
            return Binary(op, x, Const(a * b, dtype))  # (x // a) // b = x // (a * b), a, b > 0
        case (BinaryOp.MOD, BinaryOp.MOD) if a == b:
            return Binary(op, x, Const(a, dtype))  # (x % a) % a = x % a
        case (BinaryOp.MIN | BinaryOp.MAX | BinaryOp.AND | BinaryOp.OR | BinaryOp.XOR, _) if (
            inner is op
        ):
            both = folded(Binary(op, Const(a, dtype), Const(b, dtype)))
            return both and Binary(op, x, both)  # min(min(x, a), b) = min(x, min(a, b))
        case _:
            return None


def _shifted(x: Expr, offset: int) -> Expr:
    """``x + offset``, written without a negative constant where there is one without."""
    if offset < 0 and wrapped(-offset, x.dtype) > 0:
        return Binary(BinaryOp.SUB, x, Const(-offset, x.dtype))
    return Binary(BinaryOp.ADD, x, Const(offset, x.dtype))


def float_law(op: BinaryOp, x: Expr, y: Expr) -> Expr | None:
    """Laws of floats: signed zeros, infinities and NaN stay what they are."""
    if not isinstance(y, Const):
        return None
    value = float(y.value)
    is_negative = math.copysign(1.0, value) < 0
    match op:
        case BinaryOp.SUB if value == 0 and not is_negative:
            return x  # x - 0.0 = x; but -0.0 - -0.0 = 0.0
        case BinaryOp.ADD if value == 0 and is_negative:
            return x  # x + -0.0 = x; but -0.0 + 0.0 = 0.0
        case BinaryOp.DIV if _has_exact_inverse(value):
            return Binary(BinaryOp.MUL, x, Const(1.0 / value, x.dtype))  # x / 8.0 = x * 0.125
        case _:
            return None


def _has_exact_inverse(value: float) -> bool:
    """Whether ``1 / value`` is exact and normal in float32: a power of two, not too large."""
    mantissa, exponent = math.frexp(value)
    return abs(mantissa) == 0.5 and abs(exponent) < 125
