"""Loop bounds in closed form: which key blocks a block of queries visits, as sympy expressions.

The mask is solved for ``kv_idx`` (``terms``); each interval ``[low(q), high(q))`` becomes a
run of key blocks by taking the extremes of its bounds over the tile's queries, which lie at the
ends of the tile because bounds are monotone. sympy is imported at the first call, not with the
module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, permutations, product
from typing import Any

from attnc.bounds.printer import print_bound
from attnc.bounds.runs import BlockRun, block_run, is_never_negative
from attnc.bounds.terms import NotAnIntervalError, Sympy, Term, Terms, TermSolver, symbol
from attnc.ir import DType, Expr, Gather, Level, level_of, walk
from attnc.run_table import Kind

__all__ = ["BlockRun", "ClosedForm", "TokenInterval", "print_bound", "solve"]

_MAX_RUNS = 4


@dataclass(frozen=True)
class TokenInterval:
    """Keys that a query may attend to: ``start <= kv_idx < stop``, functions of ``q_idx``."""

    start: Any
    stop: Any


@dataclass(frozen=True)
class ClosedForm:
    """Bounds of all tile rows of a mask.

    ``uniforms``: meaning of ``u0, u1, ...``, integer expressions over ``b, h`` and parameters.
    ``tokens``: the mask itself as a union of intervals of keys, for display.
    """

    runs: tuple[BlockRun, ...]
    uniforms: Mapping[str, Expr]
    tokens: tuple[TokenInterval, ...]
    block_m: int
    block_n: int

    def evaluate(
        self,
        q_block: int,
        n_queries: int,
        n_keys: int,
        params: Sequence[int | float] = (),
        uniforms: Mapping[str, int] | None = None,
    ) -> list[tuple[int, int, Kind]]:
        """Runs (start, stop, kind) of key blocks that a kernel visits for one tile row, in order.

        Args:
            q_block: Number of the block of queries.
            n_queries, n_keys: Lengths, in tokens.
            params: Values of the lifted constants, by number.
            uniforms: Values of ``u0, u1, ...`` for one batch and head.
        """
        names: dict[str, Fraction] = {
            "q_block": Fraction(q_block),
            "n_queries": Fraction(n_queries),
            "n_keys": Fraction(n_keys),
            **{f"p{i}": Fraction(value) for i, value in enumerate(params)},
            **{name: Fraction(value) for name, value in (uniforms or {}).items()},
        }
        n_kv_blocks = -(-n_keys // self.block_n)
        cursor = 0
        visited: list[tuple[int, int, Kind]] = []
        for run in self.runs:
            bounds = (run.start, run.full_start, run.full_stop, run.stop)
            start, full_start, full_stop, stop = (int(_number(e, names)) for e in bounds)
            start, stop = max(start, cursor), min(stop, n_kv_blocks)
            end = max(start, stop)
            full_start = min(max(full_start, start), end)
            full_stop = min(max(full_stop, full_start), end)
            visited += [
                (start, full_start, Kind.PARTIAL),
                (full_start, full_stop, Kind.FULL),
                (full_stop, end, Kind.PARTIAL),
            ]
            cursor = max(cursor, stop)
        return [(first, last, kind) for first, last, kind in visited if first < last]


def _number(expr: Sympy, names: Mapping[str, Fraction]) -> Fraction:
    """Exact value of a bound."""
    if expr.is_Symbol:
        return names[expr.name]
    if expr.is_Rational:
        return Fraction(int(expr.p), int(expr.q))
    values = [_number(arg, names) for arg in expr.args]
    if expr.is_Add:
        return sum(values, Fraction(0))
    if expr.is_Mul:
        product_ = Fraction(1)
        for value in values:
            product_ *= value
        return product_
    match type(expr).__name__:
        case "floor":
            return Fraction(values[0].__floor__())
        case "Max":
            return max(values)
        case "Min":
            return min(values)
        case _:
            raise AssertionError(f"{expr} is no bound")


def solve(mask: Expr, block_m: int, block_n: int) -> ClosedForm | None:
    """Loop bounds of a lifted mask for tiles of ``block_m`` queries and ``block_n`` keys (tokens).

    Every tile with a visible pair is visited, and FULL tiles have only visible pairs, for all
    lengths and parameter values for which integers do not wrap (``intervals.may_wrap``). The
    ragged last key block may be PARTIAL where it is EMPTY or FULL.

    Returns:
        None if the mask is not recognised as a union of at most 4 intervals in provable order.
    """
    assert mask.dtype is DType.BOOL
    if any(isinstance(node, Gather) and level_of(node) is not Level.UNIFORM for node in walk(mask)):
        return None  # no bound is monotone in what a tensor holds; known before sympy is imported
    solver = TermSolver(block_n)
    try:
        found = [_essential(term) for term in solver.terms(mask) if not _is_nothing(term)]
        terms = _in_order(_merged(found))
        runs = tuple(block_run(term, block_m, block_n) for term in terms)
    except NotAnIntervalError:
        return None
    used = {s.name for run in runs for e in vars(run).values() for s in e.free_symbols}
    uniforms = {name: expr for name, expr in solver.uniforms.items() if name in used}
    tokens = tuple(_token_interval(term, block_n) for term in terms)
    return ClosedForm(runs, uniforms, tokens, block_m, block_n)


def _is_nothing(term: Term) -> bool:
    return any((high - low).is_nonpositive for high, low in product(term.highs, term.lows)) or any(
        high.is_nonpositive for high in term.highs
    )


def _essential(term: Term) -> Term:
    """The term without bounds that another bound, or 0, surely implies."""
    lows = {low for low in term.lows if not low.is_nonpositive}
    highs = set(term.highs)
    for x, y in permutations(sorted(lows, key=str), 2):
        if {x, y} <= lows and is_never_negative(y - x):
            lows.discard(x)
    for x, y in permutations(sorted(highs, key=str), 2):
        if {x, y} <= highs and is_never_negative(x - y):
            highs.discard(x)
    return Term(frozenset(lows), frozenset(highs))


def _merged(terms: Terms) -> Terms:
    """The union with terms joined that share an end, or touch or overlap for every ``q_idx``."""
    from sympy import Max, Min

    for x, y in permutations(terms, 2):
        joined = None
        if x.lows == y.lows or _continues(x, y):
            highs = [Min(*x.highs), Min(*y.highs)] if x.highs and y.highs else None
            joined = Term(x.lows, frozenset({Max(*highs)} if highs else ()))
        elif x.highs == y.highs:
            lows = [Max(*x.lows), Max(*y.lows)] if x.lows and y.lows else None
            joined = Term(frozenset({Min(*lows)} if lows else ()), x.highs)
        if joined is not None:
            return _merged([joined, *(t for t in terms if t is not x and t is not y)])
    return terms


def _continues(x: Term, y: Term) -> bool:
    """Whether surely ``x.low <= y.low <= x.high``, so that both are one interval."""
    if not _starts_before(x, y) or not y.lows:
        return False
    return all(is_never_negative(high - low) for high, low in product(x.highs, y.lows))


def _starts_before(x: Term, y: Term) -> bool:
    """Whether surely ``x.low <= y.low``."""
    return all(any(is_never_negative(b - a) for b in y.lows) for a in x.lows)


def _in_order(terms: Terms) -> Terms:
    if len(terms) > _MAX_RUNS:
        raise NotAnIntervalError
    for order in permutations(terms):
        if all(_starts_before(x, y) for x, y in pairwise(order)):
            return list(order)
    raise NotAnIntervalError


def _token_interval(term: Term, block_n: int) -> TokenInterval:
    from sympy import Max, Min

    # block_n * n_kv_blocks is how "all keys" is written inside; for display it is n_keys.
    shown = {symbol("n_kv_blocks"): symbol("n_keys") / block_n}
    highs = [high.xreplace(shown) for high in term.highs]
    return TokenInterval(Max(0, *term.lows), Min(symbol("n_keys"), *highs))
