"""What of an expression repeats along kv_idx, and within which limits it stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attnc.ir import KV_IDX, Binary, BinaryOp, Cast, Const, Expr, Index, Unary, UnaryOp, walk

Limits = tuple[int | None, int | None]


def period_of(exprs: Sequence[Expr], at_most: int) -> int | None:
    """The least number of keys after which every expression has the same value, whatever the
    query; None if it is more than ``at_most``."""
    for period in range(1, at_most + 1):
        changes: dict[Expr, int | None] = {}
        for node in walk(*exprs):
            changes[node] = _change(node, period, changes)
        if all(changes[expr] == 0 for expr in exprs):
            return period
    return None


def _change(expr: Expr, step: int, changes: Mapping[Expr, int | None]) -> int | None:
    """By how much ``expr`` grows when ``kv_idx`` grows by ``step``; None if it depends."""
    of_parts = [changes[child] for child in expr.children]
    if all(change == 0 for change in of_parts):
        return step if expr == KV_IDX else 0
    match expr:
        case Unary(UnaryOp.NEG, x):
            change = changes[x]
            return None if change is None else -change
        case Binary(BinaryOp.ADD | BinaryOp.SUB as op, x, y) if expr.dtype.is_int:
            first, second = of_parts
            if first is None or second is None:
                return None
            return first + (second if op is BinaryOp.ADD else -second)
        case Binary(BinaryOp.MUL, x, Const(int(c))) if expr.dtype.is_int:
            change = changes[x]
            return None if change is None else change * c
        case Binary(BinaryOp.FLOORDIV | BinaryOp.SHR | BinaryOp.MOD | BinaryOp.AND as op, x, y):
            divisor = divisor_of(op, y)
            change = changes[x]
            if divisor is not None and change is not None and change % divisor == 0:
                return change // divisor if op in (BinaryOp.FLOORDIV, BinaryOp.SHR) else 0
        case Cast(x) if expr.dtype.is_int and x.dtype.is_int:
            return changes[x]
        case _:
            pass
    return None


def divisor_of(op: BinaryOp, rhs: Expr) -> int | None:
    """The positive constant that ``x op rhs`` divides by, or takes the remainder of."""
    match op, rhs:
        case (BinaryOp.FLOORDIV | BinaryOp.MOD, Const(int(c))) if c > 0:
            return c
        case (BinaryOp.SHR, Const(int(s))) if 0 <= s < 31:
            return int(2**s)
        case (BinaryOp.AND, Const(int(m))) if m >= 0 and m & (m + 1) == 0:
            return m + 1  # x & (2**n - 1) = x % 2**n
        case _:
            return None


def limits_of(expr: Expr) -> Limits:
    """Least and greatest value that an integer expression may have, None where unknown."""
    match expr:
        case Const(int(value)):
            return value, value
        case Index():
            return 0, None
        case Unary(UnaryOp.NEG, x):
            low, high = limits_of(x)
            return None if high is None else -high, None if low is None else -low
        case Unary(UnaryOp.ABS, x):
            return 0, _greatest_size(limits_of(x))
        case Cast(x) if x.dtype.is_int:
            return limits_of(x)
        case Binary(BinaryOp.MUL, x, y) if x is y:
            size = _greatest_size(limits_of(x))
            return 0, None if size is None else size * size
        case Binary(BinaryOp.ADD, x, y):
            return _sum(limits_of(x), limits_of(y))
        case Binary(BinaryOp.SUB, x, y):
            return _sum(limits_of(x), limits_of(Unary(UnaryOp.NEG, y)))
        case Binary(BinaryOp.MUL, x, y):
            return _product(limits_of(x), limits_of(y))
        case Binary(BinaryOp.MOD | BinaryOp.AND as op, _, y):
            divisor = divisor_of(op, y)
            return (None, None) if divisor is None else (0, divisor - 1)
        case Binary(BinaryOp.FLOORDIV | BinaryOp.SHR as op, x, y):
            divisor = divisor_of(op, y)
            if divisor is None:
                return None, None
            low, high = limits_of(x)
            return (
                None if low is None else low // divisor,
                None if high is None else high // divisor,
            )
        case _:
            return None, None


def _sum(x: Limits, y: Limits) -> Limits:
    return (
        None if x[0] is None or y[0] is None else x[0] + y[0],
        None if x[1] is None or y[1] is None else x[1] + y[1],
    )


def _product(x: Limits, y: Limits) -> Limits:
    if x[0] is None or x[1] is None or y[0] is None or y[1] is None:
        return None, None
    ends = [a * b for a in (x[0], x[1]) for b in (y[0], y[1])]
    return min(ends), max(ends)


def _greatest_size(limits: Limits) -> int | None:
    low, high = limits
    return None if low is None or high is None else max(abs(low), abs(high))
