"""Where in a kernel each part of an expression is computed: once, per row, per column, per element.

A tile of ``block_m`` rows and ``block_n`` columns evaluates the mask and the score. What depends
on ``b, h`` only is computed once per tile of queries, what depends on ``q_idx`` once per row, what
depends on ``kv_idx`` once per column of a key tile; only the rest runs per element.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from attnc.ir import (
    Expr,
    Index,
    IndexName,
    Leaf,
    Level,
    Reduce,
    Ref,
    RowIndex,
    Score,
    walk,
)


@dataclass(frozen=True)
class Let:
    """A named value, computed at ``level``; ``expr`` reads leaves and earlier Lets by ``Ref``."""

    name: str
    expr: Expr
    level: Level


@dataclass(frozen=True)
class Schedule:
    """Lets in order of computation, and the result as an expression over them."""

    lets: tuple[Let, ...]
    result: Expr

    def at(self, level: Level) -> tuple[Let, ...]:
        """The Lets of one level, in order."""
        return tuple(let for let in self.lets if let.level is level)


def schedule(expr: Expr, prefix: str) -> Schedule:
    """Binds what is shared or can be computed at an outer level; names are ``prefix`` + number.

    A ``Reduce`` is always bound, so that a renderer can write it as a loop statement. Nothing that
    depends on the variable of a ``Reduce`` leaves that ``Reduce``.
    """
    order = list(walk(expr))
    levels: dict[Expr, Level] = {}
    free: dict[Expr, frozenset[int]] = {}
    uses: Counter[Expr] = Counter()
    outer_user: set[Expr] = set()
    for node in order:
        levels[node] = _level(node, levels)
        free[node] = _free_rows(node, free)
        for child in node.children:
            uses[child] += 1
    for node in order:
        for child in node.children:
            if levels[child] is not levels[node] or (free[node] and not free[child]):
                outer_user.add(child)

    rewritten: dict[Expr, Expr] = {}
    lets: list[Let] = []
    for node in order:
        value = node.rebuild(tuple(rewritten[c] for c in node.children)) if node.children else node
        wanted = isinstance(node, Reduce) or uses[node] > 1 or node in outer_user
        if wanted and not isinstance(node, Leaf) and not free[node]:
            let = Let(f"{prefix}{len(lets)}", value, levels[node])
            lets.append(let)
            value = Ref(let.name, node.dtype, let.level)
        rewritten[node] = value
    return Schedule(tuple(lets), rewritten[expr])


def _level(node: Expr, levels: dict[Expr, Level]) -> Level:
    match node:
        case Index(IndexName.Q):
            return Level.ROW
        case Index(IndexName.KV):
            return Level.COLUMN
        case Score():
            return Level.ELEMENT
        case Ref(_, _, level):
            return level
    level = Level.UNIFORM
    for child in node.children:
        level = level.join(levels[child])
    return level


def _free_rows(node: Expr, free: dict[Expr, frozenset[int]]) -> frozenset[int]:
    if isinstance(node, RowIndex):
        return frozenset({node.number})
    rows = frozenset[int]().union(*(free[child] for child in node.children))
    return rows - {node.number} if isinstance(node, Reduce) else rows
