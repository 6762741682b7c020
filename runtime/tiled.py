"""Attention tile by tile in plain torch operations: what is left without a C++ compiler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from attnc.derivative import Derivative
from attnc.evaluate import evaluate
from attnc.ir import Expr
from attnc.plan import Plan
from attnc.run_table import Kind
from attnc.runtime.call import BackwardCall, Call
from attnc.runtime.composed import derivative_of, scattered
from attnc.storage import require_memory


class _Region(NamedTuple):
    """Queries ``rows`` and keys ``columns`` of one batch and head, of one kind."""

    b: int
    h: int
    rows: slice
    columns: slice
    kind: Kind


@dataclass(frozen=True)
class TiledKernel:
    """Follows a plan as a kernel would; EMPTY tiles are skipped, runs of tiles are one product."""

    plan: Plan

    @property
    def block_m(self) -> int:
        return self.plan.tiles.block_m

    @property
    def block_n(self) -> int:
        return self.plan.tiles.block_n

    @property
    def uses_table(self) -> bool:
        return self.plan.uses_table

    @property
    def knows_terms(self) -> bool:
        return False

    def run(self, call: Call) -> None:
        """Fills ``call.out`` and, where asked, ``call.lse`` and ``call.max_scores``."""
        require_memory(q=call.q, k=call.k, v=call.v)
        with torch.no_grad(), torch.autocast(call.q.device.type, enabled=False):
            for b, h, q_block in self._q_blocks(call):
                self._attend(call, b, h, q_block)

    def run_backward(self, call: BackwardCall) -> None:
        """Fills the gradients that ``call`` has tensors for."""
        with torch.no_grad(), torch.autocast(call.grad_out.device.type, enabled=False):
            _Backward(self, call).run()

    def _q_blocks(self, call: Call) -> Iterator[tuple[int, int, int]]:
        n_batch, n_heads, n_queries = call.q.shape[:3]
        for b in range(n_batch):
            for h in range(n_heads):
                for q_block in range(-(-n_queries // self.block_m)):
                    yield b, h, q_block

    def regions(self, call: Call, b: int, h: int, q_block: int) -> Iterator[_Region]:
        """What a block of queries visits."""
        rows = slice(q_block * self.block_m, min((q_block + 1) * self.block_m, call.q.shape[2]))
        for start, stop, kind in self._runs(call, b, h, q_block):
            columns = slice(start * self.block_n, min(stop * self.block_n, call.k.shape[2]))
            yield _Region(b, h, rows, columns, kind)

    def _attend(self, call: Call, b: int, h: int, q_block: int) -> None:
        dtype = self.dtype
        rows = slice(q_block * self.block_m, min((q_block + 1) * self.block_m, call.q.shape[2]))
        kv_b, kv_h = key_head(call, b, h)
        q = call.q[b, h, rows].to(dtype) * call.scale
        keys, values = call.k[kv_b, kv_h], call.v[kv_b, kv_h]
        largest = q.new_full((q.shape[0], 1), -torch.inf)
        total = q.new_zeros((q.shape[0], 1))
        out = q.new_zeros((q.shape[0], self.plan.spec.value_dim))
        for region in self.regions(call, b, h, q_block):
            scores = self.masked(call, q @ keys[region.columns].to(dtype).T, region)
            new_largest = torch.maximum(largest, scores.amax(dim=1, keepdim=True))
            # A row without a visible key so far would compute -inf - -inf.
            shift = torch.where(new_largest == -torch.inf, 0.0, new_largest)
            weights = (scores - shift).exp()
            factor = (largest - shift).exp()
            total = total * factor + weights.sum(dim=1, keepdim=True)
            out = out * factor + weights @ values[region.columns].to(dtype)
            largest = new_largest
        call.out[b, h, rows] = (out / torch.where(total == 0, 1.0, total)).to(call.out.dtype)
        if call.lse is not None:
            call.lse[b, h, rows] = torch.where(
                largest == -torch.inf, largest, largest + total.log()
            )[:, 0]
        if call.max_scores is not None:
            call.max_scores[b, h, rows] = largest[:, 0]

    @property
    def dtype(self) -> torch.dtype:
        """That of accumulation."""
        return torch.float64 if self.plan.spec.dtype == "float64" else torch.float32

    def masked(self, call: Call, scores: torch.Tensor, region: _Region) -> torch.Tensor:
        """Modified scores of a region, -inf where masked; ``scores`` are scaled."""
        spec = self.plan.spec
        if spec.score is not None:
            scores = self.value_of(spec.score, call, region, scores).expand(scores.shape)
        if spec.mask is None or region.kind is not Kind.PARTIAL:
            return scores
        return torch.where(self.value_of(spec.mask, call, region), scores, -torch.inf)

    def value_of(
        self, expr: Expr, call: Call, region: _Region, scores: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Value of ``expr``, which broadcasts to (queries, keys) of the region."""
        rows, columns = region.rows, region.columns
        return evaluate(
            expr,
            b=region.b,
            h=region.h,
            q_idx=torch.arange(rows.start, rows.stop, dtype=torch.int32)[:, None],
            kv_idx=torch.arange(columns.start, columns.stop, dtype=torch.int32),
            score=scores,
            tensors=call.tensors,
            params=call.params,
        )

    def _runs(self, call: Call, b: int, h: int, q_block: int) -> list[tuple[int, int, Kind]]:
        closed_form = self.plan.closed_form
        if closed_form is not None:
            uniforms = {
                name: int(
                    evaluate(
                        expr,
                        b=b,
                        h=h,
                        q_idx=0,
                        kv_idx=0,
                        tensors=call.tensors,
                        params=call.params,
                    )
                )
                for name, expr in closed_form.uniforms.items()
            }
            n_queries, n_keys = call.q.shape[2], call.k.shape[2]
            return closed_form.evaluate(q_block, n_queries, n_keys, call.params, uniforms)
        table = call.table
        assert table is not None, "this kernel reads a table of tiles"
        group = (0 if table.n_batch == 1 else b) * table.n_heads + (0 if table.n_heads == 1 else h)
        row = group * table.n_q_blocks + q_block
        first, last = table.offsets[row : row + 2]
        return [
            (int(table.starts[run]), int(table.stops[run]), Kind(table.kinds[run]))
            for run in range(first, last)
        ]


def key_head(call: Call, b: int, h: int) -> tuple[int, int]:
    """Batch and head of the keys that a query head reads."""
    return 0 if call.k.shape[0] == 1 else b, h // (call.q.shape[1] // call.k.shape[1])


class _Backward:
    """Sums of gradients, in the dtype of accumulation, region after region."""

    def __init__(self, kernel: TiledKernel, call: BackwardCall) -> None:
        self.kernel = kernel
        self.call = call
        self.forward = call.forward
        spec = kernel.plan.spec
        assert spec.gradients is not None, "this kernel runs forward"
        self.slots = spec.gradients.captured
        self.derivative: Derivative | None = None
        if spec.score is not None:
            self.derivative = derivative_of(spec.score, self.slots)
        self.grad_q, self.grad_k, self.grad_v = (
            None if gradient is None else torch.zeros(gradient.shape, dtype=kernel.dtype)
            for gradient in (call.grad_q, call.grad_k, call.grad_v)
        )
        self.captured = [torch.zeros_like(x, dtype=kernel.dtype) for x in call.grad_captured]

    def run(self) -> None:
        for b, h, q_block in self.kernel._q_blocks(self.forward):
            for region in self.kernel.regions(self.forward, b, h, q_block):
                self.add(region)
        call = self.call
        sums = (
            (call.grad_q, self.grad_q),
            (call.grad_k, self.grad_k),
            (call.grad_v, self.grad_v),
            *zip(call.grad_captured, self.captured, strict=True),
        )
        for gradient, total in sums:
            if gradient is not None and total is not None:
                gradient.copy_(total)

    def add(self, region: _Region) -> None:
        forward, dtype = self.forward, self.kernel.dtype
        assert forward.lse is not None, "a backward pass needs the log-sum-exp"
        b, h, rows, columns, _ = region
        kv_b, kv_h = key_head(forward, b, h)
        q = forward.q[b, h, rows].to(dtype)
        keys = forward.k[kv_b, kv_h, columns].to(dtype)
        values = forward.v[kv_b, kv_h, columns].to(dtype)
        grad_out = self.call.grad_out[b, h, rows].to(dtype)
        plain = (q * forward.scale) @ keys.T
        scores = self.kernel.masked(forward, plain, region)
        lse = forward.lse[b, h, rows, None]
        # A row that sees nothing would compute exp(-inf - -inf).
        weights = torch.where(scores == -torch.inf, scores, scores - lse).exp()
        is_seen = weights != 0
        if self.grad_v is not None:
            self.grad_v[kv_b, kv_h, columns] += weights.T @ grad_out
        mean = (grad_out * forward.out[b, h, rows].to(dtype)).sum(dim=1, keepdim=True)
        if self.call.grad_lse is not None:
            mean = mean - self.call.grad_lse[b, h, rows, None]
        by_score = torch.where(is_seen, weights * (grad_out @ values.T - mean), 0.0)
        if self.grad_q is not None or self.grad_k is not None:
            by_plain = by_score * forward.scale
            if self.derivative is not None:
                by_plain = by_plain * self.factor_of(self.derivative.score, region, plain, is_seen)
            if self.grad_q is not None:
                self.grad_q[b, h, rows] += by_plain @ keys
            if self.grad_k is not None:
                self.grad_k[kv_b, kv_h, columns] += by_plain.T @ q
        for slot, total in zip(self.slots, self.captured, strict=True):
            assert self.derivative is not None
            total += scattered(
                self.derivative.captured,
                slot,
                by_score,
                forward.tensors[slot],
                lambda expr: self.factor_of(expr, region, plain, is_seen),
                lambda expr: self.kernel.value_of(expr, forward, region, plain),
            )

    def factor_of(
        self, expr: Expr, region: _Region, plain: torch.Tensor, is_seen: torch.Tensor
    ) -> torch.Tensor:
        """Value of a derivative where something is seen, 0 elsewhere."""
        value = self.kernel.value_of(expr, self.forward, region, plain)
        return torch.where(is_seen, value, 0.0)
