"""Questions about expressions, and exchanges, answered in one pass over their nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from attnc.ir.nodes import (
    Binary,
    Const,
    Expr,
    Gather,
    Index,
    Reduce,
    Ref,
    RowIndex,
    Score,
    Unary,
)
from attnc.ir.types import BinaryOp, DType, IndexName, Level, UnaryOp


def walk(*roots: Expr) -> Iterator[Expr]:
    """Every node once, operands before users; no recursion, so depth is not limited."""
    seen: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            yield node
            continue
        if node in seen:
            continue
        seen.add(node)
        stack.append((node, True))
        stack.extend((child, False) for child in reversed(node.children) if child not in seen)


def level_of(expr: Expr) -> Level:
    """How often ``expr`` changes inside a tile."""
    level = Level.UNIFORM
    for node in walk(expr):
        match node:
            case Index(IndexName.Q):
                level = level.join(Level.ROW)
            case Index(IndexName.KV):
                level = level.join(Level.COLUMN)
            case Score():
                level = Level.ELEMENT
            case Ref(_, _, ref_level):
                level = level.join(ref_level)
    return level


def slopes_of(*roots: Expr) -> dict[Expr, tuple[int, int]]:
    """Factors of q_idx and kv_idx in the int32 nodes that are sums of them and of uniform values.

    Exact modulo 2**32, so also where such a sum wraps around.
    """
    slopes: dict[Expr, tuple[int, int]] = {}
    uniform: set[Expr] = set()
    for node in walk(*roots):
        known = [slopes.get(child) for child in node.children]
        slope: tuple[int, int] | None = None
        match node:
            case Index(IndexName.Q):
                slope = (1, 0)
            case Index(IndexName.KV):
                slope = (0, 1)
            case Score() | Ref():
                pass
            case _ if all(child in uniform for child in node.children):
                uniform.add(node)
                slope = (0, 0)
            case Unary(UnaryOp.NEG) if known[0] is not None:
                slope = (-known[0][0], -known[0][1])
            case Binary(BinaryOp.ADD | BinaryOp.SUB as op):
                left, right = known
                if left is not None and right is not None:
                    sign = 1 if op is BinaryOp.ADD else -1
                    slope = (left[0] + sign * right[0], left[1] + sign * right[1])
            case Binary(BinaryOp.MUL, _, Const(factor)) if known[0] is not None:
                slope = (known[0][0] * int(factor), known[0][1] * int(factor))
        if slope is not None and node.dtype is DType.INT32:
            slopes[node] = slope
    return slopes


def indices_of(expr: Expr) -> frozenset[IndexName]:
    """The coordinates that ``expr`` reads."""
    return frozenset(node.name for node in walk(expr) if isinstance(node, Index))


def free_rows(expr: Expr) -> dict[Expr, frozenset[int]]:
    """Numbers of the ``RowIndex``es that each node reads and no ``Reduce`` in it binds."""
    free: dict[Expr, frozenset[int]] = {}
    for node in walk(expr):
        rows = frozenset[int]().union(*(free[child] for child in node.children))
        if isinstance(node, RowIndex):
            rows = frozenset({node.number})
        elif isinstance(node, Reduce):
            rows -= {node.number}
        free[node] = rows
    return free


def slots_of(*exprs: Expr) -> tuple[int, ...]:
    """Numbers of the captured tensors that the expressions read, ascending."""
    return tuple(sorted({node.slot for node in walk(*exprs) if isinstance(node, Gather)}))


def reads_score(expr: Expr) -> bool:
    """Whether ``expr`` depends on the score."""
    return any(isinstance(node, Score) for node in walk(expr))


def replaced(expr: Expr, new: Mapping[Expr, Expr]) -> Expr:
    """``expr`` with every node that is a key of ``new`` exchanged for its value, all at once."""
    result: dict[Expr, Expr] = {}
    for node in walk(expr):
        children = tuple(result[child] for child in node.children)
        known = new.get(node)
        if known is None:
            known = node if children == node.children else node.rebuild(children)
        result[node] = known
    return result[expr]


def canonical_text(*roots: Expr | None) -> str:
    """One line per distinct node, operands by line number: equal texts mean equal expressions.

    Linear in the number of nodes, however often they are shared; used in cache keys.
    """
    present = [root for root in roots if root is not None]
    numbers: dict[Expr, int] = {}
    lines = []
    for node in walk(*present):
        numbers[node] = len(numbers)
        fields = (
            f"#{numbers[part]}" if isinstance(part, Expr) else _field_text(part)
            for part in node.parts()
        )
        lines.append(f"{type(node).__name__} {' '.join(fields)}")
    ends = " ".join("-" if root is None else f"#{numbers[root]}" for root in roots)
    return "\n".join([*lines, ends])


def _field_text(part: Any) -> str:
    return str(part.name) if isinstance(part, Enum) else repr(part)
