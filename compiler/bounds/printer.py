"""Loop bounds as source text, in the languages of the kernels and as mathematics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

Language = Literal["cpp", "triton", "math"]


def print_bound(expr: Any, language: Language) -> str:
    """A sympy bound as an integer expression.

    For ``cpp`` and ``triton`` the text uses ``+ - *``, the names of the symbols, and
    ``floor_div(a, b)`` (b > 0), ``imax(a, b)``, ``imin(a, b)``; for ``math`` it is sympy's, with
    ``[a > b]`` for 1 where that holds and 0 elsewhere.
    """
    if language == "math":
        return str(_with_conditions(expr))
    return _KernelPrinter().text(expr)


def print_condition(expr: Any) -> str:
    """``expr >= 0`` as people write it, ``q_idx`` on the left if it is an addend."""
    from sympy import Symbol

    factors = expr.as_coefficients_dict()
    moving = next((s for s in factors if isinstance(s, Symbol) and s.name == "q_idx"), None)
    if moving is not None and factors[moving] in (1, -1):
        rest = expr - factors[moving] * moving
        sign = ">=" if factors[moving] == 1 else "<="
        return f"q_idx {sign} {_with_conditions(-rest if sign == '>=' else rest)}"
    left, right = _sides(expr)
    return f"{left} >= {right}"


def _with_conditions(expr: Any) -> Any:
    """``expr`` with ``max(0, min(1, a - b))`` written ``[a > b]``."""
    from sympy import Symbol

    if type(expr).__name__ == "Max" and expr.args[0] == 0 and len(expr.args) == 2:
        least = expr.args[1]
        if type(least).__name__ == "Min" and least.args[0] == 1 and len(least.args) == 2:
            left, right = _sides(least.args[1])
            return Symbol(f"[{left} > {right}]")
    if not expr.args:
        return expr
    args = [_with_conditions(arg) for arg in expr.args]
    is_changed = any(new is not old for new, old in zip(args, expr.args, strict=True))
    return expr.func(*args, evaluate=False) if is_changed else expr


def _sides(expr: Any) -> tuple[Any, Any]:
    """What is added and what is subtracted in ``expr``."""
    from sympy import Add

    addends = Add.make_args(expr)
    added = [addend for addend in addends if addend.as_coeff_Mul()[0] >= 0]
    subtracted = [-addend for addend in addends if addend.as_coeff_Mul()[0] < 0]
    return _with_conditions(Add(*added)), _with_conditions(Add(*subtracted))


class _KernelPrinter:
    """C and Python agree on integer sums, products and calls, which is all a bound consists of."""

    def text(self, expr: Any) -> str:
        if expr.is_Symbol:
            return str(expr.name)
        if expr.is_Integer:
            return str(int(expr))
        if expr.is_Add:
            return self.sum(expr)
        if expr.is_Mul:
            return self.product(expr.args)
        match type(expr).__name__:
            case "floor":
                numerator, divisor = expr.args[0].as_numer_denom()
                return f"floor_div({self.text(numerator.expand())}, {self.text(divisor)})"
            case "Max":
                return self.call("imax", expr.args)
            case "Min":
                return self.call("imin", expr.args)
            case _:
                raise AssertionError(f"{expr} is no integer bound")

    def sum(self, expr: Any) -> str:
        # Numbers last and negative addends as differences, as people write them.
        addends = sorted(expr.args, key=lambda a: (a.is_number, a.could_extract_minus_sign()))
        text = self.text(addends[0])
        for addend in addends[1:]:
            is_negative = addend.could_extract_minus_sign()
            sign = "-" if is_negative else "+"
            value = -addend if is_negative else addend
            text += f" {sign} {self.factor(value) if value.is_Add else self.text(value)}"
        return text

    def product(self, args: Sequence[Any]) -> str:
        if args[0] == -1:
            rest = "*".join(self.factor(arg) for arg in args[1:])
            return f"-{rest}"
        return "*".join(self.factor(arg) for arg in args)

    def factor(self, expr: Any) -> str:
        text = self.text(expr)
        return f"({text})" if expr.is_Add else text

    def call(self, name: str, args: Sequence[Any]) -> str:
        first, *rest = sorted(args, key=lambda a: (a.is_number, str(a)))
        text = self.text(first)
        for arg in rest:
            text = f"{name}({text}, {self.text(arg)})"
        return text
