"""Proofs that a bound is never negative, and the budget of steps for solving one mask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from attnc.bounds.algebra import Sympy, expanded, fraction, is_nonnegative

_MAX_STEPS = 600
_MAX_DEPTH = 12


class OutOfStepsError(Exception):
    """A mask needs far more steps than sensible ones: those that have a closed form take tens."""


@dataclass
class _Budget:
    """Steps are counted, not seconds, so that a mask has a closed form or not on any machine."""

    steps_left: int = _MAX_STEPS
    proved: dict[Sympy, bool] = field(default_factory=dict)


_budget: ContextVar[_Budget] = ContextVar("budget")


@contextmanager
def limited_steps() -> Iterator[None]:
    """Comparisons solved and proofs tried within it share one budget.

    Raises:
        OutOfStepsError: From the step within that is beyond it.
    """
    token = _budget.set(_Budget())
    try:
        yield
    finally:
        _budget.reset(token)


def take_step() -> None:
    """Counts one proof tried or one comparison solved."""
    budget = _budget.get()
    budget.steps_left -= 1
    if budget.steps_left < 0:
        raise OutOfStepsError


def is_never_negative(expr: Sympy, depth: int = 0) -> bool:
    """Whether ``expr >= 0`` can be proved; bounds of floor and one side of Max and Min are used."""
    budget = _budget.get()
    known = budget.proved.get(expr)
    if known is None:
        take_step()
        known = budget.proved[expr] = depth < _MAX_DEPTH and _is_proved(expanded(expr), depth + 1)
    return known


def _is_proved(expr: Sympy, depth: int) -> bool:
    if is_nonnegative(expr):
        return True
    for addend in expr.args if expr.is_Add else (expr,):
        factor, part = addend.as_coeff_Mul()
        rest = expr - addend
        match type(part).__name__:
            case "floor":
                # x - 1 < floor(x) <= x, and floor(n / d) >= n / d - (d - 1) / d.
                inner = part.args[0]
                slack = 1 - 1 / fraction(inner)[1] if factor > 0 else 0
                return is_never_negative(rest + factor * (inner - slack), depth)
            case "Mod":
                end = 0 if factor > 0 else part.args[1] - 1
                return is_never_negative(rest + factor * end, depth)
            case "Max" | "Min" as name:
                is_helped = (factor > 0) is (name == "Max")
                proofs = (is_never_negative(rest + factor * arg, depth) for arg in part.args)
                return any(proofs) if is_helped else all(proofs)
    return False
