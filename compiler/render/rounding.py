"""Faster arithmetic for a score_mod, where another rounding only moves the result a little.

A value that a comparison, a conversion to an integer or a singular function reads is left as it is
written: there one unit in the last place can change everything.
"""

from __future__ import annotations

from attnc.ir import (
    Binary,
    BinaryOp,
    Cast,
    Const,
    Expr,
    Level,
    Ref,
    Score,
    Select,
    Unary,
    UnaryOp,
    level_of,
    walk,
)
from attnc.schedule import Schedule

SCALE = "scale"
"""The kernel's name of the factor between q . k and the score."""

_SMOOTH_UNARY = {
    UnaryOp.NEG, UnaryOp.ABS, UnaryOp.EXP, UnaryOp.EXP2, UnaryOp.SIN, UnaryOp.COS, UnaryOp.TANH,
    UnaryOp.SIGMOID, UnaryOp.ERF,
}  # fmt: skip
_SMOOTH_BINARY = {BinaryOp.ADD, BinaryOp.SUB, BinaryOp.MUL, BinaryOp.MIN, BinaryOp.MAX}


def tolerant_nodes(part: Schedule) -> frozenset[Expr]:
    """Float nodes of ``part`` whose value reaches its result through smooth operations only."""
    lets = {let.name: let.expr for let in part.lets}
    roots = [part.result, *(let.expr for let in reversed(part.lets))]
    tolerant, exact = {part.result}, set[Expr]()
    for root in roots:
        for node in reversed(list(walk(root))):
            smooth = () if node in exact else _smooth_operands(node)
            for child in node.children:
                (tolerant if child in smooth and node in tolerant else exact).add(child)
            if isinstance(node, Ref) and node.name in lets:
                (exact if node in exact else tolerant).add(lets[node.name])
    return frozenset(node for node in tolerant - exact if node.dtype.is_float)


def _smooth_operands(node: Expr) -> tuple[Expr, ...]:
    match node:
        case Unary(op, x) if op in _SMOOTH_UNARY:
            return (x,)
        case Binary(op, lhs, rhs) if op in _SMOOTH_BINARY:
            return (lhs, rhs)
        case Binary(BinaryOp.DIV, lhs, rhs):
            return (lhs,) if lhs is not rhs else ()
        case Select(_, if_true, if_false):
            return (if_true, if_false)
        case Cast(x, to) if to.is_float and x.dtype.is_float:
            return (x,)
    return ()


def scaled_inside(score: Expr) -> Expr | None:
    """``score`` over the plain product q . k: the factor ``scale`` is part of the expression.

    There it may join a factor that is the same for the whole program. A quotient by such a value
    becomes a product. None where the score is compared or the like, which needs it as it is.
    """
    tolerant = tolerant_nodes(Schedule((), score))
    if any(isinstance(node, Score) and node not in tolerant for node in walk(score)):
        return None
    rewritten: dict[Expr, Expr] = {}
    for node in walk(score):
        value = node.rebuild(tuple(rewritten[child] for child in node.children))
        rewritten[node] = _rewritten(value) if node in tolerant else value
    return rewritten[score]


def _rewritten(node: Expr) -> Expr:
    match node:
        case Score(dtype):
            return Binary(BinaryOp.MUL, node, Ref(SCALE, dtype, Level.UNIFORM))
        # x / u = x * (1 / u)
        case Binary(BinaryOp.DIV, x, u) if _is_uniform(u) and not _is_uniform(x):
            return _rewritten(Binary(BinaryOp.MUL, x, Binary(BinaryOp.DIV, _one(u), u)))
        # (x * u) * w = x * (u * w)
        case Binary(BinaryOp.MUL, Binary(BinaryOp.MUL, x, u), w) if _are_factors(x, u, w):
            return Binary(BinaryOp.MUL, x, Binary(BinaryOp.MUL, u, w))
        case Binary(BinaryOp.MUL, w, Binary(BinaryOp.MUL, x, u)) if _are_factors(x, u, w):
            return Binary(BinaryOp.MUL, x, Binary(BinaryOp.MUL, u, w))
    return node


def _are_factors(x: Expr, u: Expr, w: Expr) -> bool:
    return _is_uniform(u) and _is_uniform(w) and not _is_uniform(x)


def _is_uniform(node: Expr) -> bool:
    return level_of(node) is Level.UNIFORM


def _one(like: Expr) -> Const:
    return Const(1.0, like.dtype)
