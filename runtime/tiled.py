"""Attention tile by tile in plain torch operations: what is left without a C++ compiler."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attnc.evaluate import evaluate
from attnc.plan import Plan
from attnc.run_table import Kind
from attnc.runtime.call import Call


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

    def run(self, call: Call) -> None:
        """Fills ``call.out`` and, where asked, ``call.lse`` and ``call.max_scores``."""
        n_batch, n_heads, n_queries = call.q.shape[:3]
        for b in range(n_batch):
            for h in range(n_heads):
                for q_block in range(-(-n_queries // self.block_m)):
                    self._attend(call, b, h, q_block)

    def _attend(self, call: Call, b: int, h: int, q_block: int) -> None:
        spec = self.plan.spec
        rows = slice(q_block * self.block_m, min((q_block + 1) * self.block_m, call.q.shape[2]))
        dtype = torch.float64 if spec.dtype == "float64" else torch.float32
        kv_b = 0 if call.k.shape[0] == 1 else b
        kv_h = h // (call.q.shape[1] // call.k.shape[1])
        q = call.q[b, h, rows].to(dtype) * call.scale
        keys, values = call.k[kv_b, kv_h], call.v[kv_b, kv_h]
        largest = q.new_full((q.shape[0], 1), -torch.inf)
        total = q.new_zeros((q.shape[0], 1))
        out = q.new_zeros((q.shape[0], spec.value_dim))
        for start, stop, kind in self._runs(call, b, h, q_block):
            columns = slice(start * self.block_n, min(stop * self.block_n, call.k.shape[2]))
            scores = self._scores(call, q @ keys[columns].to(dtype).T, b, h, rows, columns, kind)
            new_largest = torch.maximum(largest, scores.amax(dim=1, keepdim=True))
            # A row without a visible key so far would compute -inf - -inf.
            shift = torch.where(new_largest == -torch.inf, 0.0, new_largest)
            weights = (scores - shift).exp()
            factor = (largest - shift).exp()
            total = total * factor + weights.sum(dim=1, keepdim=True)
            out = out * factor + weights @ values[columns].to(dtype)
            largest = new_largest
        call.out[b, h, rows] = (out / torch.where(total == 0, 1.0, total)).to(call.out.dtype)
        if call.lse is not None:
            call.lse[b, h, rows] = torch.where(
                largest == -torch.inf, largest, largest + total.log()
            )[:, 0]
        if call.max_scores is not None:
            call.max_scores[b, h, rows] = largest[:, 0]

    def _scores(
        self,
        call: Call,
        scores: torch.Tensor,
        b: int,
        h: int,
        rows: slice,
        columns: slice,
        kind: Kind,
    ) -> torch.Tensor:
        spec = self.plan.spec
        q_idx = torch.arange(rows.start, rows.stop, dtype=torch.int32)[:, None]
        kv_idx = torch.arange(columns.start, columns.stop, dtype=torch.int32)
        if spec.score is not None:
            value = evaluate(
                spec.score,
                b=b,
                h=h,
                q_idx=q_idx,
                kv_idx=kv_idx,
                score=scores,
                tensors=call.tensors,
                params=call.params,
            )
            scores = value.expand(scores.shape)
        if spec.mask is None or kind is not Kind.PARTIAL:
            return scores
        visible = evaluate(
            spec.mask,
            b=b,
            h=h,
            q_idx=q_idx,
            kv_idx=kv_idx,
            tensors=call.tensors,
            params=call.params,
        )
        return torch.where(visible, scores, -torch.inf)

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
