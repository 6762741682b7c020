"""Where in a kernel each part of an expression is computed: once, per row, per column, per element.

A tile of ``block_m`` rows and ``block_n`` columns evaluates the mask and the score. What depends
on ``b, h`` only is computed once per tile of queries, what depends on ``q_idx`` once per row, what
depends on ``kv_idx`` once per column of a key tile, and on CPUs what depends on their difference
once per diagonal; only the rest runs per element.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from attnc.gathers import run_of
from attnc.ir import (
    BinaryOp,
    Expr,
    Gather,
    Index,
    IndexName,
    Leaf,
    Level,
    Reduce,
    Ref,
    RowIndex,
    Score,
    UnaryOp,
    free_rows,
    slopes_of,
    walk,
)


@dataclass(frozen=True)
class Let:
    """A named value, computed at ``level``; ``expr`` reads leaves and earlier Lets by ``Ref``.

    ``run`` is that of ``gathers.run_of`` for a ``Gather`` that is read ahead.
    """

    name: str
    expr: Expr
    level: Level
    run: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Schedule:
    """Lets in order of computation, and the result as an expression over them."""

    lets: tuple[Let, ...]
    result: Expr

    def at(self, level: Level) -> tuple[Let, ...]:
        """The Lets of one level, in order."""
        return tuple(let for let in self.lets if let.level is level)

    @property
    def reads(self) -> tuple[Let, ...]:
        """What is read from captured tensors per element, in order."""
        return tuple(let for let in self.at(Level.ELEMENT) if isinstance(let.expr, Gather))


def schedule(
    expr: Expr, prefix: str, *, diagonals: bool = False, reads_ahead: bool = False
) -> Schedule:
    """Binds what is shared or can be computed at an outer level; names are ``prefix`` + number.

    With ``diagonals``, what is costly and depends on ``q_idx - kv_idx`` only is bound at DIAGONAL.
    With ``reads_ahead``, every ``Gather`` is bound, so that a renderer can read all elements of a row
    before it computes with them.
    A ``Reduce`` is always bound, so that a renderer can write it as a loop statement. Nothing that
    depends on the variable of a ``Reduce`` leaves that ``Reduce``.
    """
    order = list(walk(expr))
    levels: dict[Expr, Level] = {}
    free = free_rows(expr)
    uses: Counter[Expr] = Counter()
    outer_user: set[Expr] = set()
    on_diagonals = _on_diagonals(expr) if diagonals else set[Expr]()
    for node in order:
        levels[node] = Level.DIAGONAL if node in on_diagonals else _level(node, levels)
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
        is_outer = node in outer_user or (node is expr and node in on_diagonals)
        is_read = reads_ahead and isinstance(node, Gather) and levels[node] is Level.ELEMENT
        wanted = isinstance(node, Reduce) or uses[node] > 1 or is_outer or is_read
        if wanted and not isinstance(node, Leaf) and not free[node]:
            run = run_of(node.indices) if is_read and isinstance(node, Gather) else None
            let = Let(f"{prefix}{len(lets)}", value, levels[node], run)
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


# Of an operation, in additions.
_COSTS: dict[object, int] = {
    BinaryOp.DIV: 4,
    BinaryOp.FLOORDIV: 8,
    BinaryOp.MOD: 8,
    BinaryOp.POW: 16,
    **{op: 8 for op in UnaryOp if op.value.isalpha() and op not in (UnaryOp.ABS, UnaryOp.ISNAN)},
}
# Below it, reading a value back takes as long as computing it.
_LEAST_COST = 8


def _on_diagonals(expr: Expr) -> set[Expr]:
    """Nodes of those parts that depend on ``q_idx - kv_idx`` only and are costly."""
    slopes = slopes_of(expr)
    costs: dict[Expr, int] = {}  # of parts that depend on b, h and the difference only
    differs: set[Expr] = set()  # those that depend on the difference
    for node in walk(expr):
        slope = slopes.get(node, (1, 1))
        is_difference = slope[0] != 0 and sum(slope) == 0
        if is_difference or any(child in differs for child in node.children):
            differs.add(node)
        if sum(slope) == 0:
            costs[node] = 1
        elif isinstance(node, Score | Ref | RowIndex | Reduce) or node in slopes:
            continue
        elif all(child in costs for child in node.children):
            op = getattr(node, "op", None)
            own = 8 if isinstance(node, Gather) else _COSTS.get(op, 1)
            costs[node] = min(_LEAST_COST, own + sum(costs[child] for child in node.children))
    found: set[Expr] = set()
    seen: set[tuple[Expr, bool]] = set()
    stack = [(expr, False)]
    while stack:
        node, is_inside = stack.pop()
        if (node, is_inside) in seen:
            continue
        seen.add((node, is_inside))
        is_inside |= costs.get(node, 0) >= _LEAST_COST
        if is_inside and node in differs and node in costs:
            found.add(node)
        stack.extend((child, is_inside) for child in node.children)
    return found
