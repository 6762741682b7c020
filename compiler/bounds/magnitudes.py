"""How large bounds become in 64-bit integers, and where clamped numbers may stand for others.

A captured integer of 64 bits is clamped to what no position reaches (``Values.uniform``). That
changes no bound that it is alone in, as ``q_idx - u0``: both are beyond all keys, on one side. It
does change ``(q_idx + u0) % 8`` and ``u0 - u1``.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import product

from attnc.bounds.algebra import Sympy, fraction

GREATEST_POSITION = 2**31
#: What captured integers of 64 bits are clamped to.
BEYOND = 2**52
LARGEST = 2**63 - 1

_MAX_DIVISOR = 2**20  # what is beyond all positions still is after it


def magnitude(expr: Sympy, clamped: Collection[Sympy] = ()) -> int:
    """What no number exceeds in size that computing ``expr`` meets, if symbols are 32 bits wide
    but those ``clamped``."""
    return _range(expr, clamped)[2]


def _range(expr: Sympy, clamped: Collection[Sympy]) -> tuple[int, int, int]:
    """The least and the greatest value of an integer, and the largest size met on the way."""
    if expr.is_Integer:
        return int(expr), int(expr), abs(int(expr))
    if expr.is_Symbol:
        size = BEYOND if expr in clamped else GREATEST_POSITION
        return 0 if expr.is_nonnegative else -size, size, size
    name = type(expr).__name__
    if name == "floor":
        numerator, divisor = fraction(expr.args[0])
        first, last, met = _range(numerator, clamped)
        if divisor.is_Integer:
            return first // int(divisor), last // int(divisor), met
        return min(first, 0), max(last, 0), met
    parts = [_range(arg, clamped) for arg in expr.args]
    firsts, lasts = [part[0] for part in parts], [part[1] for part in parts]
    match name:
        case "Add":
            first, last = sum(firsts), sum(lasts)
        case "Mul":
            first = last = 1
            for part in parts:
                corners = [x * y for x, y in product((first, last), part[:2])]
                first, last = min(corners), max(corners)
        case "Max":
            first, last = max(firsts), max(lasts)
        case "Min":
            first, last = min(firsts), min(lasts)
        case "Mod":
            first, last = 0, lasts[1]
        case _:
            raise AssertionError(f"{expr} is no bound")
    return first, last, max(abs(first), abs(last), *(part[2] for part in parts))


def is_unchanged(expr: Sympy, clamped: Collection[Sympy]) -> bool:
    """Whether clamping symbols changes a bound only to one that is beyond all positions too."""
    if expr in clamped or not any(symbol in clamped for symbol in expr.free_symbols):
        return True
    if type(expr).__name__ == "floor":
        numerator, divisor = fraction(expr.args[0])
        is_short = divisor.is_Integer and divisor <= _MAX_DIVISOR
        return bool(is_short) and is_unchanged(numerator, clamped)
    moved = [arg for arg in expr.args if not _is_exact(arg, clamped)]
    others = [arg for arg in expr.args if arg not in moved]
    if not all(is_unchanged(arg, clamped) for arg in moved):
        return False
    match type(expr).__name__:
        case "Max" | "Min":
            return True
        case "Add":
            return len(moved) < 2 and sum(magnitude(arg) for arg in others) < BEYOND // 4
        case "Mul":
            return not moved or (len(moved) == 1 and all(arg.is_Integer for arg in others))
        case _:
            return not moved


def _is_exact(expr: Sympy, clamped: Collection[Sympy]) -> bool:
    """Whether clamping symbols does not change a bound."""
    if not any(symbol in clamped for symbol in expr.free_symbols):
        return True
    if type(expr).__name__ in ("Max", "Min") and is_unchanged(expr, clamped):
        first, last, _ = _range(expr, clamped)
        if max(-first, last) <= GREATEST_POSITION:
            return True  # what is beyond all positions has no say in it
    return bool(expr.args) and all(_is_exact(arg, clamped) for arg in expr.args)
