"""A mask as conditions that hold all at once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

from attnc.ir import Binary, BinaryOp, DType, Expr

_MAX_TERMS = 4  # as many as a table has bits for, and a tile branches


def conjuncts(mask: Expr) -> Iterator[Expr]:
    """Conditions whose conjunction is ``mask``, in its order; no recursion, as in ``walk``."""
    stack = [mask]
    while stack:
        node = stack.pop()
        match node:
            case Binary(BinaryOp.AND, x, y) if node.dtype is DType.BOOL:
                stack += [y, x]
            case _:
                yield node


def terms_of(mask: Expr) -> tuple[Expr, ...]:
    """The same, for tiles to check one by one; of many, the last ones as one.

    Masks that differ in constants have the same number of them.
    """
    found = list(conjuncts(mask))
    first, rest = found[: _MAX_TERMS - 1], found[_MAX_TERMS - 1 :]
    if rest:
        first.append(reduce(lambda x, y: Binary(BinaryOp.AND, x, y), rest))
    return tuple(first)
