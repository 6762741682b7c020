"""Smaller expressions of equal value: rewrite laws that are exact in every dtype.

The value of ``simplify(e)`` is that of ``e`` bit for bit (any NaN counts as equal to any other),
at all points with coordinates from 0 to 2**31 - 1. So floats are not reassociated, ``0.0 * x``
and ``x - x`` stay for them, and integers may wrap in every law.

One spelling is chosen among equals, so that equal functions share a kernel: constants stand on
the right, coordinates in the order b, h, q_idx, kv_idx (``q_idx >= kv_idx``), and negation of
conditions stands at the comparisons, or at what is not a comparison.
"""

from __future__ import annotations

from attnc.ir import Binary, Cast, Compare, DType, Expr, Select, Unary, UnaryOp
from attnc.simplify import choices, logic, numbers
from attnc.simplify.fold import folded


def simplify(expr: Expr) -> Expr:
    """``expr`` after all laws; the same object when none applies."""
    done: dict[Expr, Expr] = {}
    stack = [expr]
    while stack:
        node = stack[-1]
        if node in done:
            stack.pop()
            continue
        operands = node.children
        waiting = [child for child in operands if child not in done]
        if waiting:
            stack.extend(reversed(waiting))
            continue
        children = tuple(done[child] for child in operands)
        rebuilt = node if children == operands else node.rebuild(children)
        successor = _rewritten(rebuilt)
        if successor is None:
            done[rebuilt] = done[node] = rebuilt
        elif successor in done:
            done[node] = done[successor]
        else:
            stack.append(successor)  # then this node is looked at once more
    return done[expr]


def _rewritten(node: Expr) -> Expr | None:
    """``node`` after one law, or None where none applies. Its operands are simplified."""
    constant = folded(node)
    if constant is not None:
        return constant
    match node:
        case Unary(UnaryOp.NOT, x) if x.dtype is DType.BOOL:
            return logic.negation(x)
        case Unary(op, x):
            return numbers.unary_law(op, x)
        case Binary(op, x, y) if x.dtype is DType.BOOL:
            return logic.logic_law(op, x, y)
        case Binary(op, x, y):
            law = numbers.integer_law if x.dtype.is_int else numbers.float_law
            return numbers.number_law(op, x, y) or law(op, x, y)
        case Compare(op, x, y):
            return logic.comparison_law(op, x, y)
        case Select(cond, x, y):
            return choices.select_law(cond, x, y)
        case Cast(x, to):
            return choices.cast_law(x, to)
        case _:
            return None
