"""Integer expressions as linear forms over atoms: what arithmetic can see through, and the rest."""

from __future__ import annotations

from dataclasses import dataclass

from attnc.ir import Binary, BinaryOp, Cast, Const, DType, Expr, Unary, UnaryOp
from attnc.prove.linear import Linear


@dataclass(frozen=True)
class Quotient:
    """The atom ``floor(of / divisor)``; ``divisor`` is above 1."""

    of: Linear
    divisor: int


@dataclass(frozen=True)
class Magnitude:
    """The atom ``abs(of)``; ``of`` is the same for opposite values."""

    of: Linear


@dataclass(frozen=True)
class Greatest:
    """The atom ``max`` of one or two values."""

    of: frozenset[Linear]


@dataclass(frozen=True)
class Product:
    """The atom ``x * y``: one factor if they are equal; each is the same for opposite values."""

    of: frozenset[Linear]


class Forms:
    """The form of each expression, found once. An atom is one of the above, or an expression."""

    def __init__(self) -> None:
        self._known: dict[Expr, Linear] = {}

    def of(self, expr: Expr) -> Linear:
        """The value of an integer expression."""
        if expr not in self._known:
            self._known[expr] = self._form(expr)
        return self._known[expr]

    def _form(self, expr: Expr) -> Linear:
        match expr:
            case Const(int(value)):
                return Linear(frozenset(), int(value))
            case Cast(x, DType.INT32 | DType.INT64) if x.dtype.is_int:
                return self.of(x)
            case Unary(UnaryOp.NEG, x):
                return self.of(x).times(-1)
            case Unary(UnaryOp.NOT, x):  # ~x = -1 - x
                return self.of(x).times(-1).shifted(-1)
            case Binary(BinaryOp.ADD, x, y):
                return self.of(x).plus(self.of(y))
            case Binary(BinaryOp.SUB, x, y):
                return self.of(x).plus(self.of(y), -1)
            case Binary(BinaryOp.MUL, x, Const(int(c))) | Binary(BinaryOp.MUL, Const(int(c)), x):
                return self.of(x).times(c)
            case Binary(BinaryOp.MUL, x, y):
                return _product(self.of(x), self.of(y))
            case Unary(UnaryOp.ABS, x):
                return Linear.atom(Magnitude(_signed(self.of(x))[1]))
            case Binary(BinaryOp.MAX, x, y):
                return Linear.atom(Greatest(frozenset({self.of(x), self.of(y)})))
            case Binary(BinaryOp.MIN, x, y):
                opposites = frozenset({self.of(x).times(-1), self.of(y).times(-1)})
                return Linear.atom(Greatest(opposites)).times(-1)
            case Binary(BinaryOp.SHL, x, Const(int(s))) if 0 <= s < 31:
                return self.of(x).times(1 << s)
            case Binary(BinaryOp.SHR, x, Const(int(s))) if 0 <= s < 31:
                return _quotient(self.of(x), 1 << s)
            case Binary(BinaryOp.FLOORDIV, x, Const(int(c))) if c:
                return _quotient(self.of(x).times(1 if c > 0 else -1), abs(c))
            case Binary(BinaryOp.MOD, x, Const(int(c))) if c:
                form = self.of(x)
                quotient = _quotient(form.times(1 if c > 0 else -1), abs(c))
                return form.plus(quotient, -c)
            case Binary(BinaryOp.AND, x, Const(int(c))) if c >= 0 and not c & (c + 1):
                form = self.of(x)
                return form.plus(_quotient(form, c + 1), -(c + 1))
            case _:
                return Linear.atom(expr)


def _quotient(form: Linear, divisor: int) -> Linear:
    """``floor(form / divisor)``, multiples of the divisor taken out: so equal ones are one."""
    if divisor == 1:
        return form
    whole = {atom: factor // divisor for atom, factor in form.factors}
    rest = Linear.of({atom: factor % divisor for atom, factor in form.factors})
    rest = rest.shifted(form.constant % divisor)
    result = Linear.of(whole, form.constant // divisor)
    return result.plus(Linear.atom(Quotient(rest, divisor))) if rest.factors else result


def _product(x: Linear, y: Linear) -> Linear:
    for one, other in ((x, y), (y, x)):
        if not one.factors:
            return other.times(one.constant)
    (x_sign, x), (y_sign, y) = _signed(x), _signed(y)
    return Linear.atom(Product(frozenset({x, y}))).times(x_sign * y_sign)


def _signed(form: Linear) -> tuple[int, Linear]:
    """A sign and a form whose product is ``form``; the form is the same for ``-form``."""
    if not form.factors:
        return (1, form) if form.constant >= 0 else (-1, form.times(-1))
    # Any atom will do, if it is always the same one.
    _, factor = min(form.factors, key=lambda item: hash(item[0]))
    return (1, form) if factor > 0 else (-1, form.times(-1))
