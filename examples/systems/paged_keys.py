"""Systems whose keys lie in pages of a cache, in no order."""

from __future__ import annotations

from typing import Any

import torch

from attnc import library
from examples.systems.catalogue import Parts, normal, system


@system(
    "FlexAttention, paged",
    source="Flex Attention: A Programming Model for Generating Optimized Attention Kernels, "
    "arXiv:2412.05496",
    shape=(2, 4, 75, 160),
)
def flex_attention_paged() -> Parts:
    """A mask and a learned score of logical places, run on the pages of a shared cache."""
    size = 16
    # Which page of its row's sequence a physical page is; -1: of another sequence.
    logical = torch.tensor(
        [[3, -1, 0, -1, 1, 4, -1, -1, 2, -1], [-1, 2, -1, 4, -1, -1, 0, 3, -1, 1]]
    ).int()
    slopes = library.alibi_slopes(4) * (1.0 + 0.1 * normal(4, seed=90))
    alibi, causal = library.alibi(slopes), library.causal()

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        place = logical[b, kv_idx // size] * size + kv_idx % size
        return alibi(s, b, h, q_idx, place)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        page = logical[b, kv_idx // size]
        return (page >= 0) & causal(b, h, q_idx, page * size + kv_idx % size)

    return Parts(mask, score, {"logical": logical, "slopes": slopes}, learned=("slopes",))
