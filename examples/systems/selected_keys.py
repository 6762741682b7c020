"""Systems that choose keys, or blocks of keys, before attention: the choice is captured."""

from __future__ import annotations

from typing import Any

import torch

from attnc import library
from examples.systems.catalogue import Parts, normal, system


@system(
    "MoBA",
    source="MoBA: Mixture of Block Attention for Long-Context LLMs, arXiv:2502.13189",
    shape=(1, 2, 120, 120),
)
def moba() -> Parts:
    """The own block, and the earlier blocks whose mean key fits a query best."""
    n, block, n_chosen = 120, 12, 3
    fit = normal(1, 2, n, n // block, seed=100)
    own = torch.arange(n)[:, None] // block
    fit = fit.masked_fill(torch.arange(n // block) > own, -torch.inf)
    fit = fit.masked_fill(torch.arange(n // block) == own, torch.inf)
    chosen = fit >= fit.topk(n_chosen).values[..., -1:]

    def routed(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return chosen[b, h, q_idx, kv_idx // block]

    return Parts(library.causal() & routed, data={"chosen": chosen})


@system(
    "DMA",
    source="Trainable Dynamic Mask Sparse Attention, arXiv:2508.02124",
    shape=(1, 2, 128, 128),
)
def dma() -> Parts:
    """A learned bias of each key; a query sees the keys up to it with the largest ones."""
    n, width = 128, 24
    bias = normal(1, 2, n, seed=101)
    threshold = torch.stack(
        [bias[..., : i + 1].topk(min(width, i + 1)).values[..., -1] for i in range(n)], dim=-1
    )

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return s + bias[b, h, kv_idx]

    def largest(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return bias[b, h, kv_idx] >= threshold[b, h, q_idx]

    mask = library.causal() & largest
    return Parts(mask, score, {"bias": bias, "threshold": threshold}, learned=("bias",))
