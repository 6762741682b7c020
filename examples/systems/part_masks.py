"""Systems whose tokens fall into parts, at fixed places, that read each other or do not."""

from __future__ import annotations

from typing import Any

import torch

from examples.systems.catalogue import Parts, system


@system(
    "Learnable Memory ViT",
    source="Fine-tuning Image Transformers using Learnable Memory, arXiv:2203.15243",
    shape=(1, 2, 103, 118),
    from_memory="the order of tokens",
)
def learnable_memory_vit() -> Parts:
    """Three tasks, each with a class token and memory that no earlier task and no patch reads."""
    n_base, n_tasks, n_memory = 100, 3, 5  # patches and the first class token; then the tasks
    n_tokens = n_base + n_tasks

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        reader = torch.clamp(q_idx - (n_base - 1), min=0)  # task of a query, 0 for the base
        of_token = torch.clamp(kv_idx - (n_base - 1), min=0)
        of_memory = (kv_idx - n_tokens) // n_memory + 1
        return torch.where(kv_idx < n_tokens, of_token, of_memory) <= reader

    return Parts(mask)


@system(
    "ROMTrack",
    source="Robust Object Modeling for Visual Tracking, arXiv:2308.05140",
    shape=(1, 2, 112, 112),
)
def romtrack() -> Parts:
    """Hybrid template, inherent template, search: the inherent one reads only itself."""
    n_template = 24

    def is_inherent(i: Any) -> Any:
        return (i >= n_template) & (i < 2 * n_template)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return ~is_inherent(q_idx) | is_inherent(kv_idx)

    return Parts(mask)


@system(
    "RPO",
    source="Read-only Prompt Optimization for Vision-Language Few-shot Learning, arXiv:2308.14960",
    shape=(1, 2, 125, 125),
)
def rpo() -> Parts:
    """Prompts, the last 24 tokens, read the frozen tokens; nothing reads a prompt."""
    n_frozen = 101

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return kv_idx < n_frozen

    return Parts(mask)
