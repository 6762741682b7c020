"""Loop bounds as source text, in the languages of the kernels and as mathematics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

Language = Literal["cpp", "triton", "math"]


def print_bound(expr: Any, language: Language) -> str:
    """A sympy bound as an integer expression.

    For ``cpp`` and ``triton`` the text uses ``+ - *``, the names of the symbols, and
    ``floor_div(a, b)`` (b > 0), ``imax(a, b)``, ``imin(a, b)``; for ``math`` it is sympy's.
    """
    if language == "math":
        return str(expr)
    return _KernelPrinter().text(expr)


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
