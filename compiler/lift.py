"""Turning constants into run-time arguments, so that one kernel serves all window sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnc.ir import Binary, BinaryOp, Const, DType, Expr, Param, walk

_STATIC_RIGHT = frozenset(
    {BinaryOp.FLOORDIV, BinaryOp.MOD, BinaryOp.SHL, BinaryOp.SHR, BinaryOp.POW}
)


@dataclass(frozen=True)
class Lifted:
    """Expressions over ``Param``s, and the values those stand for in this call."""

    exprs: tuple[Expr | None, ...]
    values: tuple[int | float, ...]
    dtypes: tuple[DType, ...]


def lift(exprs: Sequence[Expr | None]) -> Lifted:
    """Replaces every constant that need not be known statically by a ``Param``.

    Static stay 0, 1, -1, infinities and NaN, booleans, divisors, shift counts, exponents and
    integer factors: analysis and code generation reason with their values. So does what equals the
    period of a ``%`` by a constant: the kernel is for that number anyway. Each remaining
    occurrence has a number of its own, by position, so that two windows of equal size lift as two
    windows of different sizes do.
    """
    given = [e for e in exprs if e is not None]
    moduli = {modulus for node in walk(*given) for modulus in _moduli(node)}
    values: list[int | float] = []
    dtypes: list[DType] = []

    def param(const: Const) -> Param:
        values.append(const.value)
        dtypes.append(const.dtype)
        return Param(len(values) - 1, const.dtype)

    lifted: dict[Expr, Expr] = {}
    for node in walk(*given):
        children = tuple(
            param(child)
            if isinstance(child, Const)
            and not (child.dtype.is_int and child.value in moduli)
            and _is_liftable(node, position, child)
            else lifted[child]
            for position, child in enumerate(node.children)
        )
        lifted[node] = node if children == node.children else node.rebuild(children)
    return Lifted(
        tuple(None if e is None else lifted[e] for e in exprs), tuple(values), tuple(dtypes)
    )


def _moduli(node: Expr) -> tuple[int | float, ...]:
    """Periods of a remainder in what it is taken of: of ``x // a % b``, in ``x // a`` and ``x``."""
    match node:
        case Binary(BinaryOp.MOD, Binary(BinaryOp.FLOORDIV, _, Const(a)), Const(b)):
            return b, a * b
        case Binary(BinaryOp.MOD, _, Const(b)):
            return (b,)
        case _:
            return ()


def _is_liftable(user: Expr, position: int, const: Const) -> bool:
    if const.dtype is DType.BOOL:
        return False
    if const.value in (0, 1, -1) or const.value - const.value != 0:  # the latter: inf and NaN
        return False
    if not isinstance(user, Binary):
        return True
    if user.op in _STATIC_RIGHT and position == 1:
        return False
    return not (user.op is BinaryOp.MUL and const.dtype.is_int)
