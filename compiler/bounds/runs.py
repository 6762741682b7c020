"""Pieces of a mask turned into runs of key blocks for a tile of queries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from math import gcd
from typing import Any

from attnc.bounds.algebra import (
    Sympy,
    clamped_to_bit,
    expanded,
    floored,
    fraction,
    integer,
    is_nonnegative,
    is_nonpositive,
    maximum,
    minimum,
    quotient_parts,
    rebuilt,
    substituted,
)
from attnc.bounds.proofs import is_never_negative
from attnc.bounds.term import NotAnIntervalError, Term, symbol
from attnc.bounds.unions import Piece, slope

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


@dataclass(frozen=True)
class _Span:
    """Queries of a tile: from the greatest of ``firsts`` to the least of ``lasts``."""

    firsts: tuple[Sympy, ...]
    lasts: tuple[Sympy, ...]


def block_runs(
    pieces: Iterable[Piece], assumptions: Iterable[Sympy], block_m: int, block_n: int
) -> tuple[BlockRun, ...]:
    """Runs of key blocks that a tile visits.

    Where an assumption (a number that is 0 or more) does not hold, the first run has all blocks,
    PARTIAL, and the others have none.

    Raises:
        NotAnIntervalError: The extremes of a bound over the queries of a tile are not known.
    """
    n_kv_blocks = symbol("n_kv_blocks")
    final = {
        symbol("q_end"): minimum(block_m * symbol("q_block") + block_m, symbol("n_queries")),
        n_kv_blocks: _floor_div(symbol("n_keys") + (block_n - 1), block_n, block_m),
    }
    holds = minimum(1, *(maximum(0, assumption + 1) for assumption in assumptions))
    runs: list[BlockRun] = []
    pieces = list(pieces)
    if holds != 1 and not pieces:  # nothing is visible, where the assumptions hold
        pieces = [Piece(Term(highs=frozenset({integer(0)})), None)]
    for piece in pieces:
        ends = _run(piece, block_m, block_n)
        if holds != 1:
            start, full_start, full_stop, stop = ends
            missing = integer(0) if runs else n_kv_blocks * (1 - holds)
            stop = minimum(stop, n_kv_blocks) * holds + missing
            full_start = maximum(full_start, n_kv_blocks * (1 - holds))
            full_stop = minimum(full_stop, n_kv_blocks * holds)
            ends = (start if runs else start * holds, full_start, full_stop, stop)
            if piece.inner is None:
                ends = (ends[0], stop, stop, stop)
        runs.append(BlockRun(*(substituted(end, final) for end in ends)))
    return tuple(runs)


def _run(piece: Piece, block_m: int, block_n: int) -> tuple[Sympy, Sympy, Sympy, Sympy]:
    """Start, start and stop of what is FULL, and stop, in blocks."""
    outer, inner = piece.outer, piece.inner
    whole = _span(frozenset(), block_m)
    span = _span(outer.guards, block_m)
    start, stop = integer(0), symbol("n_kv_blocks")
    if outer.lows:
        low = maximum(*outer.lows)
        start = _blocks(_extreme(low, False, span), 0, block_m, block_n)
    if outer.highs:
        high = minimum(*outer.highs)
        stop = _blocks(_extreme(high, True, span), block_n - 1, block_m, block_n)
    for width in (*_doubtful_widths(outer), *_doubtful_guards(outer)):
        try:
            greatest = _normalised(_extreme(width, True, whole), block_m)
        except NotAnIntervalError:
            continue
        stop = minimum(stop, symbol("n_kv_blocks") * clamped_to_bit(greatest))
    if inner is None:
        return start, stop, stop, stop
    full_start, full_stop = integer(0), symbol("n_kv_blocks")
    if inner.lows:
        low = maximum(*inner.lows)
        full_start = _blocks(_extreme(low, True, whole), block_n - 1, block_m, block_n)
    if inner.highs:
        high = minimum(*inner.highs)
        full_stop = _blocks(_extreme(high, False, whole), 0, block_m, block_n)
    for guard in sorted(inner.guards, key=str):
        least = _normalised(_extreme(guard, False, whole), block_m)
        full_stop = minimum(full_stop, symbol("n_kv_blocks") * clamped_to_bit(least + 1))
    return start, full_start, full_stop, stop


def _span(guards: Iterable[Sympy], block_m: int) -> _Span:
    """The queries of a tile for which no guard is negative; ``q_end`` is the end of the tile,
    ``min((q_block + 1) * block_m, n_queries)``."""
    q_idx = symbol("q_idx")
    firsts, lasts = [block_m * symbol("q_block")], [symbol("q_end") - 1]
    for guard in sorted(guards, key=str):
        if slope(guard) == 1:
            firsts.append(q_idx - guard)
        elif slope(guard) == -1:
            lasts.append(guard + q_idx)
    return _Span(tuple(firsts), tuple(lasts))


def _doubtful_widths(term: Term) -> Iterable[Sympy]:
    """Widths ``high - low`` that may be zero or less: then the interval is empty."""
    if len(term.highs) * len(term.lows) > _MAX_WIDTHS:
        return  # the bounds stay sound; comparing many of them in sympy takes seconds
    for high, low in product(sorted(term.highs, key=str), sorted(term.lows, key=str)):
        width = expanded(high - low)
        if symbol("n_kv_blocks") not in width.free_symbols and not is_never_negative(width - 1):
            yield width


def _doubtful_guards(term: Term) -> Iterable[Sympy]:
    """Numbers that are 1 or more where every guard, or both of a pair, hold somewhere."""
    guards = sorted(term.guards, key=str)
    yield from (guard + 1 for guard in guards)
    for number, guard in enumerate(guards):
        for other in guards[:number]:
            if symbol("q_idx") not in (guard + other).free_symbols:
                yield guard + other + 1


def _extreme(expr: Sympy, greatest: bool, span: _Span) -> Sympy:
    """Bound of ``expr`` over queries: attained where it is monotone, else as intervals give it.

    Raises:
        NotAnIntervalError: There is an operator whose bounds are not known.
    """
    from sympy import Mul

    q_idx = symbol("q_idx")
    direction = _direction(expr)
    if direction == 0:
        return expr
    if direction is not None:
        positions = span.lasts if (direction > 0) is greatest else span.firsts
        values = [substituted(expr, {q_idx: position}) for position in positions]
        return (minimum if greatest else maximum)(*values)
    match type(expr).__name__:
        case "Max" | "Min" | "Add":
            return rebuilt(expr, [_extreme(arg, greatest, span) for arg in expr.args])
        case "floor":
            return rebuilt(expr, [_extreme(expr.args[0], greatest, span)])
        case "Mod":
            return _extreme_of_remainder(expr, greatest, span)
        case "Mul":
            moving = [arg for arg in expr.args if q_idx in arg.free_symbols]
            others = Mul(*(arg for arg in expr.args if q_idx not in arg.free_symbols))
            if len(moving) == 1 and (is_nonnegative(others) or is_nonpositive(others)):
                is_same = greatest if is_nonnegative(others) else not greatest
                return others * _extreme(moving[0], is_same, span)
    raise NotAnIntervalError


def _extreme_of_remainder(expr: Sympy, greatest: bool, span: _Span) -> Sympy:
    """Bound of ``dividend % divisor``: that of an end where both have the same quotient."""
    dividend, divisor = expr.args
    first, last = (_extreme(dividend, end, span) for end in (False, True))
    quotients = floored(first, divisor), floored(last, divisor)
    is_one = clamped_to_bit(1 - (quotients[1] - quotients[0]))
    if greatest:
        return is_one * (last - divisor * quotients[1]) + (1 - is_one) * (divisor - 1)
    return is_one * (first - divisor * quotients[0])


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
    if direction is None or not (is_nonnegative(others) or is_nonpositive(others)):
        return None
    return direction if is_nonnegative(others) else -direction


def _blocks(tokens: Sympy, shift: int, block_m: int, block_n: int) -> Sympy:
    """``floor((tokens + shift) / block_n)``, pushed through Max and Min and simplified."""
    return _pushed(_normalised(tokens, block_m), shift, block_m, block_n)


def _pushed(tokens: Sympy, shift: int, block_m: int, block_n: int) -> Sympy:
    if type(tokens).__name__ in ("Max", "Min"):
        return rebuilt(tokens, [_pushed(arg, shift, block_m, block_n) for arg in tokens.args])
    if tokens.is_Add:
        for addend in tokens.args:
            if type(addend).__name__ in ("Max", "Min"):
                rest = tokens - addend
                whole = rebuilt(addend, [arg + rest for arg in addend.args])
                return _pushed(whole, shift, block_m, block_n)
    return _floor_div(tokens + shift, block_n, block_m)


def _normalised(expr: Sympy, block_m: int) -> Sympy:
    """``expr`` with every floor inside it simplified."""
    if not expr.args:
        return expr
    args = [_normalised(arg, block_m) for arg in expr.args]
    if type(expr).__name__ == "Mod":
        dividend, divisor = args
        return dividend - divisor * _floor_div(dividend, int(divisor), block_m)
    if type(expr).__name__ == "floor":
        numerator, divisor = fraction(args[0])
        if divisor.is_Integer:
            return _floor_div(numerator, int(divisor), block_m)
    return rebuilt(expr, args)


def _floor_div(numerator: Sympy, divisor: int, block_m: int) -> Sympy:
    """``floor(numerator / divisor)``, without the number of queries where it does not matter."""
    whole, rest, small = quotient_parts(numerator, divisor)
    if small > 1 and symbol("q_end") in rest.free_symbols:
        constant, addend = rest.as_coeff_Add()
        replaced = _without_length(addend, int(constant), small, block_m)
        if replaced is not None:
            return whole + replaced
    return whole + floored(rest, integer(small))


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
    return _floor_div(step * q_block + step + constant, divisor, block_m)
