"""What is known besides the boxes: captured tensors, parameters, the nodes of each mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from attnc.evaluate import evaluate
from attnc.intervals.pyramid import TensorRanges
from attnc.ir import KV_IDX, Q_IDX, DType, Expr, Index, IndexName, Level, Ref, Score, replaced, walk


@dataclass
class Facts:
    """What is known besides the boxes: captured tensors by slot, values of ``Param``s by number.

    Keep one object for many calls: it holds the range structures of the tensors.
    """

    tensors: Sequence[torch.Tensor] = ()
    params: Sequence[bool | int | float] | None = None
    _ranges: dict[tuple[int, DType], TensorRanges] = field(default_factory=dict)
    _loaded: dict[Expr, TensorRanges] = field(default_factory=dict)
    _mirrored: dict[Expr, Expr] = field(default_factory=dict)
    _levels: dict[Expr, tuple[tuple[Expr, Level], ...]] = field(default_factory=dict)

    def ranges_of(self, slot: int, load_dtype: DType) -> TensorRanges:
        """Range structure of a captured tensor, built at first use."""
        key = slot, load_dtype
        if key not in self._ranges:
            self._ranges[key] = TensorRanges.of(self.tensors[slot], load_dtype)
        return self._ranges[key]

    def ranges_over(self, node: Expr, extents: Mapping[IndexName, int]) -> TensorRanges:
        """Range structure of the values of ``node`` at all coordinates below ``extents``.

        They are those that it reads, in the order of its dimensions.
        """
        shape = tuple(extents.values())
        known = self._loaded.get(node)
        if known is None or any(size < n for size, n in zip(known.sizes, shape, strict=True)):
            known = TensorRanges.of(self._values_of(node, extents), node.dtype)
            self._loaded[node] = known
        return known

    def _values_of(self, node: Expr, extents: Mapping[IndexName, int]) -> torch.Tensor:
        # Numbers on the CPU go with tensors of any device.
        devices = (t.device for t in self.tensors if t.dim() or t.device.type != "cpu")
        device = next(devices, torch.device("cpu"))
        at = {name: torch.zeros((), dtype=torch.int32, device=device) for name in IndexName}
        for axis, (name, n) in enumerate(extents.items()):
            shape = [n if axis == i else 1 for i in range(len(extents))]
            at[name] = torch.arange(n, dtype=torch.int32, device=device).reshape(shape)
        values = evaluate(
            node,
            b=at[IndexName.B],
            h=at[IndexName.H],
            q_idx=at[IndexName.Q],
            kv_idx=at[IndexName.KV],
            tensors=self.tensors,
            params=self.params or (),
        )
        return values.expand(tuple(extents.values()))

    def mirrored(self, node: Expr) -> Expr:
        """``node`` with ``q_idx`` in place of ``kv_idx``."""
        if node not in self._mirrored:
            self._mirrored[node] = replaced(node, {KV_IDX: Q_IDX})
        return self._mirrored[node]

    def levels_of(self, mask: Expr) -> tuple[tuple[Expr, Level], ...]:
        """The nodes of ``mask``, operands first, each with how often it changes inside a tile."""
        if mask not in self._levels:
            self._levels[mask] = tuple(_levels(mask).items())
        return self._levels[mask]


def _levels(mask: Expr) -> dict[Expr, Level]:
    levels: dict[Expr, Level] = {}
    for node in walk(mask):
        match node:
            case Index(IndexName.Q):
                level = Level.ROW
            case Index(IndexName.KV):
                level = Level.COLUMN
            case Score():
                level = Level.ELEMENT
            case Ref(_, _, ref_level):
                level = ref_level
            case _:
                level = Level.UNIFORM
        for child in node.children:
            level = level.join(levels[child])
        levels[node] = level
    return levels
