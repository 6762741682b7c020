"""The laws of ``simplify``, by kind of node: each function gives the node after one law, or None.

Operands are simplified and not all constant. Every case carries its law as a comment.
"""

from __future__ import annotations

import math

from attnc.ir import (
    FALSE,
    TRUE,
    Binary,
    BinaryOp,
    Cast,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    Gather,
    Index,
    IndexName,
    Select,
    Unary,
    UnaryOp,
)
from attnc.simplify.division import division_law, quotient_and_remainder_law, range_law
from attnc.simplify.fold import compared, folded, wrapped

_COMPLEMENT = {
    CompareOp.EQ: CompareOp.NE,
    CompareOp.NE: CompareOp.EQ,
    CompareOp.LT: CompareOp.GE,
    CompareOp.GE: CompareOp.LT,
    CompareOp.GT: CompareOp.LE,
    CompareOp.LE: CompareOp.GT,
}

_MIRRORED = {
    CompareOp.EQ: CompareOp.EQ,
    CompareOp.NE: CompareOp.NE,
    CompareOp.LT: CompareOp.GT,
    CompareOp.GT: CompareOp.LT,
    CompareOp.LE: CompareOp.GE,
    CompareOp.GE: CompareOp.LE,
}

_COMMUTATIVE = frozenset(
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


def _not(x: Expr) -> Expr:
    return Unary(UnaryOp.NOT, x)


def _is_complement(x: Expr, y: Expr) -> bool:
    """Whether ``y`` is visibly ``~x``."""
    return negation(x) is y or _not(x) is y


def negation(x: Expr) -> Expr | None:
    """``~x`` of a condition, with the negation one step further down."""
    match x:
        case Unary(UnaryOp.NOT, y):
            return y  # ~~y = y
        case Compare(op, y, z) if op in (CompareOp.EQ, CompareOp.NE) or not y.dtype.is_float:
            return Compare(_COMPLEMENT[op], y, z)  # ~(y < z) = y >= z; false for NaN
        case Binary(BinaryOp.AND, y, z):
            return Binary(BinaryOp.OR, _not(y), _not(z))  # ~(y & z) = ~y | ~z
        case Binary(BinaryOp.OR, y, z):
            return Binary(BinaryOp.AND, _not(y), _not(z))  # ~(y | z) = ~y & ~z
        case Select(cond, y, z):
            return Select(cond, _not(y), _not(z))  # ~(c ? y : z) = c ? ~y : ~z
        case _:
            return None


def logic_law(op: BinaryOp, x: Expr, y: Expr) -> Expr | None:
    """Laws of conditions."""
    match op, y:
        case (_, _) if op in _COMMUTATIVE and isinstance(x, Const):
            return Binary(op, y, x)  # TRUE & y = y & TRUE
        case (BinaryOp.AND, Const(value)):
            return x if value else FALSE  # x & TRUE = x, x & FALSE = FALSE
        case (BinaryOp.OR, Const(value)):
            return TRUE if value else x  # x | TRUE = TRUE, x | FALSE = x
        case (BinaryOp.XOR, Const(value)):
            return _not(x) if value else x  # x ^ TRUE = ~x, x ^ FALSE = x
        case (BinaryOp.XOR, _) if x is y:
            return FALSE  # x ^ x = FALSE
        case (BinaryOp.AND | BinaryOp.OR, _) if x is y:
            return x  # x & x = x, x | x = x
        case (BinaryOp.AND, _) if _is_complement(x, y):
            return FALSE  # x & ~x = FALSE
        case (BinaryOp.OR, _) if _is_complement(x, y):
            return TRUE  # x | ~x = TRUE
        case (BinaryOp.AND | BinaryOp.OR, _):
            absorbed = _absorbed(op, x, y) or _absorbed(op, y, x)
            if absorbed is None and op is BinaryOp.AND:
                return quotient_and_remainder_law(x, y)
            return absorbed
        case _:
            return None


def _absorbed(op: BinaryOp, x: Expr, y: Expr) -> Expr | None:
    if not (isinstance(y, Binary) and x in y.children):
        return None
    if y.op is op:
        return y  # x & (x & z) = x & z, x | (x | z) = x | z
    if y.op in (BinaryOp.AND, BinaryOp.OR):
        return x  # x & (x | z) = x, x | (x & z) = x
    return None


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
        case (_, Const(), _) if op in _COMMUTATIVE and not isinstance(y, Const):
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
            return _not(x)  # x ^ -1 = ~x
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


def comparison_law(op: CompareOp, x: Expr, y: Expr) -> Expr | None:
    if isinstance(x, Const) or (not isinstance(y, Const) and _rank(y) < _rank(x)):
        return Compare(_MIRRORED[op], y, x)  # 5 < x = x > 5, kv_idx <= q_idx = q_idx >= kv_idx
    if x is y and (not x.dtype.is_float or op in (CompareOp.LT, CompareOp.GT)):
        # x <= x = TRUE; a float that is NaN is not <= itself.
        return TRUE if op in (CompareOp.EQ, CompareOp.LE, CompareOp.GE) else FALSE
    match x, y:
        case (_, Const(value)) if x.dtype is DType.BOOL and op in (CompareOp.EQ, CompareOp.NE):
            return x if value == (op is CompareOp.EQ) else _not(x)  # (x == TRUE) = x
        case (Cast(z), Const(value)) if z.dtype is DType.BOOL:
            # (int(z) > 0) = z, and so on: what the two values of z give.
            if_true, if_false = (compared(op, bit, value, x.dtype) for bit in (1, 0))
            return Select(z, if_true, if_false)
        case (Select(cond, Const(a), Const(b)), Const(c)):
            # ((z ? a : b) < c) = z ? a < c : b < c
            return Select(cond, compared(op, a, c, x.dtype), compared(op, b, c, x.dtype))
        case (Cast(z, DType.INT64), Const(int(value))) if (
            z.dtype is DType.INT32 and wrapped(value, DType.INT32) == value
        ):
            return Compare(op, z, Const(value, DType.INT32))  # (int64(z) < 5) = z < 5
        case (Cast(w, DType.INT64), Cast(z, DType.INT64)) if w.dtype is DType.INT32 is z.dtype:
            return Compare(op, w, z)  # (int64(w) < int64(z)) = w < z
        case (Binary(BinaryOp.SUB, Index() as w, Index() as z), Const(0)):
            return Compare(op, w, z)  # (q_idx - kv_idx < 0) = q_idx < kv_idx: cannot wrap
        case (Index(), Const(value)) if value < 0 or (
            value == 0 and op in (CompareOp.GE, CompareOp.LT)
        ):
            # (q_idx >= 0) = TRUE, (q_idx == -1) = FALSE: coordinates are not negative.
            return TRUE if op in (CompareOp.GE, CompareOp.GT, CompareOp.NE) else FALSE
        case _:
            return range_law(op, x, y) if x.dtype.is_int else None


_INDEX_RANK = {IndexName.B: 0, IndexName.H: 1, IndexName.Q: 2, IndexName.KV: 3}


def _rank(x: Expr, depth: int = 3) -> tuple[int, ...]:
    """Place of an operand in the order of comparisons; looks at a few levels only."""
    match x:
        case Index(name):
            return (_INDEX_RANK[name],)
        case Gather(slot, indices) if depth and indices:
            return (5, slot, *_rank(indices[-1], depth - 1))
        case Cast(y) if depth:
            return _rank(y, depth - 1)
        case Unary(_, y) | Binary(_, y, _) if depth:
            return (4, *_rank(y, depth - 1))
        case _:
            return (6,)


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
            return Binary(BinaryOp.AND, _not(cond), y)  # c ? FALSE : y = ~c & y
        case (_, Const(True)):
            return Binary(BinaryOp.OR, _not(cond), x)  # c ? x : TRUE = ~c | x
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
