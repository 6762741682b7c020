"""Gradients of captured tensors: sums of what Triton kernels leave, in a fixed order.

Kernels sum what a tile contributes in registers where the element read depends on ``b, h`` and
one index; what is left has one number per tile, row or column, and belongs to the element that the
index map says. Where it depends on the difference of indices, or on anything, a kernel stores a
bounded number of contributions at once, which are summed by diagonals or one by one.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

from attnc.derivative import Scatter
from attnc.evaluate import evaluate
from attnc.render.names import QUERIES, elements
from attnc.runtime.composed import derivative_of
from attnc.scatter import Reduction, reduction_of

if TYPE_CHECKING:
    from attnc.runtime.triton_backward import BackwardPass

# Contributions held at once: 64 MiB in float32, and as many places.
_CHUNK_ELEMENTS = 1 << 24


class CapturedSums:
    """Gradients of the captured tensors of one call, in the making."""

    def __init__(self, backward: BackwardPass, delta: torch.Tensor) -> None:
        spec = backward.spec
        assert spec.gradients is not None
        self.backward = backward
        self.call = backward.call
        self.delta = delta
        self.wanted = spec.gradients.captured
        scatters = () if spec.score is None else derivative_of(spec.score, self.wanted).captured
        self.scatters = dict(enumerate(scatters))
        self.reductions = {n: reduction_of(scatter) for n, scatter in self.scatters.items()}
        self.buffers: dict[int, torch.Tensor] = {}

    def row_buffers(self) -> list[torch.Tensor]:
        """What the kernel of queries sums into: numbers per tile (B, H, tiles), or per row."""
        launcher = self.backward.launchers[QUERIES]
        n_blocks = -(-self.delta.shape[2] // launcher.facts.block_m)
        lengths = {Reduction.UNIFORM: n_blocks, Reduction.ROW: self.delta.shape[2]}
        return self._new_buffers(lengths)

    def column_buffers(self) -> list[torch.Tensor]:
        """What the kernel of keys sums into: numbers per query head and column, (B, H, n_keys)."""
        return self._new_buffers({Reduction.COLUMN: self.call.forward.k.shape[2]})

    def _new_buffers(self, lengths: dict[Reduction, int]) -> list[torch.Tensor]:
        found = {
            number: self.delta.new_empty(*self.delta.shape[:2], lengths[reduction])
            for number, reduction in self.reductions.items()
            if reduction in lengths
        }
        self.buffers |= found
        return list(found.values())

    def store(self) -> None:
        """Fills the gradients of the call."""
        for slot, grad in zip(self.wanted, self.call.grad_captured, strict=True):
            total = torch.zeros(grad.numel(), dtype=torch.float64, device=grad.device)
            for number, scatter in self.scatters.items():
                if scatter.slot == slot and grad.numel():
                    self._add(total, number, scatter)
            grad.copy_(total.reshape(grad.shape))

    def _add(self, total: torch.Tensor, number: int, scatter: Scatter) -> None:
        reduction = self.reductions[number]
        if reduction in (Reduction.DIFFERENCE, Reduction.ELEMENT):
            self._add_elements(total, number, scatter, reduction)
            return
        values = self.buffers[number]
        n_batch, n_heads, length = values.shape
        b, h = self._arange(n_batch)[:, None, None], self._arange(n_heads)[:, None]
        if reduction is Reduction.UNIFORM:
            values = values.sum(dim=2, keepdim=True, dtype=torch.float64)
            length = 1
        at = self._arange(length)
        _add_in_order(total, self._place(scatter, b, h, at, at).expand(values.shape), values)

    def _add_elements(
        self, total: torch.Tensor, number: int, scatter: Scatter, reduction: Reduction
    ) -> None:
        """Adds what single pairs contribute, some tiles of queries at a time."""
        launcher = self.backward.launchers[elements(number)]
        n_programs = self.backward.n_query_programs(launcher)
        is_diagonal = reduction is Reduction.DIFFERENCE
        block_m = launcher.facts.block_m
        n_columns = self.call.forward.k.shape[2] + (block_m - 1 if is_diagonal else 0)
        if n_columns == 0:
            return
        at_once = max(1, _CHUNK_ELEMENTS // (block_m * n_columns))
        rounds = list(itertools.product(*(range(loop.extent) for loop in scatter.rows)))
        for first, rows in itertools.product(range(0, n_programs, at_once), rounds):
            n = min(at_once, n_programs - first)
            values = self.delta.new_zeros(n, block_m, n_columns)
            outputs = [values]
            if not is_diagonal:
                outputs.append(torch.zeros(values.shape, dtype=torch.int64, device=values.device))
            fixed = [*self.backward.inputs(), self.call.forward.lse, self.delta, *outputs]
            self.backward.launch_by_queries(launcher, fixed, [first, n_columns, *rows], n)
            if is_diagonal:
                sums = values.sum(dim=1, dtype=torch.float64)
                _add_in_order(total, self._diagonal_places(scatter, first, sums, block_m), sums)
            else:
                _add_in_order(total, outputs[1], values)

    def _diagonal_places(
        self, scatter: Scatter, first: int, sums: torch.Tensor, block_m: int
    ) -> torch.Tensor:
        """Elements for the diagonals of tiles of queries, (programs, n_columns)."""
        n_heads, n_queries = self.delta.shape[1:]
        n_q_blocks = -(-n_queries // block_m)
        program = first + self._arange(sums.shape[0])[:, None]
        q_block = n_q_blocks - 1 - program % n_q_blocks
        head = program // n_q_blocks
        difference = (q_block + 1) * block_m - 1 - self._arange(sums.shape[1])
        kv_idx = (-difference).clamp(min=0)
        place = self._place(scatter, head // n_heads, head % n_heads, difference + kv_idx, kv_idx)
        return place.expand(sums.shape)

    def _place(
        self,
        scatter: Scatter,
        b: torch.Tensor,
        h: torch.Tensor,
        q_idx: torch.Tensor,
        kv_idx: torch.Tensor,
    ) -> torch.Tensor:
        """Number of the element that is read at these coordinates."""
        forward = self.call.forward
        place = torch.zeros((), dtype=torch.int64, device=self.delta.device)
        for index, size in zip(scatter.indices, forward.tensors[scatter.slot].shape, strict=True):
            at = evaluate(
                index,
                b=b,
                h=h,
                q_idx=q_idx,
                kv_idx=kv_idx,
                tensors=forward.tensors,
                params=forward.params,
            ).to(torch.int64)
            place = place * size + torch.where(at < 0, at + size, at).clamp(0, size - 1)
        return place

    def _arange(self, n: int) -> torch.Tensor:
        return torch.arange(n, dtype=torch.int32, device=self.delta.device)


def _add_in_order(total: torch.Tensor, places: torch.Tensor, values: torch.Tensor) -> None:
    """Adds each value to ``total`` in its place; the sum's order follows from the places alone."""
    places, order = places.reshape(-1).sort(stable=True)
    ordered = values.reshape(-1)[order].to(total.dtype)
    if total.numel() <= places.numel():
        ends = torch.arange(total.numel() + 1, device=total.device)
        offsets = torch.searchsorted(places, ends)
        total += torch.segment_reduce(ordered, "sum", offsets=offsets, initial=0.0)
    elif places.numel():
        # Memory for the places that there are, not for all of a tensor with an element per pair.
        touched, counts = torch.unique_consecutive(places, return_counts=True)
        total[touched] += torch.segment_reduce(ordered, "sum", lengths=counts, initial=0.0)
