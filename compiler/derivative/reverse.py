"""Derivatives of a score_mod by one pass from the result to the leaves."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from attnc.derivative.adjoint import Adjoint, total
from attnc.derivative.loops import (
    FreeRows,
    with_distinct_nesting,
    with_distinct_rows,
    with_one_extent_each,
)
from attnc.derivative.rules import shares
from attnc.ir import Const, DType, Expr, Gather, Reduce, ReduceOp, Score, walk
from attnc.simplify import simplify


@dataclass(frozen=True)
class Scatter:
    """What one ``Gather`` of a captured tensor hands back to that tensor's gradient.

    Attributes:
        slot: Number of the captured tensor.
        indices: Place of the element, as of the Gather: wrapped once if negative, then clamped.
        factor: Derivative of the modified score by that element, in the dtype of accumulation.
        rows: Reductions whose variables ``indices`` (and ``factor``) read, outermost first: for
            each pair (q_idx, kv_idx), there is one element per round of these loops.
    """

    slot: int
    indices: tuple[Expr, ...]
    factor: Expr
    rows: tuple[Reduce, ...] = ()


@dataclass(frozen=True)
class Derivative:
    """Derivatives of a modified score.

    Attributes:
        score: By the score before, in the dtype of accumulation.
        captured: By elements of captured tensors: one for each distinct Gather, without those
            that are 0 everywhere.
    """

    score: Expr
    captured: tuple[Scatter, ...]


def differentiate(score: Expr, slots: Collection[int]) -> Derivative:
    """Derivatives of a modified score: of the score itself, and of elements of captured tensors.

    They are those of PyTorch's autograd, also at kinks, except that the branch of a choice which
    is not taken contributes 0 even where its derivative is infinite. Where the modified score is
    -inf or NaN they may be anything: a gradient must be masked as the score is.

    Args:
        score: float32 or float64, the dtype of accumulation.
        slots: Numbers of the captured tensors whose gradients are wanted. Those that are no floats
            have none.

    Returns:
        Simplified expressions, which share the values of the simplified score; no reduction
        stands inside of one of its own number. The cost is linear in the nodes of ``score``.
    """
    assert score.dtype.is_float
    return _Reverse(with_one_extent_each(simplify(score)), slots).derivative()


class _Reverse:
    def __init__(self, root: Expr, slots: Collection[int]) -> None:
        self.root = root
        self.nodes = list(walk(root))
        self.active = _active(self.nodes, slots)
        self.free = FreeRows()
        # Of reductions over one variable any will do; those around others come later in a walk.
        self.loops = {node.number: node for node in self.nodes if isinstance(node, Reduce)}
        self.pending: dict[Expr, list[Adjoint]] = {}

    def derivative(self) -> Derivative:
        dtype = self.root.dtype
        of_score: Expr = Const(0.0, dtype)
        captured = []
        self.pending[self.root] = [Adjoint(dtype)]
        for node in reversed(self.nodes):
            received = self.pending.pop(node, None)
            adjoint = None if received is None else total(received)
            if adjoint is None:
                continue
            match node:
                case Score():
                    of_score = _result(adjoint, dtype)
                case Gather():
                    captured.append(self.scatter(node, _result(adjoint, dtype)))
                case _:
                    self.hand_down(node, adjoint)
        captured.reverse()
        return Derivative(of_score, tuple(s for s in captured if not _is_zero(s.factor)))

    def hand_down(self, node: Expr, adjoint: Adjoint) -> None:
        """Gives the operands of ``node`` their shares."""
        for operand, share in shares(node, adjoint):
            if share is None or operand not in self.active:
                continue
            rows = self.free.of(node) - self.free.of(operand)
            if isinstance(node, Reduce) and node.number not in self.free.of(operand):
                rows |= {node.number}
            summed = self.summed(share.to(self.adjoint_dtype(operand)), rows)
            if summed is not None:
                self.pending.setdefault(operand, []).append(summed)

    def summed(self, adjoint: Adjoint, rows: Collection[int]) -> Adjoint | None:
        """The sum over the variables of reductions that the receiver does not depend on."""
        for number, loop in self.loops.items():  # the inner ones first
            if number not in rows:
                continue
            if loop.extent == 0:
                return None
            outer = tuple(x for x in adjoint.path if number not in self.free.of(x[0]))
            inner = tuple(x for x in adjoint.path if x not in outer)
            value = adjoint.value
            if not inner and (value is None or number not in self.free.of(value)):
                adjoint = adjoint.scaled(float(loop.extent))
                continue
            body = replace(adjoint, path=inner, coefficient=1.0).as_expr()
            total_ = Reduce(ReduceOp.SUM, number, loop.extent, body)
            adjoint = replace(adjoint, path=outer, value=total_)
        return adjoint

    def scatter(self, gather: Gather, factor: Expr) -> Scatter:
        free = self.free.of(gather)
        rows = [loop for number, loop in self.loops.items() if number in free]
        rows.reverse()
        if not rows:
            return Scatter(gather.slot, gather.indices, factor)
        loops, (factor, *indices) = with_distinct_rows(rows, (factor, *gather.indices))
        return Scatter(gather.slot, tuple(indices), factor, loops)

    def adjoint_dtype(self, node: Expr) -> DType:
        """float64 for float64 values, and for all in a float64 kernel."""
        return DType.FLOAT64 if DType.FLOAT64 in (node.dtype, self.root.dtype) else node.dtype


def _active(nodes: Collection[Expr], slots: Collection[int]) -> set[Expr]:
    """Floats that depend on the score or on an element of a wanted tensor, by floats only."""
    active: set[Expr] = set()
    for node in nodes:
        if not node.dtype.is_float:
            continue
        match node:
            case Score():
                active.add(node)
            case Gather(slot):
                if slot in slots:
                    active.add(node)
            case _:
                if any(child in active for child in node.children):
                    active.add(node)
    return active


def _result(adjoint: Adjoint, dtype: DType) -> Expr:
    return simplify(with_distinct_nesting(adjoint.to(dtype).as_expr()))


def _is_zero(x: Expr) -> bool:
    return isinstance(x, Const) and x.value == 0
