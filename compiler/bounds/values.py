"""Integer expressions without kv_idx as sympy ones, over q_idx and run-time numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

from attnc.bounds.algebra import Sympy, floored, integer, maximum, minimum, remainder
from attnc.bounds.magnitudes import BEYOND, GREATEST_POSITION
from attnc.bounds.periods import divisor_of
from attnc.bounds.term import DIVISOR, NotAnIntervalError, symbol
from attnc.ir import (
    Binary,
    BinaryOp,
    Cast,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    Index,
    IndexName,
    Level,
    Param,
    Unary,
    UnaryOp,
    level_of,
)

_PLAIN = (BinaryOp.ADD, BinaryOp.SUB, BinaryOp.MUL, BinaryOp.MIN, BinaryOp.MAX)
#: Comparisons of integers below these with floats are those of the numbers themselves.
_EXACT_FLOATS = {DType.FLOAT32: 2.0**24, DType.FLOAT64: 2.0**31}


@dataclass
class Values:
    """What depends on ``b`` and ``h`` only becomes a symbol ``u0, u1, ...``.

    Attributes:
        uniforms: The meaning of these, as integer expressions.
        assumptions: Run-time numbers that must be 0 or more for the bounds to be right.
        clamped: Symbols of integers of 64 bits, by what they are without being clamped.
    """

    uniforms: dict[str, Expr] = field(default_factory=dict)
    assumptions: dict[Sympy, None] = field(default_factory=dict)
    clamped: dict[Sympy, Expr] = field(default_factory=dict)
    _symbols: dict[Expr, Sympy] = field(default_factory=dict)

    def value(self, expr: Expr) -> Sympy:
        """An integer expression without ``kv_idx``, over ``q_idx``, p* and u*.

        Raises:
            NotAnIntervalError: It has an operator that bounds cannot have.
        """
        match expr:
            case Const(int(value)):
                return integer(value)
            case Param(number, DType.INT32):
                found = symbol(f"p{number}")
                self._symbols[expr] = found
                return found
            case Index(IndexName.Q):
                return symbol("q_idx")
            case Cast(x, DType.INT32 | DType.INT64) if x.dtype.is_int:
                return self.value(x)
            case _ if level_of(expr) is Level.UNIFORM and not _is_arithmetic_of_params(expr):
                return self.uniform(expr)
            case Binary(BinaryOp.SUB, x, Binary(BinaryOp.MOD, y, Const(int(c)))) if x is y and c:
                return integer(c) * self.value(Binary(BinaryOp.FLOORDIV, x, Const(c, x.dtype)))
            case Binary(BinaryOp.ADD, x, y):
                return self.value(x) + self.value(y)
            case Binary(BinaryOp.SUB, x, y):
                return self.value(x) - self.value(y)
            case Binary(BinaryOp.MUL, x, y) if expr.dtype is DType.INT32 or _is_uniform(x, y):
                return self.value(x) * self.value(y)
            case Binary(BinaryOp.SHL, x, Const(int(s))) if 0 <= s < 31:
                return self.value(x) * 2**s
            case Binary(BinaryOp.FLOORDIV | BinaryOp.SHR as op, x, y) if divisor_of(op, y):
                return floored(self.value(x), integer(divisor_of(op, y) or 1))
            case Binary(BinaryOp.MOD | BinaryOp.AND as op, x, y) if divisor_of(op, y):
                return remainder(self.value(x), divisor_of(op, y) or 1)
            case Binary(BinaryOp.FLOORDIV, x, Const(int(c))) if c < 0:
                return floored(-self.value(x), integer(-c))
            case Binary(BinaryOp.FLOORDIV, x, y) if level_of(y) is Level.UNIFORM:
                return floored(self.value(x), self.divisor(y))
            case Binary(BinaryOp.MIN, x, y):
                return minimum(self.value(x), self.value(y))
            case Binary(BinaryOp.MAX, x, y):
                return maximum(self.value(x), self.value(y))
            case Unary(UnaryOp.NEG, x):
                return -self.value(x)
            case Unary(UnaryOp.NOT, x):
                return -1 - self.value(x)
            case Unary(UnaryOp.ABS, x):
                value = self.value(x)
                return maximum(value, -value)
            case _:
                raise NotAnIntervalError

    def uniform(self, expr: Expr) -> Sympy:
        """The symbol of an integer or boolean that depends on ``b`` and ``h`` only.

        One of 64 bits is clamped to what no sum of positions reaches: bounds add to it.
        """
        if expr.dtype is DType.INT64:
            least = Binary(BinaryOp.MAX, expr, Const(-BEYOND, DType.INT64))
            greatest = Const(BEYOND, DType.INT64)
            found = self._named(Binary(BinaryOp.MIN, least, greatest), is_positive=False)
            self.clamped[found] = expr
            return found
        if expr.dtype not in (DType.INT32, DType.BOOL):
            raise NotAnIntervalError
        return self._named(expr, is_positive=False)

    def divisor(self, expr: Expr) -> Sympy:
        """The symbol of ``max(expr, 1)``; it is assumed that this is ``expr``."""
        one = Const(1, expr.dtype)
        if expr.dtype is DType.INT64:
            self.assume_small(expr)
        match expr:
            case Binary(BinaryOp.MAX, _, Const(int(c)) as least) if c > 0:
                one = least
            case _:
                self.assumptions[self.uniform(expr) - 1] = None
                expr = Binary(BinaryOp.MAX, expr, one)
        if expr.dtype is DType.INT64:
            expr = Binary(BinaryOp.MIN, expr, Const(GREATEST_POSITION, DType.INT64))
        return self._named(expr, is_positive=True)

    def assume_small(self, expr: Expr) -> None:
        """Assumes that an integer of 64 bits is no larger than a position can be."""
        low, high = (Const(sign * GREATEST_POSITION, DType.INT64) for sign in (-1, 1))
        is_small = Binary(
            BinaryOp.AND, Compare(CompareOp.GE, expr, low), Compare(CompareOp.LE, expr, high)
        )
        self.assumptions[self.uniform(Cast(is_small, DType.INT32)) - 1] = None

    def root(self, value: Sympy) -> Sympy:
        """The floor of the root of ``value``, which is below 2**31 and the same for all queries; 0
        where it is negative."""
        expr = Cast(self.expression(value), DType.FLOAT64)
        least = Binary(BinaryOp.MAX, expr, Const(0.0, DType.FLOAT64))
        return self._named(Cast(Unary(UnaryOp.SQRT, least), DType.INT64), is_positive=False)

    def threshold(self, expr: Expr, toward: UnaryOp) -> Sympy:
        """A float that depends on ``b`` and ``h`` only as an integer, rounded by FLOOR or CEIL.

        It is assumed that comparing integers with it in its dtype rounds none of them across it.
        """
        if level_of(expr) is not Level.UNIFORM:
            raise NotAnIntervalError
        most = Const(_EXACT_FLOATS[expr.dtype], expr.dtype)
        is_small = Compare(CompareOp.LT, Unary(UnaryOp.ABS, expr), most)  # false for NaN
        self.assumptions[self.uniform(Cast(is_small, DType.INT32)) - 1] = None
        limit = self.uniform(Cast(Unary(toward, expr), DType.INT64))
        self.clamped.pop(limit)
        return limit

    def expression(self, value: Sympy) -> Expr:
        """The expression of int64 of which ``value`` consists."""
        if value.is_Integer:
            return Const(int(value), DType.INT64)
        known = {found: expr for expr, found in self._symbols.items()}
        if value in known:
            return Cast(known[value], DType.INT64)
        operators = {"Add": BinaryOp.ADD, "Mul": BinaryOp.MUL}
        operator = operators.get(type(value).__name__)
        if operator is None:
            raise NotAnIntervalError
        first, *rest = (self.expression(arg) for arg in value.args)
        for part in rest:
            first = Binary(operator, first, part)
        return first

    def _named(self, expr: Expr, is_positive: bool) -> Sympy:
        if expr not in self._symbols:
            name = f"u{len(self.uniforms)}{DIVISOR if is_positive else ''}"
            self.uniforms[name] = expr
            self._symbols[expr] = symbol(name)
        return self._symbols[expr]


def _is_uniform(x: Expr, y: Expr) -> bool:
    """Whether one of two factors depends on ``b`` and ``h`` only."""
    return Level.UNIFORM in (level_of(x), level_of(y))


def is_fixed(x: Expr, y: Expr) -> bool:
    """Whether two numbers are the same for all pairs of a batch and head, and not both to be shown
    in bounds: then they are compared as they are, since their difference might wrap around."""
    are_uniform = level_of(x) is Level.UNIFORM and level_of(y) is Level.UNIFORM
    return are_uniform and not (_is_arithmetic_of_params(x) and _is_arithmetic_of_params(y))


def _is_arithmetic_of_params(expr: Expr) -> bool:
    """Whether a uniform expression is simple enough to show its parameters in the bounds."""
    match expr:
        case Const() | Param():
            return expr.dtype is DType.INT32
        case Binary(op, x, y) if op in _PLAIN and expr.dtype.is_int:
            return _is_arithmetic_of_params(x) and _is_arithmetic_of_params(y)
        case Unary(UnaryOp.NEG, x):
            return _is_arithmetic_of_params(x)
        case _:
            return False
