"""Which part of a predicate makes it true or false at one pair."""

from __future__ import annotations

from attnc.ir import Binary, BinaryOp, DType, Expr, Select, Unary, UnaryOp
from attnc.prove.domain import Domain


def deciding_term(mask: Expr, domain: Domain, pair: tuple[int, int, int, int]) -> Expr:
    """The smallest condition in ``mask`` that alone makes it what it is at ``pair``.

    It is the false operand of an ``&``, the true one of an ``|``, the branch that ``where`` takes;
    where both operands are needed, the whole of them.
    """
    term = mask
    while True:
        match term:
            case Unary(UnaryOp.NOT, x) if x.dtype is DType.BOOL:
                part = x
            case Binary(BinaryOp.AND | BinaryOp.OR as op, x, y) if x.dtype is DType.BOOL:
                decisive = op is BinaryOp.OR
                values = [bool(domain.value_at(operand, pair)) for operand in (x, y)]
                if values.count(decisive) != 1:
                    return term
                part = x if values[0] is decisive else y
            case Select(cond, x, y) if x.dtype is DType.BOOL:
                part = x if domain.value_at(cond, pair) else y
            case _:
                return term
        if isinstance(part, Unary | Binary | Select) or part.children:
            term = part
        else:
            return term  # a constant says less than the choice that led to it
