"""The variables of reductions: one extent for each number, another number for each nested loop."""

from __future__ import annotations

from collections.abc import Sequence

from attnc.ir import Expr, Reduce, RowIndex, walk


def with_one_extent_each(expr: Expr) -> Expr:
    """``expr`` where reductions over variables of one number have one extent.

    So what an element of a row receives from all of them can be added element by element.
    """
    extents: dict[int, int] = {}
    fresh = _first_fresh(expr)
    done: dict[Expr, Expr] = {}
    for node in walk(expr):
        new = node.rebuild(tuple(done[child] for child in node.children))
        if isinstance(new, Reduce) and extents.setdefault(new.number, new.extent) != new.extent:
            new = renumbered(new, fresh)
            extents[fresh] = new.extent
            fresh += 1
        done[node] = new
    return done[expr]


def with_distinct_nesting(expr: Expr) -> Expr:
    """``expr`` where no reduction stands inside of another one of its number.

    Kernels write them as nested loops. The inner ones keep their numbers, because they are those
    of the score, whose values can be shared.
    """
    fresh = _first_fresh(expr)
    done: dict[Expr, Expr] = {}
    numbers: dict[Expr, frozenset[int]] = {}  # of the reductions in each node
    for node in walk(expr):
        new = node.rebuild(tuple(done[child] for child in node.children))
        inner = frozenset[int]().union(*(numbers[done[child]] for child in node.children))
        if isinstance(new, Reduce):
            if new.number in inner:
                new = renumbered(new, fresh)
                fresh += 1
            inner |= {new.number}
        done[node] = new
        numbers[new] = inner
    return done[expr]


def with_distinct_rows(
    rows: Sequence[Reduce], exprs: Sequence[Expr]
) -> tuple[tuple[Reduce, ...], tuple[Expr, ...]]:
    """Loops around expressions, such that no reduction in these has the number of a loop."""
    inner = {node.number for node in walk(*exprs) if isinstance(node, Reduce)}
    fresh = _first_fresh(*rows, *exprs)
    renamed = []
    inside = tuple(exprs)
    for row in rows:
        if row.number in inner:
            inside = tuple(_with_row(expr, row.number, fresh) for expr in inside)
            renamed.append(renumbered(row, fresh))
            fresh += 1
        else:
            renamed.append(row)
    return tuple(renamed), inside


def renumbered(node: Reduce, number: int) -> Reduce:
    """``node`` over another variable, which its body does not read."""
    return Reduce(node.op, number, node.extent, _with_row(node.body, node.number, number))


def _first_fresh(*exprs: Expr) -> int:
    numbered = (node.number for node in walk(*exprs) if isinstance(node, Reduce | RowIndex))
    return 1 + max(numbered, default=-1)


def _with_row(expr: Expr, old: int, new: int) -> Expr:
    """``expr`` that reads another variable; what reductions in it bind stays as it is."""
    done: dict[Expr, Expr] = {}
    stack = [expr]
    while stack:
        node = stack[-1]
        if isinstance(node, Reduce) and node.number == old:
            done[node] = node
        waiting = [] if node in done else [child for child in node.children if child not in done]
        if waiting:
            stack.extend(waiting)
            continue
        stack.pop()
        if node is RowIndex(old):
            done[node] = RowIndex(new)
        elif node not in done:
            done[node] = node.rebuild(tuple(done[child] for child in node.children))
    return done[expr]


class FreeRows:
    """Numbers of the variables that expressions read and no reduction in them binds."""

    def __init__(self) -> None:
        self._known: dict[Expr, frozenset[int]] = {}

    def of(self, expr: Expr) -> frozenset[int]:
        """Those of ``expr``; each node is looked at once in the life of this object."""
        known = self._known
        stack = [expr]
        while stack:
            node = stack[-1]
            waiting = [child for child in node.children if child not in known]
            if waiting:
                stack.extend(waiting)
                continue
            stack.pop()
            rows = frozenset[int]().union(*(known[child] for child in node.children))
            match node:
                case RowIndex(number):
                    rows = frozenset({number})
                case Reduce(_, number):
                    rows -= {number}
            known[node] = rows
        return known[expr]
