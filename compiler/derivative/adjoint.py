"""Adjoints: products of local derivatives, kept in a form in which no branch can make NaN.

What flows back through one branch of a choice is 0 where the other one is taken. Written as a
factor, that 0 would meet the infinite derivatives of the branch not taken (``where(x > 0,
sqrt(x), 0)`` at 0), so conditions are kept beside the product, outside of all factors, and
become one ``Select`` around it at the end. Constants are collected likewise: a derivative is not
bound to one order of rounding, and ``20 * tanh(score / 20)`` shall give ``1 - tanh(...) ** 2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from attnc.ir import TRUE, Binary, BinaryOp, Cast, Const, DType, Expr, Select, Unary, UnaryOp

#: A condition, and whether it must hold or must not.
Literal = tuple[Expr, bool]

#: Longer conjunctions are made one condition, which bounds the cost of each step.
_MAX_LITERALS = 16
#: Products of constants stay in here, where float32 neither overflows nor loses digits.
_LEAST, _GREATEST = 1e-30, 1e30


@dataclass(frozen=True)
class Adjoint:
    """``coefficient * value`` where all literals of ``path`` hold, else 0.

    Attributes:
        dtype: Of the value.
        path: Conditions, outermost choice first.
        coefficient: Finite and not 0.
        value: None stands for 1.
    """

    dtype: DType
    path: tuple[Literal, ...] = ()
    coefficient: float = 1.0
    value: Expr | None = None

    def times(self, factor: Expr) -> Adjoint:
        """The product with ``factor``, of any float dtype, which is used where the path holds."""
        factor = in_dtype(factor, self.dtype)
        match factor, self.value:
            case Unary(UnaryOp.NEG, x), _:
                return self.scaled(-1.0).times(x)
            case _, None:
                return replace(self, value=factor)
            case _, Binary(BinaryOp.DIV, Const(1.0), divisor):
                return replace(self, value=Binary(BinaryOp.DIV, factor, divisor))
            case _, value:
                return replace(self, value=Binary(BinaryOp.MUL, value, factor))

    def over(self, divisor: Expr) -> Adjoint:
        """The quotient by ``divisor``, a float that is no constant or 0."""
        value = Const(1.0, self.dtype) if self.value is None else self.value
        return replace(self, value=Binary(BinaryOp.DIV, value, in_dtype(divisor, self.dtype)))

    def scaled(self, number: float) -> Adjoint:
        """The product with a finite number that is not 0."""
        coefficient = self.coefficient * number
        if _LEAST <= abs(coefficient) <= _GREATEST:
            return replace(self, coefficient=coefficient)
        return self._uncollected().times(Const(number, self.dtype))

    def divided(self, number: float) -> Adjoint:
        """The quotient by a finite number that is not 0."""
        coefficient = self.coefficient / number  # 20 / 20 is 1; 20 * (1 / 20) need not be
        if _LEAST <= abs(coefficient) <= _GREATEST:
            return replace(self, coefficient=coefficient)
        return self._uncollected().over(Const(number, self.dtype))

    def _uncollected(self) -> Adjoint:
        return replace(self, coefficient=1.0, value=_product(self))

    def where(self, cond: Expr, holds: bool) -> Adjoint | None:
        """The same where ``cond`` is ``holds``, else 0; None where that is nowhere."""
        while isinstance(cond, Unary) and cond.op is UnaryOp.NOT:
            cond, holds = cond.x, not holds
        if isinstance(cond, Const):
            return self if cond.value == holds else None
        if (cond, not holds) in self.path:
            return None
        if (cond, holds) in self.path:
            return self
        path = self.path
        if len(path) >= _MAX_LITERALS:
            path = ((conjunction(path), True),)
        return replace(self, path=(*path, (cond, holds)))

    def to(self, dtype: DType) -> Adjoint:
        """Converted to another float dtype."""
        value = None if self.value is None else in_dtype(self.value, dtype)
        return replace(self, dtype=dtype, value=value)

    def as_expr(self) -> Expr:
        """The adjoint as one expression."""
        if not self.path:
            return _product(self)
        return Select(conjunction(self.path), _product(self), Const(0.0, self.dtype))


def in_dtype(x: Expr, dtype: DType) -> Expr:
    """``x`` converted to a float dtype, if it has another one."""
    if x.dtype is dtype:
        return x
    return Const(float(x.value), dtype) if isinstance(x, Const) else Cast(x, dtype)


def conjunction(path: Sequence[Literal]) -> Expr:
    """Whether all literals hold."""
    result: Expr = TRUE
    for cond, holds in path:
        literal = cond if holds else Unary(UnaryOp.NOT, cond)
        result = literal if result is TRUE else Binary(BinaryOp.AND, result, literal)
    return result


def _product(adjoint: Adjoint) -> Expr:
    coefficient = Const(adjoint.coefficient, adjoint.dtype)
    match adjoint.value:
        case None:
            return coefficient
        case value if adjoint.coefficient == 1:
            return value
        case Binary(BinaryOp.DIV, Const(1.0), divisor):
            return Binary(BinaryOp.DIV, coefficient, divisor)
        case value if adjoint.coefficient == -1:
            return Unary(UnaryOp.NEG, value)
        case value:
            return Binary(BinaryOp.MUL, value, coefficient)


def total(adjoints: Sequence[Adjoint]) -> Adjoint | None:
    """The sum, which is 0 where each of them is by its path; None if it is 0 altogether.

    The sum of what flows back through both branches of a choice is a choice.
    """
    if len(adjoints) == 1:
        return adjoints[0]
    first = adjoints[0].path
    n_common = 0
    while all(len(a.path) > n_common and a.path[n_common] == first[n_common] for a in adjoints):
        n_common += 1
    common = first[:n_common]
    rest = [replace(a, path=a.path[n_common:]) for a in adjoints]
    groups: dict[Expr | None, list[Adjoint]] = {}
    for adjoint in rest:
        groups.setdefault(adjoint.path[0][0] if adjoint.path else None, []).append(adjoint)
    if len(groups) > 1:
        parts = [_of_group(cond, group) for cond, group in groups.items()]
        result = _sum_of_parts([part for part in parts if part is not None])
    else:
        ((cond, group),) = groups.items()
        result = _of_group(cond, group)
    return None if result is None else replace(result, path=(*common, *result.path))


def _of_group(cond: Expr | None, group: Sequence[Adjoint]) -> Adjoint | None:
    """The sum of adjoints without a path, or of those whose paths begin with one condition."""
    if cond is None:
        result: Adjoint | None = group[0]
        for adjoint in group[1:]:
            result = adjoint if result is None else _sum(result, adjoint)
        return result
    branches = []
    for branch in (True, False):
        part = [replace(a, path=a.path[1:]) for a in group if a.path[0][1] is branch]
        branches.append(total(part) if part else None)
    match branches:
        case [Adjoint() as if_true, Adjoint() as if_false]:
            return _choice(cond, if_true, if_false)
        case [Adjoint() as one, None]:
            return replace(one, path=((cond, True), *one.path))
        case [None, Adjoint() as one]:
            return replace(one, path=((cond, False), *one.path))
        case _:
            return None


def _choice(cond: Expr, if_true: Adjoint, if_false: Adjoint) -> Adjoint:
    path: tuple[Literal, ...] = ()
    if if_true.path or if_false.path:
        # Where this holds, so does the path of the branch that is taken.
        guard = Select(cond, conjunction(if_true.path), conjunction(if_false.path))
        path = ((guard, True),)
    coefficient = 1.0
    if if_true.coefficient == if_false.coefficient:
        coefficient = if_true.coefficient
        if_true, if_false = replace(if_true, coefficient=1.0), replace(if_false, coefficient=1.0)
    x, y = _product(if_true), _product(if_false)
    return Adjoint(if_true.dtype, path, coefficient, x if x is y else Select(cond, x, y))


def _sum_of_parts(parts: Sequence[Adjoint]) -> Adjoint | None:
    """The sum of adjoints whose paths have nothing in common."""
    result: Adjoint | None = None
    for part in parts:
        bare = Adjoint(part.dtype, (), 1.0, part.as_expr()) if part.path else part
        result = bare if result is None else _sum(result, bare)
    if len(parts) == 1:
        return parts[0]
    if result is None or not all(part.path for part in parts):
        return result
    guard = conjunction(parts[0].path)
    for part in parts[1:]:
        guard = Binary(BinaryOp.OR, guard, conjunction(part.path))
    return replace(result, path=((guard, True),))


def _sum(x: Adjoint, y: Adjoint) -> Adjoint | None:
    """The sum of two adjoints without paths."""
    if x.value is y.value:
        coefficient = x.coefficient + y.coefficient
        return replace(x, coefficient=coefficient) if coefficient else None
    pair = (_product(replace(x, coefficient=1.0)), _product(replace(y, coefficient=1.0)))
    if x.coefficient == y.coefficient:
        return replace(x, value=Binary(BinaryOp.ADD, *pair))
    if x.coefficient == -y.coefficient > 0:
        return replace(x, value=Binary(BinaryOp.SUB, *pair))
    if x.coefficient == -y.coefficient:
        return replace(y, value=Binary(BinaryOp.SUB, *reversed(pair)))  # -x + y = y - x
    return Adjoint(x.dtype, (), 1.0, Binary(BinaryOp.ADD, _product(x), _product(y)))
