"""The pairs that a question is about, and values of predicates on them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attnc.evaluate import evaluate
from attnc.intervals import Boxes, Facts, truth_of
from attnc.ir import Expr, IndexName, indices_of

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Domain:
    """All ``b, h, q_idx, kv_idx`` below these extents, and the tensors that predicates read.

    A *group* is one batch and head: ``b * n_heads + h``. ``is_fixed``: the predicates mean nothing at
    other lengths. ``assumed``: B or H, where nobody said how many there are.
    """

    n_batch: int
    n_heads: int
    n_queries: int
    n_keys: int
    facts: Facts = field(default_factory=Facts)
    is_fixed: bool = False
    assumed: frozenset[IndexName] = frozenset()

    @property
    def n_groups(self) -> int:
        return self.n_batch * self.n_heads

    @property
    def n_pairs(self) -> int:
        return self.n_groups * self.n_queries * self.n_keys

    @property
    def limits(self) -> dict[IndexName, int]:
        extents = (self.n_batch, self.n_heads, self.n_queries, self.n_keys)
        return dict(zip(IndexName, extents, strict=True))

    def read_by(self, predicate: Expr) -> Domain:
        """Without batches and heads that ``predicate`` does not tell apart."""
        read = indices_of(predicate)
        return replace(
            self,
            n_batch=self.n_batch if IndexName.B in read else min(self.n_batch, 1),
            n_heads=self.n_heads if IndexName.H in read else min(self.n_heads, 1),
        )

    def limitation(self, predicate: Expr) -> str:
        """What a proof of ``predicate`` says nothing about since no number was given; or ""."""
        unknown = sorted(index.value.upper() for index in self.assumed & indices_of(predicate))
        if not unknown:
            return ""
        sizes = " and ".join(f"{name}=1" for name in unknown)
        return f"for {sizes}, since no number was given, of a mask that reads {', '.join(unknown).lower()}"

    def split_group(self, group: Any) -> tuple[Any, Any]:
        """The batch and the head of groups."""
        return group // self.n_heads, group % self.n_heads

    def values(self, predicate: Expr, group: Ints, q_idx: Ints, kv_idx: Ints) -> Flags:
        """``predicate`` at coordinates that broadcast together."""
        shape = np.broadcast_shapes(group.shape, q_idx.shape, kv_idx.shape)
        # Numbers on the CPU go with tensors of any device.
        tensors = self.facts.tensors
        devices = (t.device for t in tensors if t.dim() or t.device.type != "cpu")
        device = next(devices, torch.device("cpu"))
        b, h, q, kv = (
            torch.from_numpy(np.asarray(x).astype(np.int32)).to(device)
            for x in (*self.split_group(group), q_idx, kv_idx)
        )
        values = evaluate(predicate, b=b, h=h, q_idx=q, kv_idx=kv, tensors=tensors)
        result: Flags = values.expand(shape).cpu().numpy()
        return result

    def value_at(self, expr: Expr, pair: tuple[int, int, int, int]) -> bool | int | float:
        """Value of any expression at one pair."""
        b, h, q_idx, kv_idx = pair
        tensors = self.facts.tensors
        return evaluate(expr, b=b, h=h, q_idx=q_idx, kv_idx=kv_idx, tensors=tensors).item()

    def truths(
        self, predicate: Expr, group: Ints, q_idx: tuple[Ints, Ints], kv_idx: tuple[Ints, Ints]
    ) -> NDArray[np.int8]:
        """``Truth`` of ``predicate`` on boxes; both ends of ranges inclusive."""
        b, h = self.split_group(group)
        return truth_of(predicate, Boxes((b, b), (h, h), q_idx, kv_idx), self.facts)
