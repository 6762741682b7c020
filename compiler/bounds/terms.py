"""A predicate as a union of intervals of kv_idx, with bounds that are functions of q_idx.

Comparisons are solved for ``kv_idx`` through sums, integer factors and divisors, abs, min and
max; what depends on ``b`` and ``h`` only becomes a symbol ``u0, u1, ...``. Integers are taken as
mathematical integers: see ``intervals.may_wrap`` for when that is right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Any

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
    Select,
    Unary,
    UnaryOp,
    indices_of,
    level_of,
)

Sympy = Any
_MAX_TERMS = 8


class NotAnIntervalError(Exception):
    """The predicate is no union of few intervals that this module can find."""


@dataclass(frozen=True)
class Term:
    """``kv_idx`` with ``low <= kv_idx`` for all lows and ``kv_idx < high`` for all highs."""

    lows: frozenset[Sympy]
    highs: frozenset[Sympy]

    def __and__(self, other: Term) -> Term:
        return Term(self.lows | other.lows, self.highs | other.highs)


Terms = list[Term]
EVERYTHING = Term(frozenset(), frozenset())


def symbol(name: str) -> Sympy:
    """The sympy symbol of a run-time integer: lengths and positions are not negative."""
    from sympy import Symbol

    if name in ("q_idx", "q_block", "n_queries", "n_keys", "n_kv_blocks"):
        return Symbol(name, integer=True, nonnegative=True)
    if name == "q_end":
        return Symbol(name, integer=True, positive=True)
    return Symbol(name, integer=True)


def clamped_to_bit(value: Sympy) -> Sympy:
    """1 where ``value >= 1``, else 0."""
    from sympy import Max, Min

    return Max(0, Min(1, value))


@dataclass
class TermSolver:
    """Solves comparisons for ``kv_idx``. ``uniforms`` collects the meaning of ``u0, u1, ...``."""

    block_n: int
    uniforms: dict[str, Expr] = field(default_factory=dict)
    _names: dict[Expr, str] = field(default_factory=dict)

    def terms(self, expr: Expr, wanted: bool = True) -> Terms:
        """Where ``expr`` is ``wanted``, as a union.

        Raises:
            NotAnIntervalError: It is no such union.
        """
        match expr:
            case Const(value, DType.BOOL):
                return [EVERYTHING] if value is wanted else []
            case Unary(UnaryOp.NOT, x):
                return self.terms(x, not wanted)
            case Binary(BinaryOp.AND | BinaryOp.OR as op, x, y):
                a, b = self.terms(x, wanted), self.terms(y, wanted)
                return _both(a, b) if (op is BinaryOp.AND) is wanted else _either(a, b)
            case Binary(BinaryOp.XOR, x, y) | Compare(CompareOp.NE, x, y) if _is_bool(x):
                return self._differ(x, y, wanted)
            case Compare(CompareOp.EQ, x, y) if _is_bool(x):
                return self._differ(x, y, not wanted)
            case Select(cond, x, y):
                chosen = _both(self.terms(cond), self.terms(x, wanted))
                return _either(chosen, _both(self.terms(cond, False), self.terms(y, wanted)))
            case Compare(op, x, y) if x.dtype.is_int:
                return self._compared(_NEGATED[op] if not wanted else op, x, y)
            case Cast(x, DType.BOOL) if x.dtype.is_int:
                op = CompareOp.NE if wanted else CompareOp.EQ
                return self._compared(op, x, Const(0, x.dtype))
            case _ if level_of(expr) is Level.UNIFORM:
                flag = self.free_value(Cast(expr, DType.INT32))
                return [self._where_not_negative(flag - 1 if wanted else -flag)]
            case _:
                raise NotAnIntervalError

    def _differ(self, x: Expr, y: Expr, wanted: bool) -> Terms:
        one = _both(self.terms(x), self.terms(y, not wanted))
        other = _both(self.terms(x, False), self.terms(y, wanted))
        return _either(one, other)

    def _compared(self, op: CompareOp, x: Expr, y: Expr) -> Terms:
        difference = Binary(BinaryOp.SUB, x, y)
        match op:
            case CompareOp.LE:
                return self.at_most(difference, _integer(0))
            case CompareOp.LT:
                return self.at_most(difference, _integer(-1))
            case CompareOp.GE:
                return self.at_least(difference, _integer(0))
            case CompareOp.GT:
                return self.at_least(difference, _integer(1))
            case CompareOp.EQ:
                return _both(
                    self.at_most(difference, _integer(0)), self.at_least(difference, _integer(0))
                )
            case _:
                return _either(
                    self.at_most(difference, _integer(-1)), self.at_least(difference, _integer(1))
                )

    def at_most(self, expr: Expr, bound: Sympy) -> Terms:
        """Where ``expr <= bound``; ``bound`` is a function of ``q_idx``."""
        atom, factor, rest = self._linear(expr)
        if atom is None:
            return [self._where_not_negative(bound - rest)]
        # factor * atom <= limit, so atom <= limit / factor for a positive factor.
        limit = bound - rest
        if factor > 0:
            return self._atom_at_most(atom, _floor(limit, factor))
        return self._atom_at_least(atom, -_floor(limit, -factor))

    def at_least(self, expr: Expr, bound: Sympy) -> Terms:
        """Where ``expr >= bound``; ``bound`` is a function of ``q_idx``."""
        atom, factor, rest = self._linear(expr)
        if atom is None:
            return [self._where_not_negative(rest - bound)]
        limit = bound - rest
        if factor > 0:
            return self._atom_at_least(atom, -_floor(-limit, factor))
        return self._atom_at_most(atom, _floor(-limit, -factor))

    def _where_not_negative(self, value: Sympy) -> Term:
        """Everything where ``value >= 0``, nothing elsewhere: an upper bound of all keys or 0."""
        if value.is_nonnegative:
            return EVERYTHING
        whole = self.block_n * symbol("n_kv_blocks")
        return Term(frozenset(), frozenset({whole * clamped_to_bit(value + 1)}))

    def _atom_at_most(self, atom: Expr, bound: Sympy) -> Terms:
        match atom:
            case Index(IndexName.KV):
                return [Term(frozenset(), frozenset({bound + 1}))]
            case Binary(BinaryOp.FLOORDIV, x, Const(int(c))) if c > 0:
                return self.at_most(x, c * bound + (c - 1))
            case Binary(BinaryOp.FLOORDIV, x, Const(int(c))) if c < 0:
                return self.at_least(x, c * bound + (c + 1))
            case Binary(BinaryOp.SHR, x, Const(int(s))) if 0 <= s < 31:
                return self.at_most(x, 2**s * bound + (2**s - 1))
            case Unary(UnaryOp.ABS, x):
                return _both(self.at_most(x, bound), self.at_least(x, -bound))
            case Binary(BinaryOp.MAX, x, y):
                return _both(self.at_most(x, bound), self.at_most(y, bound))
            case Binary(BinaryOp.MIN, x, y):
                return _either(self.at_most(x, bound), self.at_most(y, bound))
            case Select(cond, x, y):
                chosen = _both(self.terms(cond), self.at_most(x, bound))
                return _either(chosen, _both(self.terms(cond, False), self.at_most(y, bound)))
            case _:
                raise NotAnIntervalError

    def _atom_at_least(self, atom: Expr, bound: Sympy) -> Terms:
        match atom:
            case Index(IndexName.KV):
                return [Term(frozenset({bound}), frozenset())]
            case Binary(BinaryOp.FLOORDIV, x, Const(int(c))) if c > 0:
                return self.at_least(x, c * bound)
            case Binary(BinaryOp.FLOORDIV, x, Const(int(c))) if c < 0:
                return self.at_most(x, c * bound)
            case Binary(BinaryOp.SHR, x, Const(int(s))) if 0 <= s < 31:
                return self.at_least(x, 2**s * bound)
            case Unary(UnaryOp.ABS, x):
                return _either(self.at_least(x, bound), self.at_most(x, -bound))
            case Binary(BinaryOp.MAX, x, y):
                return _either(self.at_least(x, bound), self.at_least(y, bound))
            case Binary(BinaryOp.MIN, x, y):
                return _both(self.at_least(x, bound), self.at_least(y, bound))
            case Select(cond, x, y):
                chosen = _both(self.terms(cond), self.at_least(x, bound))
                return _either(chosen, _both(self.terms(cond, False), self.at_least(y, bound)))
            case _:
                raise NotAnIntervalError

    def _linear(self, expr: Expr) -> tuple[Expr | None, int, Sympy]:
        """``expr`` as ``factor * atom + rest``, where only the atom reads ``kv_idx``."""
        factors: dict[Expr, int] = {}
        rest = self._collect(expr, 1, factors)
        used = [(atom, factor) for atom, factor in factors.items() if factor]
        if not used:
            return None, 0, rest
        if len(used) > 1:
            raise NotAnIntervalError
        return used[0][0], used[0][1], rest

    def _collect(self, expr: Expr, factor: int, factors: dict[Expr, int]) -> Sympy:
        if IndexName.KV not in indices_of(expr):
            return factor * self.free_value(expr)
        match expr:
            case Binary(BinaryOp.ADD, x, y):
                return self._collect(x, factor, factors) + self._collect(y, factor, factors)
            case Binary(BinaryOp.SUB, x, y):
                return self._collect(x, factor, factors) + self._collect(y, -factor, factors)
            case Binary(BinaryOp.MUL, x, Const(int(c))) | Binary(BinaryOp.MUL, Const(int(c)), x):
                return self._collect(x, factor * c, factors)
            case Binary(BinaryOp.SHL, x, Const(int(s))) if 0 <= s < 31:
                return self._collect(x, factor * 2**s, factors)
            case Unary(UnaryOp.NEG, x):
                return self._collect(x, -factor, factors)
            case Unary(UnaryOp.NOT, x):  # ~x = -1 - x
                return self._collect(x, -factor, factors) - factor
            case Cast(x, DType.INT32 | DType.INT64) if x.dtype.is_int:
                return self._collect(x, factor, factors)
            case _:
                factors[expr] = factors.get(expr, 0) + factor
                return _integer(0)

    def free_value(self, expr: Expr) -> Sympy:
        """An integer expression without ``kv_idx`` in sympy, over ``q_idx``, p* and u*."""
        from sympy import Max, Min

        match expr:
            case Const(int(value)):
                return _integer(value)
            case Param(number, dtype) if dtype.is_int:
                return symbol(f"p{number}")
            case Index(IndexName.Q):
                return symbol("q_idx")
            case Cast(x, DType.INT32 | DType.INT64) if x.dtype.is_int:
                return self.free_value(x)
            case _ if level_of(expr) is Level.UNIFORM and not _is_arithmetic_of_params(expr):
                return self._uniform(expr)
            case Binary(BinaryOp.ADD, x, y):
                return self.free_value(x) + self.free_value(y)
            case Binary(BinaryOp.SUB, x, y):
                return self.free_value(x) - self.free_value(y)
            case Binary(BinaryOp.MUL, x, y):
                return self.free_value(x) * self.free_value(y)
            case Binary(BinaryOp.SHL, x, Const(int(s))) if 0 <= s < 31:
                return self.free_value(x) * 2**s
            case Binary(BinaryOp.FLOORDIV, x, Const(int(c))) if c:
                return _floor(self.free_value(x) * (1 if c > 0 else -1), abs(c))
            case Binary(BinaryOp.SHR, x, Const(int(s))) if 0 <= s < 31:
                return _floor(self.free_value(x), 2**s)
            case Binary(BinaryOp.MIN, x, y):
                return Min(self.free_value(x), self.free_value(y))
            case Binary(BinaryOp.MAX, x, y):
                return Max(self.free_value(x), self.free_value(y))
            case Unary(UnaryOp.NEG, x):
                return -self.free_value(x)
            case Unary(UnaryOp.NOT, x):
                return -1 - self.free_value(x)
            case Unary(UnaryOp.ABS, x):
                value = self.free_value(x)
                return Max(value, -value)
            case _:
                raise NotAnIntervalError

    def _uniform(self, expr: Expr) -> Sympy:
        if not (expr.dtype.is_int or expr.dtype is DType.BOOL):
            raise NotAnIntervalError
        if expr not in self._names:
            self._names[expr] = f"u{len(self._names)}"
            self.uniforms[self._names[expr]] = expr
        return symbol(self._names[expr])


_NEGATED = {
    CompareOp.EQ: CompareOp.NE,
    CompareOp.NE: CompareOp.EQ,
    CompareOp.LT: CompareOp.GE,
    CompareOp.GE: CompareOp.LT,
    CompareOp.GT: CompareOp.LE,
    CompareOp.LE: CompareOp.GT,
}
_PLAIN = (BinaryOp.ADD, BinaryOp.SUB, BinaryOp.MUL, BinaryOp.MIN, BinaryOp.MAX)


def _is_arithmetic_of_params(expr: Expr) -> bool:
    """Whether a uniform expression is simple enough to show its parameters in the bounds."""
    match expr:
        case Const() | Param():
            return expr.dtype.is_int
        case Binary(op, x, y) if op in _PLAIN and expr.dtype.is_int:
            return _is_arithmetic_of_params(x) and _is_arithmetic_of_params(y)
        case Unary(UnaryOp.NEG, x):
            return _is_arithmetic_of_params(x)
        case _:
            return False


def _is_bool(expr: Expr) -> bool:
    return expr.dtype is DType.BOOL


def _integer(value: int) -> Sympy:
    from sympy import Integer

    return Integer(value)


def _floor(value: Sympy, divisor: int) -> Sympy:
    from sympy import floor

    return value if divisor == 1 else floor(value / divisor)


def _either(x: Terms, y: Terms) -> Terms:
    result = list(dict.fromkeys([*x, *y]))
    if len(result) > _MAX_TERMS:
        raise NotAnIntervalError
    return [
        term
        for term in result
        if not any(
            other is not term and other.lows <= term.lows and other.highs <= term.highs
            for other in result
        )
    ]


def _both(x: Terms, y: Terms) -> Terms:
    if len(x) * len(y) > _MAX_TERMS**2:
        raise NotAnIntervalError
    return _either([a & b for a, b in product(x, y)], [])
