"""What a condition is, and what its operators become when it is turned around."""

from __future__ import annotations

from attnc.bounds.algebra import Sympy, is_nonnegative
from attnc.bounds.term import EVERYTHING, Term, symbol
from attnc.ir import (
    Binary,
    BinaryOp,
    CompareOp,
    Const,
    DType,
    Expr,
    Index,
    IndexName,
    Level,
    Select,
    level_of,
)

NEGATED = {
    CompareOp.EQ: CompareOp.NE,
    CompareOp.NE: CompareOp.EQ,
    CompareOp.LT: CompareOp.GE,
    CompareOp.GE: CompareOp.LT,
    CompareOp.GT: CompareOp.LE,
    CompareOp.LE: CompareOp.GT,
}
MIRRORED = {
    CompareOp.EQ: CompareOp.EQ,
    CompareOp.NE: CompareOp.NE,
    CompareOp.LT: CompareOp.GT,
    CompareOp.GT: CompareOp.LT,
    CompareOp.LE: CompareOp.GE,
    CompareOp.GE: CompareOp.LE,
}


def half_of(expr: Expr) -> int | None:
    """After how many keys ``kv_idx % half`` or ``kv_idx // a % b`` repeats."""
    match expr:
        case Binary(BinaryOp.MOD, Index(IndexName.KV), Const(int(half))):
            return half
        case Binary(
            BinaryOp.MOD,
            Binary(BinaryOp.FLOORDIV, Index(IndexName.KV), Const(int(a))),
            Const(int(b)),
        ):
            return a * b
        case _:
            return None


def is_choice(expr: Expr) -> bool:
    is_integer = isinstance(expr, Select) and expr.dtype.is_int
    return is_integer and level_of(expr) is not Level.UNIFORM


def is_bool(expr: Expr) -> bool:
    return expr.dtype is DType.BOOL


def has_root(bound: Sympy, squared: Expr) -> bool:
    """Whether the root of ``bound`` can be taken: squares of int32 that do not wrap are small."""
    return symbol("q_idx") not in bound.free_symbols and squared.dtype is DType.INT32


def where_not_negative(value: Sympy) -> Term:
    return EVERYTHING if is_nonnegative(value) else Term(guards=frozenset({value}))
