"""From a predicate and one tile to the terms that decide it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from attnc.analysis.formula import Formula, Join, conditions_of, formula_of, smallest_cover
from attnc.analysis.tile import Cases, Tile, ValueRange
from attnc.analysis.why import Pair, Term, Why
from attnc.intervals import Truth
from attnc.ir import Compare, CompareOp, Const, Expr
from attnc.printer import format_expr
from attnc.run_table import Kind
from attnc.trace import Location

_MAX_TEXT = 100
_SLOT = re.compile(r"\bt(\d+)(?=\[)")


class Predicate:
    """What is to be explained, taken apart once for all tiles.

    ``expr``: as traced. ``locations``: the user's lines. ``names``: of captured tensors, by slot.
    """

    def __init__(
        self, expr: Expr, locations: Mapping[Expr, Location], names: Mapping[int, str]
    ) -> None:
        self.locations = locations
        self.formula = formula_of(expr)
        self.conditions = conditions_of(self.formula)
        self._names = names
        self._texts: dict[Expr, str] = {}
        self._covers: dict[tuple[tuple[int, ...], bytes], tuple[int, ...]] = {}

    def text(self, expr: Expr) -> str:
        """As Python writes it, with captured tensors by their names."""
        if expr not in self._texts:
            self._texts[expr] = _SLOT.sub(
                lambda found: self._names.get(int(found[1]), found[0]),
                format_expr(expr, max_length=_MAX_TEXT),
            )
        return self._texts[expr]

    def cover(self, covers: NDArray[np.bool_]) -> tuple[int, ...]:
        """``smallest_cover``, remembered: most tiles have what others have."""
        key = covers.shape, covers.tobytes()
        if key not in self._covers:
            self._covers[key] = tuple(smallest_cover(covers))
        return self._covers[key]


def why_of(
    predicate: Predicate,
    tile: Tile,
    q_block: int,
    kv_block: int,
    kind: Kind,
    *,
    is_given: bool,
) -> Why:
    """Why ``tile`` is of ``kind`` under ``predicate``, found at every pair of it."""
    formula, conditions = predicate.formula, predicate.conditions
    cases = tile.cases([condition.expr for condition in conditions])
    values = {condition.expr: cases.values[:, n] for n, condition in enumerate(conditions)}
    explained = _Explained(tile, cases, values, predicate)
    term = explained.term(formula)
    deciding = {condition.expr for condition in term.conditions()}
    others = tuple(explained.condition(c) for c in conditions if c.expr not in deciding)
    n_visible = int(cases.counts[explained.value(formula)].sum())
    visible, hidden = term.visible, term.hidden
    first = (tile.queries.start, tile.keys.start)
    if is_given and kind is Kind.EMPTY:
        n_visible, visible, hidden = 0, None, first
    elif is_given and kind is Kind.FULL:
        n_visible, visible, hidden = tile.n_pairs, first, None
    return Why(
        q_block=q_block,
        kv_block=kv_block,
        b=tile.b,
        h=tile.h,
        queries=tile.queries,
        keys=tile.keys,
        kind=kind,
        term=term,
        others=others,
        n_visible=n_visible,
        visible=visible,
        hidden=hidden,
        is_given=is_given,
    )


class _Explained:
    """Terms of one tile, each made once."""

    def __init__(
        self,
        tile: Tile,
        cases: Cases,
        conditions: Mapping[Expr, NDArray[np.bool_]],
        predicate: Predicate,
    ) -> None:
        self.tile = tile
        self.cases = cases
        self.predicate = predicate
        self.conditions = conditions
        self._values: dict[int, NDArray[np.bool_]] = {}
        self._terms: dict[int, Term] = {}

    def value(self, formula: Formula) -> NDArray[np.bool_]:
        """Of a term in each case: (n_cases,)."""
        if formula.join is None:
            return self.conditions[formula.expr]  # two formulas may be one condition
        if id(formula) not in self._values:
            parts = np.array([self.value(part) for part in formula.parts])
            join = np.logical_and if formula.join is Join.ALL else np.logical_or
            self._values[id(formula)] = join.reduce(parts)
        return self._values[id(formula)]

    def term(self, formula: Formula) -> Term:
        """``formula`` with the terms that decide it; where one alone does, that one."""
        if id(formula) not in self._terms:
            self._terms[id(formula)] = self._made(formula)
        return self._terms[id(formula)]

    def _made(self, formula: Formula) -> Term:
        if formula.join is None:
            return self.condition(formula)
        deciding = self._deciding(formula)
        if len(deciding) == 1:
            return self.term(deciding[0])
        parts = tuple(self.term(part) for part in deciding)
        return replace(self._bare(formula), join=formula.join, parts=parts)

    def _deciding(self, formula: Formula) -> tuple[Formula, ...]:
        value = self.value(formula)
        # A part decides where it is false for "all of", where it is true for "any of".
        decides = formula.join is Join.ANY
        cases = value == decides
        if not cases.any():
            return formula.parts
        covers = np.array([self.value(part)[cases] == decides for part in formula.parts])
        return tuple(formula.parts[number] for number in self.predicate.cover(covers))

    def condition(self, formula: Formula) -> Term:
        """A condition with the ranges of its operands."""
        bare = self._bare(formula)
        ranges, follows = self._evidence(formula.expr, bare.truth)
        return replace(bare, ranges=ranges, follows=follows)

    def _bare(self, formula: Formula) -> Term:
        value = self.value(formula)
        truth = Truth.ALWAYS if value.all() else Truth.MAYBE if value.any() else Truth.NEVER
        return Term(
            text=self._text(formula.expr),
            truth=truth,
            location=self.predicate.locations.get(formula.source),
            ranges=(),
            follows=False,
            visible=self._first(value),
            hidden=self._first(~value),
            join=None,
            parts=(),
            expr=formula.expr,
        )

    def _first(self, cases: NDArray[np.bool_]) -> Pair | None:
        if not cases.any():
            return None
        q_idx, kv_idx = self.cases.places[int(cases.argmax())].tolist()
        return q_idx, kv_idx

    def _evidence(self, expr: Expr, truth: Truth) -> tuple[tuple[ValueRange, ...], bool]:
        """Ranges that show ``truth``, if any do; else those of the operands."""
        if isinstance(expr, Const):
            return (), True
        if not isinstance(expr, Compare):
            return (), False
        op, lhs, rhs = expr.op, expr.lhs, expr.rhs
        both = [self.tile.range_of(side, self._text(side)) for side in (lhs, rhs)]
        shown = tuple(
            found
            for side, found in zip((lhs, rhs), both, strict=True)
            if not isinstance(side, Const)
        )
        if truth is Truth.MAYBE:
            return shown, False
        if truth_of_ranges(op, *both) is truth:
            return shown, True
        if lhs.dtype.is_int:
            text = self._text(lhs) + " - " + self._text(rhs, in_parentheses=bool(rhs.children))
            difference = self.tile.range_of_difference(lhs, rhs, text)
            if truth_of_ranges(op, difference, ValueRange("0", 0, 0)) is truth:
                return (difference,), True
        return shown, False

    def _text(self, expr: Expr, *, in_parentheses: bool = False) -> str:
        text = self.predicate.text(expr)
        return f"({text})" if in_parentheses else text


def truth_of_ranges(op: CompareOp, lhs: ValueRange, rhs: ValueRange) -> Truth:
    """What two ranges tell about a comparison; MAYBE where they leave it open."""
    if lhs.may_nan or rhs.may_nan or lhs.least is None or rhs.least is None:
        return Truth.MAYBE
    assert lhs.greatest is not None
    assert rhs.greatest is not None
    below, not_above = lhs.greatest < rhs.least, lhs.greatest <= rhs.least
    above, not_below = lhs.least > rhs.greatest, lhs.least >= rhs.greatest
    always, never = {
        CompareOp.LT: (below, not_below),
        CompareOp.LE: (not_above, above),
        CompareOp.GT: (above, not_above),
        CompareOp.GE: (not_below, below),
        CompareOp.EQ: (not_above and not_below, below or above),
        CompareOp.NE: (below or above, not_above and not_below),
    }[op]
    return Truth.ALWAYS if always else Truth.NEVER if never else Truth.MAYBE
