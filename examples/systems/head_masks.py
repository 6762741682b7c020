"""Systems whose heads see different keys, by captured numbers or by the number of the head."""

from __future__ import annotations

from typing import Any

import torch

from attnc import library
from examples.systems.catalogue import Parts, integers, system


@system(
    "MW-MAE",
    source="Masked Autoencoders with Multi-Window Local-Global Attention Are Better Audio "
    "Learners, arXiv:2306.00561",
    shape=(1, 4, 125, 125),
)
def mw_mae() -> Parts:
    """Each head has windows of its own size, or sees all."""
    size = torch.tensor([2, 5, 25, 0], dtype=torch.int32)  # 0: all

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        divisor = torch.clamp(size[h], min=1)
        return (size[h] == 0) | (q_idx // divisor == kv_idx // divisor)

    return Parts(mask, data={"size": size})


@system(
    "MoA, mixture of sparse attention",
    source="MoA: Mixture of Sparse Attention for Automatic Large Language Model Compression, "
    "arXiv:2406.14909",
    shape=(1, 4, 150, 150),
    from_memory="that the rule of a head is linear in the length",
)
def moa() -> Parts:
    """Each head has first keys and a span of its own, which grows with the length by its rule."""
    length = 150
    base, growth = torch.tensor([7, 15, 3, 31]), torch.tensor([0.5, 0.125, 0.25, 0.0])
    left = (base + growth * length).int()
    n_sinks = torch.tensor([1, 4, 2, 16], dtype=torch.int32)
    mask = library.windows_per_head(left, n_sinks)
    return Parts(mask, data={"left": left, "n_sinks": n_sinks})


@system(
    "SASA",
    source="Semantics-aware Attention Improves Neural Machine Translation, arXiv:2110.06920",
    shape=(2, 4, 90, 90),
    from_memory="that the mask is hard, and that a word of no scene sees itself; SACrA has scenes "
    "of target words in place of the queries'",
)
def sasa() -> Parts:
    """One head is confined to words that share a scene of the sentence; words may be in many."""
    scenes, head = integers(0, 16, 2, 90, seed=260), 2  # bit i: part of scene i

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        share_scene = (scenes[b, q_idx] & scenes[b, kv_idx]) != 0
        return (h != head) | share_scene | (q_idx == kv_idx)

    return Parts(mask, data={"scenes": scenes})


@system(
    "Pattern injection",
    source="Human Guided Exploitation of Interpretable Attention Patterns in Summarization and "
    "Topic Segmentation, arXiv:2112.05364",
    shape=(2, 4, 93, 93),
    from_memory="that patterns are masks, one for a head",
)
def pattern_injection() -> Parts:
    """One head sees equal words, one its sentence, one the words beside it; others see all."""
    word = integers(0, 30, 2, 93, seed=261)
    sentence = integers(0, 7, 2, 93, seed=262).sort(dim=1).values

    def is_not(head: int) -> Any:
        return lambda b, h, q_idx, kv_idx: h != head

    mask = library.documents(word) | is_not(0)
    mask &= library.documents(sentence) | is_not(1)
    mask &= library.sliding_window(1, 1) | is_not(2)
    return Parts(mask, data={"word": word, "sentence": sentence})


@system(
    "S2-Attention",
    source="Efficient LLM Training and Serving with Heterogeneous Context Sharding among Attention "
    "Heads, arXiv:2407.17678",
    shape=(1, 4, 128, 128),
)
def s2_attention() -> Parts:
    """The last blocks, and every fourth block of the past: another one for each head."""
    block, n_local, stride = 4, 2, 4

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        q_block, kv_block = q_idx // block, kv_idx // block
        near = q_block - kv_block < n_local
        return (q_idx >= kv_idx) & (near | ((kv_block + h + 1) % stride == 0))

    return Parts(mask)


@system(
    "Sparse VideoGen",
    source="Sparse VideoGen: Accelerating Video Diffusion Transformers with Spatial-Temporal "
    "Sparsity, arXiv:2502.01776",
    shape=(1, 4, 163, 163),
)
def sparse_videogen() -> Parts:
    """Heads see either near frames or near places in all frames; text sees all and is seen."""
    n_text, n_frame, n_frames, width = 19, 24, 6, 2
    is_temporal = torch.tensor([0, 1, 1, 0], dtype=torch.int32)  # as found for each head

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        apart = (q_idx - n_text) % n_frame - (kv_idx - n_text) % n_frame
        spatial = torch.abs(q_idx - kv_idx) < width * n_frame
        temporal = torch.abs(apart) < width * n_frame // n_frames
        near = torch.where(is_temporal[h] == 0, spatial, temporal)
        return (q_idx < n_text) | (kv_idx < n_text) | near

    return Parts(mask, data={"is_temporal": is_temporal})
