"""A predicate as terms joined by "all of" and "any of", negations pushed down to the conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from attnc.ir import (
    Binary,
    BinaryOp,
    Compare,
    CompareOp,
    DType,
    Expr,
    Select,
    Unary,
    UnaryOp,
)

_MAX_DEPTH = 32
_MAX_SETS = 20_000

_COMPLEMENT = {
    CompareOp.EQ: CompareOp.NE,
    CompareOp.NE: CompareOp.EQ,
    CompareOp.LT: CompareOp.GE,
    CompareOp.GE: CompareOp.LT,
    CompareOp.GT: CompareOp.LE,
    CompareOp.LE: CompareOp.GT,
}


class Join(Enum):
    """How the parts of a term make its value."""

    ALL = "all of"
    ANY = "any of"


@dataclass(frozen=True, eq=False)
class Formula:
    """A boolean term. A condition has no parts and no join.

    ``source`` is the node of the traced predicate that it comes from; ``expr`` has its value,
    which is the opposite where an odd number of negations surrounds ``source``.
    """

    expr: Expr
    source: Expr
    join: Join | None = None
    parts: tuple[Formula, ...] = ()


def formula_of(expr: Expr) -> Formula:
    """``expr`` as a formula; nested terms of one join are one term, each part once."""
    return _formula(expr, False, 0, {})


def conditions_of(formula: Formula) -> tuple[Formula, ...]:
    """The conditions of a formula, in the order in which they are written, each once."""
    found: dict[Expr, Formula] = {}
    seen: set[int] = set()
    stack = [formula]
    while stack:
        term = stack.pop()
        if id(term) in seen:
            continue
        seen.add(id(term))
        if term.join is None:
            found.setdefault(term.expr, term)
        stack.extend(reversed(term.parts))
    return tuple(found.values())


def smallest_cover(covers: NDArray[np.bool_]) -> tuple[int, ...]:
    """Numbers of as few rows as possible of which one is true in every column.

    ``covers``: (n_rows, n_columns), some row true in each column. Of several such sets the first.
    Where the number of rows is too large for all sets to be tried, no row can be left out.
    """
    covers = np.unique(covers, axis=1)
    n_rows = len(covers)
    n_tried = 0
    for size in range(n_rows + 1):
        n_tried += comb(n_rows, size)
        if n_tried > _MAX_SETS:
            return _irreducible_cover(covers)
        for rows in combinations(range(n_rows), size):
            if covers[list(rows)].any(0).all():
                return rows
    raise AssertionError("all rows together cover every column")


def _irreducible_cover(covers: NDArray[np.bool_]) -> tuple[int, ...]:
    chosen: list[int] = []
    open_columns = np.ones(covers.shape[1], bool)
    while open_columns.any():
        chosen.append(int(covers[:, open_columns].sum(1).argmax()))
        open_columns &= ~covers[chosen[-1]]
    for row in tuple(chosen):
        others = [other for other in chosen if other != row]
        if covers[others].any(0).all():
            chosen = others
    return tuple(sorted(chosen))


_Known = dict[tuple[Expr, bool], Formula]


def _formula(expr: Expr, negated: bool, depth: int, known: _Known) -> Formula:
    if (expr, negated) not in known:
        known[expr, negated] = _made(expr, negated, depth, known)
    return known[expr, negated]


def _made(expr: Expr, negated: bool, depth: int, known: _Known) -> Formula:
    value = _negation(expr) if negated else expr
    joined = _joined(expr)
    while joined is None and isinstance(expr, Unary) and expr.op is UnaryOp.NOT:
        expr, negated = expr.x, not negated
        joined = _joined(expr)
    if joined is None or depth == _MAX_DEPTH:
        return Formula(_negation(expr) if negated else expr, expr)
    join = joined[0] if not negated else _other(joined[0])
    parts: dict[Expr, Formula] = {}
    stack = [(part, negated) for part in reversed(joined[1])]
    seen: set[tuple[Expr, bool]] = set()
    while stack:
        part, is_negated = stack.pop()
        if (part, is_negated) in seen:
            continue
        seen.add((part, is_negated))
        if isinstance(part, Unary) and part.op is UnaryOp.NOT:
            stack.append((part.x, not is_negated))
            continue
        inner = _joined(part)
        if inner is not None and join is (_other(inner[0]) if is_negated else inner[0]):
            stack.extend((child, is_negated) for child in reversed(inner[1]))
            continue
        made = _formula(part, is_negated, depth + 1, known)
        parts.setdefault(made.expr, made)
    if len(parts) == 1:
        return next(iter(parts.values()))
    return Formula(value, expr, join, tuple(parts.values()))


def _other(join: Join) -> Join:
    return Join.ANY if join is Join.ALL else Join.ALL


def _joined(expr: Expr) -> tuple[Join, Sequence[Expr]] | None:
    """The join and the operands of a boolean operation, or None for a condition."""
    if any(child.dtype is not DType.BOOL for child in expr.children):
        return None
    match expr:
        case Binary(BinaryOp.AND | BinaryOp.MIN | BinaryOp.MUL, x, y):
            return Join.ALL, (x, y)
        case Binary(BinaryOp.OR | BinaryOp.MAX | BinaryOp.ADD, x, y):
            return Join.ANY, (x, y)
        case Binary(BinaryOp.XOR, x, y) | Compare(CompareOp.NE, x, y):
            return Join.ANY, (_both(x, _not(y)), _both(_not(x), y))
        case Compare(CompareOp.EQ, x, y):
            return Join.ANY, (_both(x, y), _both(_not(x), _not(y)))
        case Select(condition, x, y):
            return Join.ANY, (_both(condition, x), _both(_not(condition), y))
        case _:
            return None


def _both(x: Expr, y: Expr) -> Expr:
    return Binary(BinaryOp.AND, x, y)


def _not(x: Expr) -> Expr:
    return Unary(UnaryOp.NOT, x)


def _negation(expr: Expr) -> Expr:
    match expr:
        case Unary(UnaryOp.NOT, x):
            return x
        # A comparison with NaN and its complement are both false.
        case Compare(op, x, y) if not x.dtype.is_float:
            return Compare(_COMPLEMENT[op], x, y)
        case _:
            return _not(expr)
