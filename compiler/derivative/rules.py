"""Local derivatives: what of the adjoint of a node goes to each of its operands.

The values are those of torch's own formulas (``derivatives.yaml``), at kinks and poles too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from attnc.derivative.adjoint import Adjoint
from attnc.ir import (
    Binary,
    BinaryOp,
    Cast,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    Reduce,
    ReduceOp,
    Select,
    Unary,
    UnaryOp,
)

#: An operand and its share of the adjoint; None if that is 0.
Share = tuple[Expr, Adjoint | None]


def shares(node: Expr, adjoint: Adjoint) -> Iterator[Share]:
    """The shares of the operands of ``node``; those that are missing get nothing."""
    match node:
        case Unary(op, x):
            yield from _unary(op, x, node, adjoint)
        case Binary(op, x, y):
            yield from _binary(op, x, y, node, adjoint)
        case Select(cond, if_true, if_false):
            yield if_true, adjoint.where(cond, True)
            yield if_false, adjoint.where(cond, False)
        case Cast(x) if x.dtype.is_float:
            yield x, adjoint
        case Reduce():
            yield node.body, _reduce(node, adjoint)


def _real(value: float, like: Expr) -> Const:
    return Const(value, like.dtype)


def _binary_of(op: BinaryOp, x: Expr, y: Expr | float) -> Expr:
    return Binary(op, x, y if isinstance(y, Expr) else _real(y, x))


def _compare(op: CompareOp, x: Expr, y: Expr | float) -> Expr:
    return Compare(op, x, y if isinstance(y, Expr) else _real(y, x))


def _unary(op: UnaryOp, x: Expr, y: Expr, adjoint: Adjoint) -> Iterator[Share]:
    """``y = op(x)``; what is not here is constant between its steps."""
    match op:
        case UnaryOp.NEG:
            yield x, adjoint.scaled(-1.0)
        case UnaryOp.ABS:
            yield x, adjoint.where(_compare(CompareOp.GT, x, 0.0), True)
            yield x, adjoint.scaled(-1.0).where(_compare(CompareOp.LT, x, 0.0), True)
        case UnaryOp.EXP:
            yield x, adjoint.times(y)
        case UnaryOp.EXP2:
            yield x, adjoint.times(y).scaled(math.log(2.0))
        case UnaryOp.EXPM1:
            yield x, adjoint.times(_binary_of(BinaryOp.ADD, y, 1.0))
        case UnaryOp.LOG:
            yield x, adjoint.over(x)
        case UnaryOp.LOG2:
            yield x, adjoint.over(x).divided(math.log(2.0))
        case UnaryOp.LOG1P:
            yield x, adjoint.over(_binary_of(BinaryOp.ADD, x, 1.0))
        case UnaryOp.SQRT:
            yield x, adjoint.over(y).scaled(0.5)
        case UnaryOp.RSQRT:
            yield x, adjoint.times(_binary_of(BinaryOp.POW, y, 3.0)).scaled(-0.5)
        case UnaryOp.SIN:
            yield x, adjoint.times(Unary(UnaryOp.COS, x))
        case UnaryOp.COS:
            yield x, adjoint.times(Unary(UnaryOp.SIN, x)).scaled(-1.0)
        case UnaryOp.TANH:
            square = Binary(BinaryOp.MUL, y, y)
            yield x, adjoint.times(Binary(BinaryOp.SUB, _real(1.0, y), square))
        case UnaryOp.SIGMOID:
            rest = Binary(BinaryOp.SUB, _real(1.0, y), y)
            yield x, adjoint.times(Binary(BinaryOp.MUL, rest, y))
        case UnaryOp.ERF:
            bell = Unary(UnaryOp.EXP, Unary(UnaryOp.NEG, Binary(BinaryOp.MUL, x, x)))
            yield x, adjoint.times(bell).scaled(2.0 / math.sqrt(math.pi))


def _binary(op: BinaryOp, x: Expr, y: Expr, z: Expr, adjoint: Adjoint) -> Iterator[Share]:
    """``z = x op y``; what is not here is constant between its steps."""
    match op:
        case BinaryOp.ADD:
            yield x, adjoint
            yield y, adjoint
        case BinaryOp.SUB:
            yield x, adjoint
            yield y, adjoint.scaled(-1.0)
        case BinaryOp.MUL:
            yield x, _times(adjoint, y)
            yield y, _times(adjoint, x)
        case BinaryOp.DIV:
            yield x, _over(adjoint, y)
            yield y, adjoint.times(Binary(BinaryOp.DIV, z, y)).scaled(-1.0)
        case BinaryOp.MOD:
            yield x, adjoint
            yield y, adjoint.times(Binary(BinaryOp.FLOORDIV, x, y)).scaled(-1.0)
        case BinaryOp.POW:
            yield x, _base(x, y, adjoint)
            yield y, _exponent(x, y, z, adjoint)
        case BinaryOp.MAX | BinaryOp.MIN:
            half = Select(_compare(CompareOp.EQ, x, y), _real(0.5, x), _real(1.0, x))
            below = CompareOp.LT if op is BinaryOp.MAX else CompareOp.GT
            yield x, adjoint.times(half).where(_compare(below, x, y), False)
            yield y, adjoint.times(half).where(_compare(below, y, x), False)


def _is_number(x: Expr) -> bool:
    """Whether ``x`` is a constant that a coefficient can take up."""
    return isinstance(x, Const) and math.isfinite(x.value) and x.value != 0


def _times(adjoint: Adjoint, factor: Expr) -> Adjoint | None:
    match factor:
        case Const(value) if value == 0:
            return None
        case Const(value) if _is_number(factor):
            return adjoint.scaled(float(value))
        case _:
            return adjoint.times(factor)


def _over(adjoint: Adjoint, divisor: Expr) -> Adjoint:
    if isinstance(divisor, Const) and _is_number(divisor):
        return adjoint.divided(float(divisor.value))
    return adjoint.over(divisor)


def _base(x: Expr, y: Expr, adjoint: Adjoint) -> Adjoint | None:
    """``d x ** y / d x = y * x ** (y - 1)``, and 0 where y is 0."""
    if not isinstance(y, Const):
        power = Binary(BinaryOp.POW, x, _binary_of(BinaryOp.SUB, y, 1.0))
        return adjoint.times(power).times(y).where(_compare(CompareOp.EQ, y, 0.0), False)
    exponent = float(y.value)
    if exponent == 1:
        return adjoint
    scaled = _times(adjoint, y)
    return scaled and scaled.times(_binary_of(BinaryOp.POW, x, exponent - 1.0))


def _exponent(x: Expr, y: Expr, z: Expr, adjoint: Adjoint) -> Adjoint | None:
    """``d x ** y / d y = x ** y * log(x)``, and 0 where x is 0 and y is not negative."""
    if isinstance(x, Const) and _is_number(x) and x.value > 0:
        return _times(adjoint.times(z), _real(math.log(x.value), z))
    is_flat = Binary(BinaryOp.AND, _compare(CompareOp.EQ, x, 0.0), _compare(CompareOp.GE, y, 0.0))
    return adjoint.times(z).times(Unary(UnaryOp.LOG, x)).where(is_flat, False)


def _reduce(node: Reduce, adjoint: Adjoint) -> Adjoint:
    """The share of the body in each round; extremes share evenly between equal elements."""
    if node.op is ReduceOp.SUM:
        return adjoint
    is_extreme = Compare(CompareOp.EQ, node.body, node)
    one, zero = Const(1.0, DType.FLOAT32), Const(0.0, DType.FLOAT32)
    count = Reduce(ReduceOp.SUM, node.number, node.extent, Select(is_extreme, one, zero))
    shared = adjoint.over(count).where(is_extreme, True)
    assert shared is not None
    return shared
