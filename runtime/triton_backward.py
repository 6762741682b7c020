"""Gradients by Triton kernels: which functions are launched, in which order, on what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

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


def run_backward(call: BackwardCall, facts: KernelFacts, launchers: Mapping[str, Launcher]) -> None:
    """Fills the gradients that ``call`` has tensors for.

    What no function of the kernel computes is 0: without live products, q and k do not matter.
    """
    delta = _delta(call, facts, launchers) if DELTA in launchers else None
    if call.grad_q is not None:
        if QUERIES in launchers:
            assert delta is not None
            _launch_queries(call, facts, launchers[QUERIES], call.grad_q, delta)
        else:
            call.grad_q.zero_()
    if call.grad_k is not None and delta is None:
        call.grad_k.zero_()
    if KEYS in launchers:
        _launch_keys(call, facts, launchers[KEYS], delta)


def _delta(
    call: BackwardCall, facts: KernelFacts, launchers: Mapping[str, Launcher]
) -> torch.Tensor:
    """out . grad_out of each query, less the gradient of its lse."""
    forward = call.forward
    assert forward.lse is not None
    n_batch, n_heads, n_queries = forward.q.shape[:3]
    n_q_blocks = -(-n_queries // facts.block_m)
    delta = torch.empty_like(forward.lse)
    grad_lse = forward.lse if call.grad_lse is None else call.grad_lse
    fixed = [forward.out, *forward.out.stride(), call.grad_out, *call.grad_out.stride()]
    fixed += [grad_lse, delta]
    moving = [int(call.grad_lse is not None), n_heads, n_queries, n_q_blocks]
    launchers[DELTA].launch(forward.q.device, n_q_blocks * n_heads * n_batch, fixed, moving)
    return delta


def _launch_queries(
    call: BackwardCall,
    facts: KernelFacts,
    launcher: Launcher,
    grad_q: torch.Tensor,
    delta: torch.Tensor,
) -> None:
    forward = call.forward
    n_batch, n_heads, n_queries = forward.q.shape[:3]
    n_q_blocks = -(-n_queries // facts.block_m)
    fixed = _inputs(call)
    fixed += [grad_q, *grad_q.stride(), forward.lse, delta]
    n_keys, group_size = forward.k.shape[2], n_heads // forward.k.shape[1]
    moving = [forward.scale, n_heads, n_queries, n_keys, group_size, n_q_blocks]
    add_captured(fixed, moving, forward, facts)
    if facts.uses_table:
        fixed += table_arguments(table_of(forward, facts), forward.q.device)
    launcher.launch(forward.q.device, n_q_blocks * n_heads * n_batch, fixed, moving)


def _launch_keys(
    call: BackwardCall, facts: KernelFacts, launcher: Launcher, delta: torch.Tensor | None
) -> None:
    forward = call.forward
    n_batch, n_heads, n_queries = forward.q.shape[:3]
    kv_batch, kv_heads, n_keys = forward.k.shape[:3]
    n_kv_blocks = -(-n_keys // facts.block_n)
    fixed = _inputs(call)
    if call.grad_k is not None and delta is not None:
        fixed += [call.grad_k, *call.grad_k.stride()]
    if call.grad_v is not None:
        fixed += [call.grad_v, *call.grad_v.stride()]
    fixed.append(forward.lse)
    if call.grad_k is not None and delta is not None:
        fixed.append(delta)
    group_size = n_heads // kv_heads
    n_readers = group_size * (n_batch // kv_batch)
    moving = [forward.scale, n_heads, n_queries, n_keys, group_size, n_kv_blocks, kv_heads]
    moving.append(n_readers)
    add_captured(fixed, moving, forward, facts)
    if facts.uses_table:
        table = table_of(forward, facts)
        fixed += table_arguments(table, forward.q.device, is_transposed=True)
    launcher.launch(forward.q.device, n_kv_blocks * kv_heads * kv_batch, fixed, moving)


def _inputs(call: BackwardCall) -> list[Any]:
    forward, grad_out = call.forward, call.grad_out
    q, k, v = forward.q, forward.k, forward.v
    inputs = [q, *q.stride(), k, *kv_strides(k), v, *kv_strides(v)]
    return [*inputs, grad_out, *grad_out.stride()]
