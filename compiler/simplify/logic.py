"""Laws of conditions and comparisons. Each function gives the node after one law, or None.

Operands are simplified and not all constant. Every case carries its law as a comment.
"""

from __future__ import annotations

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
from attnc.simplify.division import quotient_and_remainder_law, range_law
from attnc.simplify.fold import compared, wrapped
from attnc.simplify.numbers import COMMUTATIVE, inverted

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


def _is_complement(x: Expr, y: Expr) -> bool:
    """Whether ``y`` is visibly ``~x``."""
    return negation(x) is y or inverted(x) is y


def negation(x: Expr) -> Expr | None:
    """``~x`` of a condition, with the negation one step further down."""
    match x:
        case Unary(UnaryOp.NOT, y):
            return y  # ~~y = y
        case Compare(op, y, z) if op in (CompareOp.EQ, CompareOp.NE) or not y.dtype.is_float:
            return Compare(_COMPLEMENT[op], y, z)  # ~(y < z) = y >= z; false for NaN
        case Binary(BinaryOp.AND, y, z):
            return Binary(BinaryOp.OR, inverted(y), inverted(z))  # ~(y & z) = ~y | ~z
        case Binary(BinaryOp.OR, y, z):
            return Binary(BinaryOp.AND, inverted(y), inverted(z))  # ~(y | z) = ~y & ~z
        case Select(cond, y, z):
            return Select(cond, inverted(y), inverted(z))  # ~(c ? y : z) = c ? ~y : ~z
        case _:
            return None


def logic_law(op: BinaryOp, x: Expr, y: Expr) -> Expr | None:
    """Laws of conditions."""
    match op, y:
        case (_, _) if op in COMMUTATIVE and isinstance(x, Const):
            return Binary(op, y, x)  # TRUE & y = y & TRUE
        case (BinaryOp.AND, Const(value)):
            return x if value else FALSE  # x & TRUE = x, x & FALSE = FALSE
        case (BinaryOp.OR, Const(value)):
            return TRUE if value else x  # x | TRUE = TRUE, x | FALSE = x
        case (BinaryOp.XOR, Const(value)):
            return inverted(x) if value else x  # x ^ TRUE = ~x, x ^ FALSE = x
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


def comparison_law(op: CompareOp, x: Expr, y: Expr) -> Expr | None:
    if isinstance(x, Const) or (not isinstance(y, Const) and _rank(y) < _rank(x)):
        return Compare(_MIRRORED[op], y, x)  # 5 < x = x > 5, kv_idx <= q_idx = q_idx >= kv_idx
    if x is y and (not x.dtype.is_float or op in (CompareOp.LT, CompareOp.GT)):
        # x <= x = TRUE; a float that is NaN is not <= itself.
        return TRUE if op in (CompareOp.EQ, CompareOp.LE, CompareOp.GE) else FALSE
    match x, y:
        case (_, Const(value)) if x.dtype is DType.BOOL and op in (CompareOp.EQ, CompareOp.NE):
            return x if value == (op is CompareOp.EQ) else inverted(x)  # (x == TRUE) = x
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
