"""Intervals of keys turned into runs of key blocks for a tile of queries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import gcd
from typing import Any

from attnc.bounds.terms import NotAnIntervalError, Sympy, Term, clamped_to_bit, symbol

_MAX_PERIOD = 4096
_MAX_WIDTHS = 4


@dataclass(frozen=True)
class BlockRun:
    """Key blocks of a tile row: PARTIAL, FULL from ``full_start`` to ``full_stop``, PARTIAL.

    Integer sympy expressions over ``q_block, n_queries, n_keys, p*, u*``, neither ordered nor in
    range: see ``ClosedForm.evaluate`` for the clamping.
    """

    start: Any
    full_start: Any
    full_stop: Any
    stop: Any


@lru_cache(maxsize=4096)
def is_never_negative(expr: Sympy) -> bool:
    """Whether ``expr >= 0`` can be proved; bounds of floor and one side of Max and Min are used."""
    expr = expr.expand()
    if expr.is_nonnegative:
        return True
    for addend in expr.args if expr.is_Add else (expr,):
        factor, part = addend.as_coeff_Mul()
        rest = expr - addend
        match type(part).__name__:
            case "floor":
                # x - 1 < floor(x) <= x, and floor(n / d) >= n / d - (d - 1) / d.
                slack = 1 - 1 / part.args[0].as_numer_denom()[1] if factor > 0 else 0
                return is_never_negative(rest + factor * (part.args[0] - slack))
            case "Max" | "Min" as name:
                is_helped = (factor > 0) is (name == "Max")
                proofs = (is_never_negative(rest + factor * arg) for arg in part.args)
                return any(proofs) if is_helped else all(proofs)
    return False


def block_run(term: Term, block_m: int, block_n: int) -> BlockRun:
    """Run of key blocks that a tile visits for one interval.

    Raises:
        NotAnIntervalError: A bound is not monotone in ``q_idx``.
    """
    from sympy import Integer, Max, Min

    n_kv_blocks = symbol("n_kv_blocks")
    start, full_start = Integer(0), Integer(0)
    stop, full_stop = n_kv_blocks, n_kv_blocks
    if term.lows:
        low = Max(*term.lows)
        start = _blocks(_extreme(low, False, block_m), 0, block_m, block_n)
        full_start = _blocks(_extreme(low, True, block_m), block_n - 1, block_m, block_n)
    if term.highs:
        high = Min(*term.highs)
        stop = _blocks(_extreme(high, True, block_m), block_n - 1, block_m, block_n)
        full_stop = _blocks(_extreme(high, False, block_m), 0, block_m, block_n)
    for width in _doubtful_widths(term):
        try:
            greatest = _normalised(_extreme(width, True, block_m), block_m)
        except NotAnIntervalError:
            continue
        stop = Min(stop, n_kv_blocks * clamped_to_bit(greatest))
    final = {
        symbol("q_end"): Min(block_m * symbol("q_block") + block_m, symbol("n_queries")),
        n_kv_blocks: _floor_div(symbol("n_keys") + (block_n - 1), block_n, block_m),
    }
    return BlockRun(*(e.xreplace(final) for e in (start, full_start, full_stop, stop)))


def _doubtful_widths(term: Term) -> Iterable[Sympy]:
    """Widths ``high - low`` that may be zero or less: then the interval is empty."""
    if len(term.highs) * len(term.lows) > _MAX_WIDTHS:
        return  # the bounds stay sound; comparing many of them in sympy takes seconds
    for high, low in product(sorted(term.highs, key=str), sorted(term.lows, key=str)):
        width = (high - low).expand()
        if symbol("n_kv_blocks") not in width.free_symbols and not is_never_negative(width - 1):
            yield width


def _extreme(expr: Sympy, greatest: bool, block_m: int) -> Sympy:
    """Bound of ``expr`` over the queries of a tile, exact where it is monotone.

    ``q_end`` stands for the end of the tile, ``min((q_block + 1) * block_m, n_queries)``.
    """
    q_idx = symbol("q_idx")
    direction = _direction(expr)
    if direction is not None:
        last = (direction > 0) is greatest
        position = symbol("q_end") - 1 if last else block_m * symbol("q_block")
        return expr.xreplace({q_idx: position})
    if type(expr).__name__ in ("Max", "Min"):
        return expr.func(*(_extreme(arg, greatest, block_m) for arg in expr.args))
    raise NotAnIntervalError


def _direction(expr: Sympy) -> int | None:
    """1 if ``expr`` never decreases with ``q_idx``, -1 if it never increases, 0 if constant."""
    q_idx = symbol("q_idx")
    if q_idx not in expr.free_symbols:
        return 0
    if expr == q_idx:
        return 1
    if expr.is_Mul:
        return _direction_of_product(expr)
    if expr.is_Add or type(expr).__name__ in ("Max", "Min", "floor"):
        directions = {_direction(arg) for arg in expr.args} - {0}
        return directions.pop() if len(directions) == 1 else None
    return None


def _direction_of_product(expr: Sympy) -> int | None:
    moving = [arg for arg in expr.args if _direction(arg) != 0]
    if len(moving) != 1:
        return None
    direction = _direction(moving[0])
    others = expr / moving[0]
    if direction is None or not (others.is_nonnegative or others.is_nonpositive):
        return None
    return direction if others.is_nonnegative else -direction


def _blocks(tokens: Sympy, shift: int, block_m: int, block_n: int) -> Sympy:
    """``floor((tokens + shift) / block_n)``, pushed through Max and Min and simplified."""
    return _pushed(_normalised(tokens, block_m), shift, block_m, block_n)


def _pushed(tokens: Sympy, shift: int, block_m: int, block_n: int) -> Sympy:
    if type(tokens).__name__ in ("Max", "Min"):
        return tokens.func(*(_pushed(arg, shift, block_m, block_n) for arg in tokens.args))
    if tokens.is_Add:
        for addend in tokens.args:
            if type(addend).__name__ in ("Max", "Min"):
                rest = tokens - addend
                whole = addend.func(*(arg + rest for arg in addend.args))
                return _pushed(whole, shift, block_m, block_n)
    return _floor_div((tokens + shift).expand(), block_n, block_m)


def _normalised(expr: Sympy, block_m: int) -> Sympy:
    """``expr`` with every floor inside it simplified."""
    if not expr.args:
        return expr
    args = [_normalised(arg, block_m) for arg in expr.args]
    if type(expr).__name__ != "floor":
        return expr.func(*args)
    numerator, divisor = args[0].as_numer_denom()
    return _floor_div(numerator.expand(), int(divisor), block_m)


def _floor_div(numerator: Sympy, divisor: int, block_m: int) -> Sympy:
    """``floor(numerator / divisor)``; multiples of the divisor leave the floor.

    ``floor((g x + c) / (g d)) = floor((x + floor(c / g)) / d)`` for integers x, c.
    """
    from sympy import Add, Integer, floor

    constant, rest = numerator.as_coeff_Add()
    outside: list[Sympy] = []
    inside: list[Sympy] = []
    for addend in Add.make_args(rest):
        factor = addend.as_coeff_Mul()[0]
        (outside if factor % divisor == 0 else inside).append(addend)
    whole = sum((a / divisor for a in outside), Integer(0)) + constant // divisor
    constant = constant % divisor
    if not inside:
        return whole
    common = gcd(divisor, *(int(a.as_coeff_Mul()[0]) for a in inside))
    small, constant = divisor // common, constant // common
    value = sum((a / common for a in inside), Integer(0)) + constant
    if small == 1:
        return whole + value
    if len(inside) == 1 and symbol("q_end") in inside[0].free_symbols:
        replaced = _without_length(inside[0] / common, int(constant), small, block_m)
        if replaced is not None:
            return whole + replaced
    return whole + floor(value / small)


def _without_length(addend: Sympy, constant: int, divisor: int, block_m: int) -> Sympy | None:
    """``floor((addend + constant) / divisor)`` for a multiple of ``q_end``, if ``n_queries`` does
    not matter: the tile's first and last possible ends give the same quotient in every tile.
    """
    q_end, q_block = symbol("q_end"), symbol("q_block")
    factor = addend.coeff(q_end)
    if addend != factor * q_end or not factor.is_Integer or factor <= 0:
        return None
    step = int(factor) * block_m
    period = divisor // gcd(step, divisor)
    if period > _MAX_PERIOD:
        return None
    for tile in range(period):
        first = step * tile + int(factor) + constant
        last = step * (tile + 1) + constant
        if first // divisor != last // divisor:
            return None
    return _floor_div((step * (q_block + 1) + constant).expand(), divisor, block_m)
