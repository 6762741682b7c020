"""Systems whose tokens are nodes of a captured graph and see their neighbours."""

from __future__ import annotations

from typing import Any

import torch

from examples.systems.catalogue import Parts, integers, system


@system(
    "FastMETRO, decoder",
    source="Cross-Attention of Disentangled Modalities for 3D Human Mesh Recovery with "
    "Transformers, arXiv:2207.13820",
    shape=(1, 2, 113, 113),
)
def fastmetro() -> Parts:
    """Joints, the first tokens, see all and are seen by all; a vertex sees its neighbours."""
    n_joints, rows, columns = 14, 9, 11
    row, column = torch.arange(rows * columns) // columns, torch.arange(rows * columns) % columns
    down, right = row[None] - row[:, None], column[None] - column[:, None]
    # A grid of squares cut into two triangles each: no edge along the other diagonal.
    adjacency = (down.abs() <= 1) & (right.abs() <= 1) & ((down - right).abs() <= 1)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        own, other = q_idx - n_joints, kv_idx - n_joints
        are_linked = adjacency[torch.clamp(own, min=0), torch.clamp(other, min=0)]
        return (own < 0) | (other < 0) | are_linked

    return Parts(mask, data={"adjacency": adjacency})


@system(
    "Syntax-guided attention",
    source="Syntax-Guided Transformers: Elevating Compositional Generalization and Grounding in "
    "Multimodal Environments",
    shape=(2, 2, 75, 75),
    from_memory="that a word sees itself too, and its head as its dependents",
)
def syntax_guided() -> Parts:
    """Words see the neighbours that a dependency parse gives: their head and their dependents."""
    n_words = 75
    drawn = integers(0, 1 << 20, 2, n_words, seed=210)
    head = drawn % torch.arange(n_words).clamp(min=1)  # an earlier word; the root's is itself

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        depends = (head[b, q_idx] == kv_idx) | (head[b, kv_idx] == q_idx)
        return (q_idx == kv_idx) | depends

    return Parts(mask, data={"head": head})
