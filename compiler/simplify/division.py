"""Laws of ``//`` and ``%`` by a constant, where sums are known not to wrap around.

They undo what a change of token order puts into a mask: the row of ``y * width + x`` is ``y``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard
from weakref import WeakKeyDictionary

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
    Index,
    Select,
    Unary,
    UnaryOp,
)

Range = tuple[int, int]

_ranges: WeakKeyDictionary[Expr, Range] = WeakKeyDictionary()
_LARGEST = {DType.INT32: 2**31 - 1, DType.INT64: 2**63 - 1}
_MANY = 16  # conditions


def range_of(expr: Expr) -> Range:
    """Least and largest value that ``expr``, an integer, may have at any coordinates.

    That of its dtype where nothing smaller is known.
    """
    stack = [expr]
    while stack:
        node = stack[-1]
        waiting = [x for x in node.children if _has_range(x) and x not in _ranges]
        if waiting:
            stack += waiting
            continue
        stack.pop()
        if node not in _ranges:
            exact = _exact_range(node)
            _ranges[node] = exact if _fits(exact, node.dtype) else _whole(node.dtype)
    return _ranges[expr]


def _has_range(node: Expr) -> bool:
    return node.dtype.is_int or node.dtype is DType.BOOL


def _fits(exact: Range | None, dtype: DType) -> TypeGuard[Range]:
    first, last = _whole(dtype)
    return exact is not None and first <= exact[0] and exact[1] <= last


def _whole(dtype: DType) -> Range:
    if dtype is DType.BOOL:
        return 0, 1
    return -_LARGEST[dtype] - 1, _LARGEST[dtype]


def _exact_range(node: Expr) -> Range | None:
    """Range of the mathematical value, which may lie outside of the dtype; of operands known."""
    known = _ranges
    match node:
        case Index():
            return 0, _LARGEST[DType.INT32]
        case Const(value):
            return int(value), int(value)
        case Cast(x) if x in known:
            return known[x]
        case Unary(UnaryOp.NEG, x):
            return -known[x][1], -known[x][0]
        case Select(_, x, y):
            return min(known[x][0], known[y][0]), max(known[x][1], known[y][1])
        case Binary(BinaryOp.FLOORDIV, x, Const(int(n))) if n > 0:
            return known[x][0] // n, known[x][1] // n
        case Binary(BinaryOp.SHR, x, Const(int(n))) if 0 <= n < 31:
            return known[x][0] >> n, known[x][1] >> n
        case Binary(BinaryOp.MOD, x, Const(int(n))) if n > 0:
            first, last = known[x]
            return (first % n, last % n) if first // n == last // n else (0, n - 1)
        case Binary(BinaryOp.AND, _, Const(int(n))) if n >= 0:
            return 0, n
        case Binary(op, x, y):
            return _combined(op, known[x], known[y])
        case _:
            return None


def _combined(op: BinaryOp, x: Range, y: Range) -> Range | None:
    match op:
        case BinaryOp.ADD:
            return x[0] + y[0], x[1] + y[1]
        case BinaryOp.SUB:
            return x[0] - y[1], x[1] - y[0]
        case BinaryOp.MUL:
            products = [a * b for a in x for b in y]
            return min(products), max(products)
        case BinaryOp.MIN:
            return min(x[0], y[0]), min(x[1], y[1])
        case BinaryOp.MAX:
            return max(x[0], y[0]), max(x[1], y[1])
        case _:
            return None


@dataclass(frozen=True)
class _Term:
    factor: int
    expr: Expr | None  # None: the constant


def _terms(expr: Expr) -> list[_Term] | None:
    """``expr`` as a sum; None where it may wrap around on the way."""
    terms: list[_Term] = []
    stack = [_Term(1, expr)]
    while stack:
        term = stack.pop()
        match term.expr:
            case Const(value):
                terms.append(_Term(term.factor * int(value), None))
            case Binary(BinaryOp.ADD | BinaryOp.SUB as op, x, y) as node if _is_exact(node):
                sign = 1 if op is BinaryOp.ADD else -1
                stack += [_Term(sign * term.factor, y), _Term(term.factor, x)]
            case Binary(BinaryOp.MUL, x, Const(int(n))) as node if _is_exact(node):
                stack.append(_Term(term.factor * n, x))
            case Unary(UnaryOp.NEG, x) as node if _is_exact(node):
                stack.append(_Term(-term.factor, x))
            case Binary(BinaryOp.ADD | BinaryOp.SUB | BinaryOp.MUL) | Unary(UnaryOp.NEG):
                return None
            case _:
                terms.append(term)
    return terms


def _is_exact(node: Expr) -> bool:
    range_of(node)
    return _fits(_exact_range(node), node.dtype)


def division_law(op: BinaryOp, x: Expr, n: int) -> Expr | None:
    """``x // n`` or ``x % n``, n > 1, without the part that n divides."""
    first, last = range_of(x)
    if first // n == last // n:
        quotient = first // n
        if op is BinaryOp.FLOORDIV:
            return Const(quotient, x.dtype)  # (q_idx % 8) // 8 = 0
        if quotient == 0:
            return x  # (q_idx % 8) % 16 = q_idx % 8
    match op, x:
        case (BinaryOp.FLOORDIV, Binary(BinaryOp.MOD, y, Const(int(m)))) if m > 0 and m % n == 0:
            # (q_idx % 64) // 8 = (q_idx // 8) % 8
            quotient_of_y = Binary(BinaryOp.FLOORDIV, y, Const(n, x.dtype))
            return Binary(BinaryOp.MOD, quotient_of_y, Const(m // n, x.dtype))
    terms = _terms(x)
    if terms is None:
        return None
    divided = [term for term in terms if term.expr is not None and term.factor % n == 0]
    if not divided:
        return None
    rest = _sum([term for term in terms if term not in divided], x.dtype)
    quotients = _sum([_Term(term.factor // n, term.expr) for term in divided], x.dtype)
    if rest is None or quotients is None:
        return None
    if op is BinaryOp.MOD:
        return Binary(op, rest, Const(n, x.dtype))  # (8 * y + x) % 8 = x % 8
    # (8 * y + x) // 8 = y + x // 8
    return Binary(BinaryOp.ADD, quotients, Binary(op, rest, Const(n, x.dtype)))


def _sum(terms: list[_Term], dtype: DType) -> Expr | None:
    """The sum of terms, or None where it may wrap around."""
    total: Expr | None = None
    for term in terms:
        part: Expr = Const(abs(term.factor), dtype)
        if term.expr is not None:
            part = Binary(BinaryOp.MUL, term.expr, part)
        if total is None:
            joined = part if term.factor >= 0 else Unary(UnaryOp.NEG, part)
        else:
            joined = Binary(BinaryOp.ADD if term.factor >= 0 else BinaryOp.SUB, total, part)
        if not (_is_exact(part) and _is_exact(joined)):
            return None
        total = joined
    return Const(0, dtype) if total is None else total


def range_law(op: CompareOp, x: Expr, y: Expr) -> Expr | None:
    """A comparison that the ranges of its sides decide."""
    (x_first, x_last), (y_first, y_last) = range_of(x), range_of(y)
    is_less, is_greater = x_last < y_first, x_first > y_last
    match op:
        case CompareOp.EQ | CompareOp.NE if is_less or is_greater:
            return TRUE if op is CompareOp.NE else FALSE  # (q_idx % 8 == 9) = FALSE
        case CompareOp.LT | CompareOp.GE if is_less or x_first >= y_last:
            return TRUE if is_less is (op is CompareOp.LT) else FALSE  # (q_idx % 8 < 8) = TRUE
        case CompareOp.LE | CompareOp.GT if is_greater or x_last <= y_first:
            return TRUE if is_greater is (op is CompareOp.GT) else FALSE
        case _:
            return None


def quotient_and_remainder_law(x: Expr, y: Expr) -> Expr | None:
    """Two conditions that say together that numbers are equal, of the operands of ``&``.

    Of a few conditions only: each operand of a long chain of ``&`` is asked anew.
    """
    left, right = _conditions(x), _conditions(y)
    if left is None or right is None:
        return None
    for ours in left:
        for others in right:
            joined = _same_number(ours, others) or _same_number(others, ours)
            if joined is None:
                continue
            for rest in (*left, *right):
                if rest is not ours and rest is not others:
                    joined = Binary(BinaryOp.AND, joined, rest)
            return joined
    return None


def _conditions(expr: Expr) -> list[Expr] | None:
    """What ``&`` joins, or None if that is much."""
    found: list[Expr] = []
    stack = [expr]
    while stack:
        node = stack.pop()
        match node:
            case Binary(BinaryOp.AND, x, y) if node.dtype is DType.BOOL:
                stack += [y, x]
            case _:
                found.append(node)
        if len(found) + len(stack) > _MANY:
            return None
    return found


def _same_number(quotients: Expr, remainders: Expr) -> Expr | None:
    match quotients, remainders:
        case (
            Compare(
                CompareOp.EQ,
                Binary(BinaryOp.FLOORDIV, x, Const(int(m))),
                Binary(BinaryOp.FLOORDIV, y, Const(other_m)),
            ),
            Compare(
                CompareOp.EQ,
                Binary(BinaryOp.MOD, low_x, Const(int(n))),
                Binary(BinaryOp.MOD, low_y, Const(other_n)),
            ),
        ) if m == other_m and n == other_n and n > 0 and m > 0 and m % n == 0:
            below = Const(m // n, x.dtype)
            one = m == n
            if low_x is (x if one else Binary(BinaryOp.FLOORDIV, x, below)) and low_y is (
                y if one else Binary(BinaryOp.FLOORDIV, y, below)
            ):
                # (x // 8 == y // 8) & (x % 8 == y % 8) = (x == y)
                return Compare(CompareOp.EQ, low_x, low_y)
    return None
