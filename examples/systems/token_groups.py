"""Systems whose tokens carry captured groups, kinds or flags that decide who sees whom."""

from __future__ import annotations

from typing import Any

import torch

from attnc import library
from examples.systems.catalogue import Parts, flags, integers, system


@system(
    "BAMM",
    source="BAMM: Bidirectional Autoregressive Motion Model, arXiv:2403.19435",
    shape=(2, 2, 99, 99),
)
def bamm() -> Parts:
    """Tokens given as condition see each other and are seen by all; the others are causal."""
    condition = flags(0.3, 2, 99, seed=200)

    def is_given(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return condition[b, kv_idx]

    def is_generated(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return ~condition[b, q_idx]

    causal = library.causal() & is_generated
    return Parts(causal | is_given, data={"condition": condition})


@system(
    "M2T",
    source="M2T: Masking Transformers Twice for Faster Decoding, arXiv:2304.07313",
    shape=(1, 2, 144, 144),
    from_memory="sizes of groups, and that a group sees itself",
)
def m2t() -> Parts:
    """Tokens are revealed in groups by a fixed schedule; each sees its own group and those before."""
    group = integers(0, 6, 144, seed=201)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return group[kv_idx] <= group[q_idx]

    return Parts(mask, data={"group": group})


@system(
    "MasaCtrl",
    source="MasaCtrl: Tuning-Free Mutual Self-Attention Control for Consistent Image Synthesis and "
    "Editing, arXiv:2304.08465",
    shape=(2, 2, 96, 112),
)
def masactrl() -> Parts:
    """Keys of a source image: foreground sees foreground there, background sees background."""
    target, source = flags(0.4, 2, 96, seed=202), flags(0.4, 2, 112, seed=203)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return target[b, q_idx] == source[b, kv_idx]

    return Parts(mask, data={"target": target, "source": source})


@system(
    "Bounded Attention, self-attention",
    source="Be Yourself: Bounded Attention for Multi-Subject Text-to-Image Generation, "
    "arXiv:2403.16990",
    shape=(2, 2, 100, 100),
)
def bounded_attention() -> Parts:
    """Pixels in boxes of subjects, which may overlap, see those of a common box and background."""
    boxes = integers(0, 8, 2, 100, seed=204)  # bit i: inside the box of subject i

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        own, other = boxes[b, q_idx], boxes[b, kv_idx]
        return (own == 0) | (other == 0) | ((own & other) != 0)

    return Parts(mask, data={"boxes": boxes})


@system(
    "SEEM, groups of queries",
    source="Segment Everything Everywhere All at Once, arXiv:2304.06718",
    shape=(2, 2, 101, 101),
)
def seem_groups() -> Parts:
    """Which kind of query or token reads which other is a table; tokens may be padding."""
    # Queries for objects, texts and places, tokens of texts and of places, memory of places.
    sizes, n_queries = torch.tensor([25, 25, 25, 12, 8, 6]), 75
    kind = torch.arange(6).repeat_interleave(sizes)
    reads = torch.zeros(6, 6, dtype=torch.bool)
    for reader, read in enumerate(([0], [1, 3], [2, 4, 5], [1, 3], [4], [5])):
        reads[reader, read] = True
    is_padding = flags(0.3, 2, 101, seed=205)
    is_padding[:, :n_queries] = is_padding[:, 95:] = False

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        are_real = ~is_padding[b, q_idx] & ~is_padding[b, kv_idx]
        return reads[kind[q_idx], kind[kv_idx]] & are_real

    return Parts(mask, data={"kind": kind, "reads": reads, "is_padding": is_padding})


@system(
    "TLM",
    source="TLM: Token-Level Masking for Transformers, arXiv:2310.18738",
    shape=(2, 2, 97, 97),
)
def tlm() -> Parts:
    """Tokens drawn at random see only themselves or all but themselves; others do not see them."""
    kept, alone = flags(0.8, 2, 97, seed=206), flags(0.5, 2, 97, seed=207)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return torch.where(kept[b, q_idx], kept[b, kv_idx], (q_idx == kv_idx) == alone[b, q_idx])

    return Parts(mask, data={"kept": kept, "alone": alone})
