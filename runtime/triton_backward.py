"""Gradients by Triton kernels: which functions are launched, in which order, on what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from attnc.ir import reads_score
from attnc.plan import Spec
from attnc.render.names import DELTA, KEYS, QUERIES
from attnc.runtime.call import BackwardCall
from attnc.runtime.triton_build import KernelFacts
from attnc.runtime.triton_launch import (
    Launcher,
    add_captured,
    kv_strides,
    table_arguments,
    table_of,
)


@dataclass(frozen=True)
class BackwardPass:
    """A backward kernel and one call of it."""

    spec: Spec
    facts: KernelFacts
    launchers: Mapping[str, Launcher]
    call: BackwardCall

    def run(self) -> None:
        """Fills the gradients that the call has tensors for."""
        from attnc.runtime.triton_captured import CapturedSums

        call = self.call
        if not self.is_live:  # nothing depends on q and k
            for grad in (call.grad_q, call.grad_k):
                if grad is not None:
                    grad.zero_()
        delta = self._delta() if DELTA in self.launchers else None
        captured = CapturedSums(self, delta) if call.grad_captured and delta is not None else None
        if QUERIES in self.launchers:
            fixed = [] if captured is None else captured.row_buffers()
            self._by_queries(fixed, delta)
        if KEYS in self.launchers:
            fixed = [] if captured is None else captured.column_buffers()
            self._by_keys(fixed, delta)
        if captured is not None:
            captured.store()
            return
        for grad in call.grad_captured:
            grad.zero_()

    @property
    def is_live(self) -> bool:
        """Whether anything depends on q and k at all."""
        return self.spec.score is None or reads_score(self.spec.score)

    def _delta(self) -> torch.Tensor:
        """out . grad_out of each query, less the gradient of its lse."""
        call, forward, launcher = self.call, self.call.forward, self.launchers[DELTA]
        assert forward.lse is not None
        n_batch, n_heads, n_queries = forward.q.shape[:3]
        n_q_blocks = -(-n_queries // launcher.facts.block_m)
        delta = torch.empty_like(forward.lse)
        grad_lse = forward.lse if call.grad_lse is None else call.grad_lse
        fixed = [forward.out, *forward.out.stride(), call.grad_out, *call.grad_out.stride()]
        fixed += [grad_lse, delta]
        moving = [int(call.grad_lse is not None), n_heads, n_queries, n_q_blocks]
        launcher.launch(forward.q.device, n_q_blocks * n_heads * n_batch, fixed, moving)
        return delta

    def _by_queries(self, sums: list[torch.Tensor], delta: torch.Tensor | None) -> None:
        grad_q, fixed = self.call.grad_q, self.inputs()
        if grad_q is not None and self.is_live:
            fixed += [grad_q, *grad_q.stride()]
        fixed += [self.call.forward.lse, delta, *sums]
        launcher = self.launchers[QUERIES]
        self.launch_by_queries(launcher, fixed, [], self.n_query_programs(launcher))

    def n_query_programs(self, launcher: Launcher) -> int:
        """How many tiles of queries there are."""
        n_batch, n_heads, n_queries = self.call.forward.q.shape[:3]
        return n_batch * n_heads * -(-n_queries // launcher.facts.block_m)

    def launch_by_queries(
        self, launcher: Launcher, fixed: list[Any], moving: list[Any], n_programs: int
    ) -> None:
        """Launches a function whose tiles of queries go over keys.

        ``fixed`` are its arguments before those of captured tensors, ``moving`` those after
        lengths.
        """
        forward = self.call.forward
        n_heads, n_queries = forward.q.shape[1:3]
        n_q_blocks = -(-n_queries // launcher.facts.block_m)
        group_size, n_keys = n_heads // forward.k.shape[1], forward.k.shape[2]
        lengths = [forward.scale, n_heads, n_queries, n_keys, group_size, n_q_blocks]
        fixed, moving = [*fixed], [*lengths, *moving]
        add_captured(fixed, moving, forward, self.facts)
        if self.facts.uses_table:
            fixed += self._table(launcher, is_transposed=False)
        launcher.launch(forward.q.device, n_programs, fixed, moving)

    def _by_keys(self, sums: list[torch.Tensor], delta: torch.Tensor | None) -> None:
        call, forward, launcher = self.call, self.call.forward, self.launchers[KEYS]
        n_batch, n_heads, n_queries = forward.q.shape[:3]
        kv_batch, kv_heads, n_keys = forward.k.shape[:3]
        n_kv_blocks = -(-n_keys // launcher.facts.block_n)
        fixed = self.inputs()
        wants_key = call.grad_k is not None and self.is_live
        if call.grad_k is not None and wants_key:
            fixed += [call.grad_k, *call.grad_k.stride()]
        if call.grad_v is not None:
            fixed += [call.grad_v, *call.grad_v.stride()]
        fixed.append(forward.lse)
        if wants_key or sums:
            fixed.append(delta)
        fixed += sums
        group_size = n_heads // kv_heads
        n_readers = group_size * (n_batch // kv_batch)
        moving = [forward.scale, n_heads, n_queries, n_keys, group_size, n_kv_blocks, kv_heads]
        moving.append(n_readers)
        add_captured(fixed, moving, forward, self.facts)
        if self.facts.uses_table:
            fixed += self._table(launcher, is_transposed=True)
        launcher.launch(forward.q.device, n_kv_blocks * kv_heads * kv_batch, fixed, moving)

    def _table(self, launcher: Launcher, *, is_transposed: bool) -> tuple[Any, ...]:
        forward = self.call.forward
        return table_arguments(
            table_of(forward, launcher.facts),
            forward.q.device,
            knows_terms=self.facts.knows_terms,
            is_transposed=is_transposed,
        )

    def inputs(self) -> list[Any]:
        """The first arguments of every function that goes over tiles."""
        forward, grad_out = self.call.forward, self.call.grad_out
        q, k, v = forward.q, forward.k, forward.v
        inputs = [q, *q.stride(), k, *kv_strides(k), v, *kv_strides(v)]
        return [*inputs, grad_out, *grad_out.stride()]
