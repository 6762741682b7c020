"""Linear forms over integers, and whether inequalities between them contradict each other."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import gcd

Atom = Hashable

# Elimination may square the number of inequalities; beyond so many it gives up.
_MAX_ROWS = 160


@dataclass(frozen=True)
class Linear:
    """``constant`` plus the sum of ``factor * atom``; no factor is 0."""

    factors: frozenset[tuple[Atom, int]]
    constant: int = 0

    @staticmethod
    def of(factors: Mapping[Atom, int], constant: int = 0) -> Linear:
        return Linear(frozenset((a, f) for a, f in factors.items() if f), constant)

    @staticmethod
    def atom(atom: Atom) -> Linear:
        return Linear(frozenset({(atom, 1)}))

    def plus(self, other: Linear, times: int = 1) -> Linear:
        factors = dict(self.factors)
        for atom, factor in other.factors:
            factors[atom] = factors.get(atom, 0) + times * factor
        return Linear.of(factors, self.constant + times * other.constant)

    def shifted(self, constant: int) -> Linear:
        return Linear(self.factors, self.constant + constant)

    def times(self, factor: int) -> Linear:
        return Linear.of({a: f * factor for a, f in self.factors}, self.constant * factor)


def contradict(at_least_0: Iterable[Linear], equal_0: Iterable[Linear] = ()) -> bool:
    """Whether no integers make each of ``at_least_0`` >= 0 and each of ``equal_0`` == 0.

    True is a proof; False says nothing. Equations are solved where a factor is 1 or -1, the rest
    is Fourier-Motzkin elimination with bounds rounded to integers (Schrijver, Theory of Linear
    and Integer Programming, 12.2).
    """
    rows, equations = list(at_least_0), list(equal_0)
    while equations:
        equation = equations.pop()
        factors = dict(equation.factors)
        divisor = reduce(gcd, factors.values(), 0)
        if equation.constant % divisor if divisor else equation.constant:
            return True
        if not divisor:
            continue
        equation = Linear.of(
            {a: f // divisor for a, f in factors.items()}, equation.constant // divisor
        )
        unit = next((a for a, f in equation.factors if abs(f) == 1), None)
        if unit is None:
            rows += [equation, equation.times(-1)]
            continue
        rows = [_without(unit, row, equation) for row in rows]
        equations = [_without(unit, other, equation) for other in equations]
    return _is_infeasible(rows)


def _without(atom: Atom, row: Linear, equation: Linear) -> Linear:
    """``row`` with ``atom``, whose factor in ``equation`` is 1 or -1, replaced by what that says."""
    factor, unit = dict(row.factors).get(atom, 0), dict(equation.factors)[atom]
    return row.plus(equation, -factor * unit) if factor else row


def _is_infeasible(inequalities: Sequence[Linear]) -> bool:
    rows = _tightened(inequalities)
    while rows is not None:
        signs: dict[Atom, tuple[int, int]] = {}
        for factors in rows:
            for atom, factor in factors:
                above, below = signs.get(atom, (0, 0))
                signs[atom] = (above + (factor > 0), below + (factor < 0))
        if not signs:
            return False
        atom = min(signs, key=lambda a: signs[a][0] * signs[a][1])
        rows = _eliminated(atom, rows)
        if rows is not None and len(rows) > _MAX_ROWS:
            return False
    return True


_Rows = dict[frozenset[tuple[Atom, int]], int]


def _eliminated(atom: Atom, rows: _Rows) -> _Rows | None:
    """What follows for the other atoms; None for a contradiction."""
    above: list[tuple[int, Linear]] = []
    below: list[tuple[int, Linear]] = []
    others: list[Linear] = []
    for factors, constant in rows.items():
        factor = dict(factors).get(atom, 0)
        row = Linear(factors, constant)
        if factor:
            (above if factor > 0 else below).append((abs(factor), row))
        else:
            others.append(row)
    if len(above) * len(below) + len(others) > 4 * _MAX_ROWS:
        return {}
    for up, low_row in above:
        for down, high_row in below:
            others.append(low_row.times(down).plus(high_row, up))
    return _tightened(others)


def _tightened(inequalities: Iterable[Linear]) -> _Rows | None:
    """The strongest constant for each left side, rounded to integers; None for a contradiction."""
    rows: _Rows = {}
    for row in inequalities:
        if not row.factors:
            if row.constant < 0:
                return None
            continue
        divisor = reduce(gcd, (factor for _, factor in row.factors))
        constant = row.constant
        factors = row.factors
        if divisor > 1:
            factors = frozenset((atom, factor // divisor) for atom, factor in factors)
            constant //= divisor
        rows[factors] = min(rows.get(factors, constant), constant)
    return rows
