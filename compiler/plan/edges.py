"""What is left of a mask in the parts of a run of tiles: conditions that hold there vanish.

Of causal and window, the tiles before the FULL ones only need the window, those behind them only
the diagonal. The bounds of each condition alone say so: from its first FULL tile on, or up to its
last one, it is true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import TYPE_CHECKING, Any

from attnc.conjunction import conjuncts
from attnc.ir import (
    TRUE,
    Binary,
    BinaryOp,
    Compare,
    CompareOp,
    DType,
    Expr,
    Unary,
    UnaryOp,
)

if TYPE_CHECKING:
    from attnc.bounds import BlockRun, ClosedForm

_MAX_CONDITIONS = 6


@dataclass(frozen=True)
class Edges:
    """What to check in the last run of a closed form, whose tiles fall into parts.

    Attributes:
        low: In tiles before ``high_start``, where upper limits hold; None for the whole mask.
        high: In tiles from ``low_stop`` on, where lower limits hold; None for the whole mask.
        middle: Where both hold; None if nothing is left, so that those tiles are FULL. If
            something is, then the other parts check the whole mask: a limit less saves little.
        low_stop, high_start: Where lower limits begin to hold and upper ones cease to, in tiles:
            sympy expressions like those of the closed form; None without such limits.
        terms: Conditions whose conjunction is the mask in the last run, and where they are to be
            checked: "low" ones before low_stop, "high" ones from high_start on, "" everywhere.
    """

    low: Expr | None
    high: Expr | None
    middle: Expr | None
    low_stop: Any
    high_start: Any
    terms: tuple[tuple[str, Expr], ...]


def edges_of(mask: Expr, closed_form: ClosedForm) -> Edges | None:
    """What is left of ``mask`` in parts of the last run; None if no part needs less than the whole.

    Args:
        mask: The predicate that ``closed_form`` was solved from.
        closed_form: Its bounds; they are used only where no integer wraps around.
    """
    if not closed_form.runs or not closed_form.is_ordered:
        return None
    *earlier, last = closed_form.runs
    remaining = _in_last_run(mask, earlier, last, closed_form)
    if remaining is None:
        return None
    parts: dict[str, list[Expr]] = {"low": [], "high": [], "": []}
    for condition in remaining:
        halves = _halves(condition)
        sides = [_side(half, closed_form) for half in halves]
        if "" in sides:
            parts[""].append(condition)
            continue
        for side, half in zip(sides, halves, strict=True):
            parts[side].append(half)
    lows, highs, others = parts["low"], parts["high"], parts[""]
    if sum(1 for part in (lows, highs, others) if part) < 2:
        return None
    low, high = (_solved_alone(_all(part), closed_form) if part else None for part in (lows, highs))
    if (lows and low is None) or (highs and high is None):
        return None
    if others:
        # Then the middle is PARTIAL, and tiles that are FULL must stay so.
        is_possible = last.full_start == last.full_stop
    else:
        assert low is not None
        assert high is not None
        full = (last.full_start, last.full_stop)
        is_possible = (low.full_start, high.full_stop) == full
    if not is_possible:
        return None
    return Edges(
        low=None if others else _all(lows),
        high=None if others else _all(highs),
        middle=_all(others) if others else None,
        low_stop=None if low is None else low.full_start,
        high_start=None if high is None else high.full_stop,
        terms=tuple((side, _all(part)) for side, part in parts.items() if part),
    )


def _in_last_run(
    mask: Expr, earlier: Sequence[BlockRun], last: BlockRun, closed_form: ClosedForm
) -> list[Expr] | None:
    """Conditions that together are the mask in tiles behind all earlier runs."""
    if not earlier:
        conditions = list(conjuncts(mask))
        return conditions if len(conditions) <= _MAX_CONDITIONS else None
    found: dict[BlockRun, list[Expr]] = {}
    for conditions in _disjuncts(mask):
        run = _solved_alone(_all(conditions), closed_form)
        if run is None or run in found:
            return None
        found[run] = conditions
    # Behind an earlier run, nothing is left of what it is the run of.
    return found.get(last) if set(found) == {*earlier, last} else None


def _side(condition: Expr, closed_form: ClosedForm) -> str:
    """Whether a condition is true from some tile on ("low"), up to some tile ("high"), or ""."""
    run, whole = _solved_alone(condition, closed_form), _solved_alone(TRUE, closed_form)
    if run is None or whole is None or run.full_start == run.full_stop:
        return ""
    if (run.full_stop, run.stop) == (whole.full_stop, whole.stop):
        return "low"
    return "high" if (run.start, run.full_start) == (whole.start, whole.full_start) else ""


def _solved_alone(mask: Expr, closed_form: ClosedForm) -> BlockRun | None:
    """The single run of ``mask``, in the names that ``closed_form`` has for uniform values."""
    from attnc.bounds import BlockRun, solve
    from attnc.bounds.algebra import substituted
    from attnc.bounds.term import symbol

    alone = solve(mask, closed_form.block_m, closed_form.block_n)
    if alone is None or len(alone.runs) != 1:
        return None
    names = {expr: name for name, expr in closed_form.uniforms.items()}
    if not set(alone.uniforms.values()) <= set(names):
        return None
    renamed: dict[Any, Any] = {
        symbol(name): symbol(names[expr]) for name, expr in alone.uniforms.items()
    }
    (run,) = alone.runs
    ends = (run.start, run.full_start, run.full_stop, run.stop)
    return BlockRun(*(substituted(end, renamed) for end in ends))


def _halves(condition: Expr) -> tuple[Expr, ...]:
    """The comparisons that ``abs(x) < radius`` stands for; else the condition itself."""
    match condition:
        case Compare(CompareOp.LT | CompareOp.LE as op, Unary(UnaryOp.ABS, x), radius):
            flipped = CompareOp.GT if op is CompareOp.LT else CompareOp.GE
            return Compare(op, x, radius), Compare(flipped, x, Unary(UnaryOp.NEG, radius))
        case _:
            return (condition,)


def _disjuncts(mask: Expr) -> list[list[Expr]]:
    """Lists of conditions: ``mask`` is where all of one of them hold; [] if there are too many."""
    match mask:
        case Binary(BinaryOp.OR, x, y) if mask.dtype is DType.BOOL:
            found = [*_disjuncts(x), *_disjuncts(y)]
        case Binary(BinaryOp.AND, x, y) if mask.dtype is DType.BOOL:
            found = [[*a, *b] for a, b in product(_disjuncts(x), _disjuncts(y))]
        case _:
            found = [[mask]]
    return found if sum(len(conditions) for conditions in found) <= 2 * _MAX_CONDITIONS else []


def _all(conditions: Sequence[Expr]) -> Expr:
    return reduce(lambda x, y: Binary(BinaryOp.AND, x, y), conditions)
