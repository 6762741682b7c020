"""Integers that cannot be negative: what lets a kernel divide and index the short way."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from attnc.ir import Binary, BinaryOp, Cast, Const, DType, Expr, Index, Ref, RowIndex, Select


def is_not_negative(expr: Expr, names: AbstractSet[str] = frozenset()) -> bool:
    """Whether ``expr`` is an integer of at least 0, by its form and where nothing can wrap around.

    Args:
        expr: Any expression.
        names: ``Ref``s that are known to be so.
    """
    match expr:
        case Index() | RowIndex():
            return True
        case Const(value, dtype):
            return dtype.is_int and value >= 0
        case Ref(name, _, _):
            return name in names
        case Cast(x, to):
            widens = x.dtype is DType.BOOL or (x.dtype, to) == (DType.INT32, DType.INT64)
            return to.is_int and widens and (x.dtype is DType.BOOL or is_not_negative(x, names))
        case Binary(BinaryOp.MOD, lhs, Const(int(n))) if lhs.dtype.is_int:
            return n > 0
        case Binary(BinaryOp.FLOORDIV | BinaryOp.SHR, lhs, Const(int(n))):
            return n > 0 and is_not_negative(lhs, names)
        case Binary(BinaryOp.AND | BinaryOp.MAX, lhs, rhs) if lhs.dtype.is_int:
            return is_not_negative(lhs, names) or is_not_negative(rhs, names)
        case Binary(BinaryOp.MIN | BinaryOp.OR | BinaryOp.XOR, lhs, rhs):
            return is_not_negative(lhs, names) and is_not_negative(rhs, names)
        case Select(_, if_true, if_false):
            return is_not_negative(if_true, names) and is_not_negative(if_false, names)
        case _:
            return False
