"""Where captured tensors are read out of bounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from attnc.ir import (
    FALSE,
    Binary,
    BinaryOp,
    Cast,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    Gather,
    Reduce,
    ReduceOp,
    RowIndex,
    walk,
)


@dataclass(frozen=True)
class IndexUse:
    """One index of one read of a captured tensor; ``outside`` is where it lies out of bounds."""

    gather: Gather
    axis: int
    size: int
    outside: Expr

    @property
    def index(self) -> Expr:
        return self.gather.indices[self.axis]


def index_uses(
    expr: Expr, tensors: Sequence[torch.Tensor], allow_negative: bool
) -> Iterator[IndexUse]:
    """Every index of every read in ``expr`` that may be out of bounds by its form."""
    extents = {node.number: node.extent for node in walk(expr) if isinstance(node, Reduce)}
    for node in walk(expr):
        if not isinstance(node, Gather):
            continue
        for axis, (index, size) in enumerate(
            zip(node.indices, tensors[node.slot].shape, strict=True)
        ):
            outside = _outside(index, size, extents, allow_negative)
            if outside is not FALSE:
                yield IndexUse(node, axis, size, outside)


def _outside(index: Expr, size: int, extents: dict[int, int], allow_negative: bool) -> Expr:
    least = -size if allow_negative else 0
    match index:
        case RowIndex(number) if extents[number] <= size:
            return FALSE
        # A negative number that was written is meant from the end.
        case Const(int(value)) if -size <= value < size:
            return FALSE
    highest = (1 << 31) - 1 if index.dtype is DType.INT32 else (1 << 63) - 1
    outside: Expr = Compare(CompareOp.LT, index, Const(least, index.dtype))
    if size <= highest:
        above = Compare(CompareOp.GE, index, Const(size, index.dtype))
        outside = Binary(BinaryOp.OR, outside, above)
    for number in sorted({node.number for node in walk(index) if isinstance(node, RowIndex)}):
        found = Reduce(ReduceOp.MAX, number, extents[number], Cast(outside, DType.INT32))
        outside = Compare(CompareOp.GT, found, Const(0, DType.INT32))
    return outside
