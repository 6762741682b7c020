"""Unions of intervals of kv_idx whose ends are functions of q_idx, and their algebra."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import lcm

from attnc.bounds.algebra import Sympy, floored, integer, is_nonpositive

_MAX_TERMS = 10


class NotAnIntervalError(Exception):
    """The predicate is no union of few intervals that this package can find."""


@dataclass(frozen=True)
class Term:
    """``kv_idx`` with ``low <= kv_idx`` for all lows and ``kv_idx < high`` for all highs, for
    queries for which all ``guards >= 0``.

    Attributes:
        period: 0 if these are the visible keys; else they contain them, and which of them are
            visible repeats every ``period`` keys.
        residue: If not None, the visible keys are those that equal it modulo ``period``.
    """

    lows: frozenset[Sympy] = frozenset()
    highs: frozenset[Sympy] = frozenset()
    guards: frozenset[Sympy] = frozenset()
    period: int = 0
    residue: Sympy | None = None

    def __and__(self, other: Term) -> Term:
        one = self if self.period else other
        is_alone = not (self.period and other.period) or self == other
        return Term(
            self.lows | other.lows,
            self.highs | other.highs,
            self.guards | other.guards,
            lcm(self.period or 1, other.period or 1) if one.period else 0,
            one.residue if is_alone else None,
        )

    def contains(self, other: Term) -> bool:
        """Whether the interval of ``other`` visibly lies in this one."""
        return self.lows <= other.lows and self.highs <= other.highs and self.guards <= other.guards

    @property
    def is_nothing(self) -> bool:
        """Whether surely no key is visible to any query."""
        if any(is_nonpositive(high) for high in self.highs):
            return True
        if any(is_nonpositive(high - low) for high, low in product(self.highs, self.lows)):
            return True
        sums = (x + y for x, y in product(self.guards, repeat=2))
        return any(is_nonpositive(guard + 1) for guard in sums)

    @property
    def at_residue(self) -> Term:
        """The same keys, with ends on visible ones where a residue is known."""
        if self.residue is None or self.period < 2:
            return self
        e, m = self.residue, integer(self.period)
        return replace(
            self,
            lows=frozenset(e - m * floored(e - low, m) for low in self.lows),
            highs=frozenset(e + m * floored(high - 1 - e, m) + 1 for high in self.highs),
        )


Terms = list[Term]
EVERYTHING = Term()
#: How the names of positive uniform values end.
DIVISOR = "_divisor"


def symbol(name: str) -> Sympy:
    """The sympy symbol of a run-time integer: lengths and positions are not negative."""
    from sympy import Symbol

    if name in ("q_idx", "q_block", "n_queries", "n_keys", "n_kv_blocks"):
        return Symbol(name, integer=True, nonnegative=True)
    if name == "q_end" or name.endswith(DIVISOR):
        return Symbol(name, integer=True, positive=True)
    return Symbol(name, integer=True)


def either(x: Terms, y: Terms) -> Terms:
    """The union.

    Raises:
        NotAnIntervalError: It has too many terms.
    """
    result: Terms = []
    for term in (term for term in dict.fromkeys([*x, *y]) if not term.is_nothing):
        if not any(_absorbs(other, term) for other in result):  # two may absorb each other
            result = [*(other for other in result if not _absorbs(term, other)), term]
    if len(result) > _MAX_TERMS:
        raise NotAnIntervalError
    return result


def _absorbs(x: Term, y: Term) -> bool:
    if x is y or not x.contains(y):
        return False
    if x.period == 0:
        return True
    # A term with a period does not tell where all keys are visible, nor others than its residue.
    same_keys = x.residue is None or (x.residue, x.period) == (y.residue, y.period)
    return y.period > 0 and same_keys


def both(x: Terms, y: Terms, block_n: int) -> Terms:
    """The intersection.

    Raises:
        NotAnIntervalError: It has too many terms, or a tile of ``block_n`` keys is shorter than
            the period of its keys.
    """
    if len(x) * len(y) > _MAX_TERMS**2:
        raise NotAnIntervalError
    met = either([a & b for a, b in product(x, y)], [])
    if any(term.period > block_n for term in met):
        raise NotAnIntervalError
    return met
