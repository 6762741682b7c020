"""Integer sums, products, quotients and extremes in sympy, built without its general simplifier.

``sympy.Max(x, y)``, ``floor(x)`` and ``Mod(x, y)`` try for tens of milliseconds to find signs of
their arguments; a bound is built of dozens. Here they are made with ``evaluate=False`` after the
few laws that bounds need.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd, lcm
from typing import Any

Sympy = Any


def integer(value: int) -> Sympy:
    from sympy import Integer

    return Integer(value)


def maximum(*args: Sympy) -> Sympy:
    return _extremum(True, args)


def minimum(*args: Sympy) -> Sympy:
    return _extremum(False, args)


def clamped_to_bit(value: Sympy) -> Sympy:
    """1 where ``value >= 1``, else 0."""
    return maximum(integer(0), minimum(integer(1), value))


def floored(value: Sympy, divisor: Sympy) -> Sympy:
    """``floor(value / divisor)`` of integers; multiples of the divisor leave the floor."""
    if not divisor.is_Integer:
        return _floor(value / divisor)
    whole, rest, small = quotient_parts(value, int(divisor))
    return whole + (rest if small == 1 else _floor(rest / small))


def remainder(value: Sympy, divisor: int) -> Sympy:
    """``value % divisor`` of integers."""
    from sympy import Add, Mod

    addends = (a for a in _addends(expanded(value)) if a.as_coeff_Mul()[0] % divisor)
    constant, rest = Add(*addends).as_coeff_Add()
    if rest == 0:
        return integer(int(constant) % divisor)
    return Mod(rest + int(constant) % divisor, divisor, evaluate=False)


def is_nonnegative(expr: Sympy) -> bool:
    """Whether ``expr >= 0`` for every value of its symbols, as the signs of its parts tell."""
    return _signs(expr)[0]


def is_nonpositive(expr: Sympy) -> bool:
    """Whether ``expr <= 0`` for every value of its symbols, as the signs of its parts tell."""
    return _signs(expr)[1]


def _signs(expr: Sympy) -> tuple[bool, bool]:
    """Whether surely ``expr >= 0``, and whether surely ``expr <= 0``."""
    if expr.is_Rational:
        return bool(expr >= 0), bool(expr <= 0)
    if expr.is_Symbol:
        return bool(expr.is_nonnegative), False
    signs = [_signs(arg) for arg in expr.args]
    at_least = [sign[0] for sign in signs]
    at_most = [sign[1] for sign in signs]
    match type(expr).__name__:
        case "Add":
            return all(at_least), all(at_most)
        case "Mul" if all(any(sign) for sign in signs):
            is_negative = sum(not low for low in at_least) % 2 == 1
            return not is_negative, is_negative
        case "floor" | "Pow":  # bounds have no powers but 1 / u
            return signs[0]
        case "Max":
            return any(at_least), all(at_most)
        case "Min":
            return all(at_least), any(at_most)
        case "Mod":
            return True, False
        case _:
            return False, False


def quotient_parts(value: Sympy, divisor: int) -> tuple[Sympy, Sympy, int]:
    """``whole, rest, small`` with ``floor(value / divisor) = whole + floor(rest / small)``.

    ``floor((g x + c) / (g d)) = floor((x + floor(c / g)) / d)`` for integers x, c.
    """
    from sympy import Add

    constant, terms = expanded(value).as_coeff_Add()
    outside: list[Sympy] = []
    inside: list[Sympy] = []
    for addend in Add.make_args(terms):
        factor = addend.as_coeff_Mul()[0]
        (outside if factor % divisor == 0 else inside).append(addend)
    whole = Add(*(addend / divisor for addend in outside), constant // divisor)
    constant = constant % divisor
    if not inside:
        return whole, integer(0), 1
    common = gcd(divisor, *(int(addend.as_coeff_Mul()[0]) for addend in inside))
    rest = Add(*(addend / common for addend in inside), constant // common)
    return whole, rest, divisor // common


def expanded(expr: Sympy) -> Sympy:
    """``expr`` with products of sums written as sums, not inside functions."""
    from sympy import Add

    if not any(addend.is_Mul and any(f.is_Add for f in addend.args) for addend in _addends(expr)):
        return expr
    return Add(*(addend.expand(deep=False) for addend in _addends(expr)))


def fraction(expr: Sympy) -> tuple[Sympy, Sympy]:
    """``expr`` as numerator and denominator, without common factors of integers."""
    from sympy import Add

    addends = _addends(expr)
    factors = [addend.as_coeff_Mul() for addend in addends]
    if any(
        rest.is_Pow or (rest.is_Mul and any(f.is_Pow for f in rest.args)) for _, rest in factors
    ):
        numerator, denominator = expr.as_numer_denom()
        return expanded(numerator), denominator
    divisor = lcm(*(int(factor.q) for factor, _ in factors))
    return Add(*(addend * divisor for addend in addends)), integer(divisor)


def substituted(expr: Sympy, values: Mapping[Sympy, Sympy]) -> Sympy:
    """``expr`` with symbols replaced."""
    if expr in values:
        return values[expr]
    if not expr.args:
        return expr
    return rebuilt(expr, [substituted(arg, values) for arg in expr.args])


def rebuilt(expr: Sympy, args: list[Sympy]) -> Sympy:
    """The operation of ``expr`` on other arguments."""
    if all(new is old for new, old in zip(args, expr.args, strict=True)):
        return expr
    match type(expr).__name__:
        case "Max":
            return maximum(*args)
        case "Min":
            return minimum(*args)
        case "floor":
            return floored(*fraction(args[0]))
        case "Mod":
            return remainder(args[0], int(args[1]))
        case _:
            return expr.func(*args)


def _addends(expr: Sympy) -> tuple[Sympy, ...]:
    return tuple(expr.args) if expr.is_Add else (expr,)


def _floor(value: Sympy) -> Sympy:
    from sympy import floor

    return value if value.is_Integer else floor(value, evaluate=False)


def _extremum(is_max: bool, args: tuple[Sympy, ...]) -> Sympy:
    from sympy import Max, Min, sympify

    kind = Max if is_max else Min
    found: dict[Sympy, None] = {}
    numbers: list[int] = []
    for arg in map(sympify, args):
        for part in arg.args if isinstance(arg, kind) else (arg,):
            if part.is_Integer:
                numbers.append(int(part))
            else:
                found[part] = None
    if numbers:
        found[integer((max if is_max else min)(numbers))] = None
    kept = list(found)
    for x in list(kept):
        if any(y is not x and _is_implied(x, y, is_max) for y in kept):
            kept.remove(x)
    return kept[0] if len(kept) == 1 else kind(*kept, evaluate=False)


def _is_implied(x: Sympy, y: Sympy, is_max: bool) -> bool:
    """Whether ``max(x, y)`` (or the least) is visibly ``y``: their difference has one sign."""
    return is_nonnegative(y - x if is_max else x - y)
