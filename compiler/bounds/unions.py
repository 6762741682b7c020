"""The terms of a mask as few pieces: joined where they touch, and put in order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise, permutations, product

from attnc.bounds.algebra import Sympy, clamped_to_bit, is_nonpositive, maximum, minimum
from attnc.bounds.proofs import is_never_negative
from attnc.bounds.term import NotAnIntervalError, Term, Terms, symbol

MAX_PIECES = 4


@dataclass(frozen=True)
class Piece:
    """An interval of keys that may be visible, and one in it of keys that all are, or None."""

    outer: Term
    inner: Term | None


def pieces_of(terms: Terms, block_n: int) -> list[Piece]:
    """The union of ``terms``.

    Raises:
        NotAnIntervalError: It needs more than 4 pieces.
    """
    terms = [_folded(term.at_residue, block_n) for term in terms]
    terms = _without_enclosed([_essential(term) for term in terms if not term.is_nothing])
    pieces = _nested(_merged(terms))
    if len(pieces) > MAX_PIECES:
        raise NotAnIntervalError
    return _in_order(pieces)


def is_surely_ordered(pieces: list[Piece]) -> bool:
    """Whether every piece surely starts no earlier than the one before it, in each tile."""
    # A guard that narrows the queries moves the start.
    has_guards = any(piece.outer.guards for piece in pieces)
    pairs = pairwise(piece.outer for piece in pieces)
    return len(pieces) < 2 or (not has_guards and all(_starts_before(x, y) for x, y in pairs))


def _folded(term: Term, block_n: int) -> Term:
    """The term with guards made bounds, but where they say in which part of a tile bounds count."""
    q_idx = symbol("q_idx")
    is_moving = any(q_idx in bound.free_symbols for bound in (*term.lows, *term.highs))
    kept = {guard for guard in term.guards if is_moving and slope(guard)}
    whole = block_n * symbol("n_kv_blocks")
    highs = (whole * clamped_to_bit(guard + 1) for guard in term.guards - kept)
    return replace(term, highs=term.highs.union(highs), guards=frozenset(kept))


def slope(guard: Sympy) -> int:
    """1 or -1 if that is the factor of ``q_idx`` in a sum, else 0."""
    q_idx = symbol("q_idx")
    factor = guard.coeff(q_idx)
    rest = guard - factor * q_idx
    return int(factor) if factor in (1, -1) and q_idx not in rest.free_symbols else 0


def _essential(term: Term) -> Term:
    """The term without bounds that another bound, or 0, surely implies."""
    lows = {low for low in term.lows if not is_nonpositive(low)}
    highs = set(term.highs)
    for x, y in permutations(sorted(lows, key=str), 2):
        if {x, y} <= lows and is_never_negative(y - x):
            lows.discard(x)
    for x, y in permutations(sorted(highs, key=str), 2):
        if {x, y} <= highs and is_never_negative(x - y):
            highs.discard(x)
    return replace(term, lows=frozenset(lows), highs=frozenset(highs))


def _without_enclosed(terms: Terms) -> Terms:
    """The union without terms that surely lie in another one."""
    kept = list(terms)
    for x, y in permutations(terms, 2):
        if x in kept and y in kept and not x.period and _encloses(x, y):
            kept.remove(y)
    return kept


def _merged(terms: Terms) -> Terms:
    """The union with terms joined that share an end, or touch or overlap for every ``q_idx``."""
    for x, y in permutations(terms, 2):
        joined = None
        if x.guards != y.guards or x.period or y.period:
            continue
        if x.lows == y.lows or _continues(x, y):
            highs = [minimum(*x.highs), minimum(*y.highs)] if x.highs and y.highs else None
            joined = Term(x.lows, frozenset({maximum(*highs)} if highs else ()), x.guards)
        elif x.highs == y.highs:
            lows = [maximum(*x.lows), maximum(*y.lows)] if x.lows and y.lows else None
            joined = Term(frozenset({minimum(*lows)} if lows else ()), x.highs, x.guards)
        if joined is not None:
            return _merged([joined, *(t for t in terms if t is not x and t is not y)])
    return terms


def _nested(terms: Terms) -> list[Piece]:
    """A piece for each term; one that lies in a term with a period is that piece's inner part."""
    exact = [term for term in terms if not term.period]
    pieces: list[Piece] = []
    for outer in (term for term in terms if term.period):
        inner = next((term for term in exact if _encloses(outer, term)), None)
        if inner is not None:
            exact.remove(inner)
        pieces.append(Piece(outer, inner))
    # Where pieces start together the first decides, so those that are FULL somewhere come first.
    return [*(Piece(term, term) for term in exact), *pieces]


def _encloses(outer: Term, inner: Term) -> bool:
    """Whether the interval of ``inner`` surely lies in that of ``outer``."""
    return (
        outer.guards <= inner.guards
        and _starts_before(outer, inner)
        and all(any(is_never_negative(b - a) for a in inner.highs) for b in outer.highs)
    )


def _continues(x: Term, y: Term) -> bool:
    """Whether surely ``x.low <= y.low <= x.high``, so that both are one interval."""
    if not _starts_before(x, y) or not y.lows:
        return False
    return all(is_never_negative(high - low) for high, low in product(x.highs, y.lows))


def _starts_before(x: Term, y: Term) -> bool:
    """Whether surely ``x.low <= y.low``."""
    return all(any(is_never_negative(b - a) for b in y.lows) for a in x.lows)


def _in_order(pieces: list[Piece]) -> list[Piece]:
    for order in permutations(pieces):
        if is_surely_ordered(list(order)):
            return list(order)
    return pieces
