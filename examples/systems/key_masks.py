"""Systems that hide keys, the same ones from all queries, by captured flags or weights."""

from __future__ import annotations

from typing import Any

import torch

from attnc import library
from examples.systems.catalogue import Parts, flags, integers, normal, system


@system(
    "Zero-guidance segmentation",
    source="Zero-guidance Segmentation Using Zero Segment Labels, arXiv:2303.13396",
    shape=(3, 2, 101, 101),
    from_memory="that patches keep seeing everything; the blend of segment and whole image by "
    "saliency joins the outputs of two calls",
)
def zero_guidance() -> Parts:
    """The same image in each batch row, where its class token sees another segment."""
    segment = flags(0.2, 3, 101, seed=220)
    segment[:, 0] = True  # the class token itself

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (q_idx > 0) | segment[b, kv_idx]

    return Parts(mask, data={"segment": segment})


@system(
    "DialoKG",
    source="DialoKG: Knowledge-Structure Aware Task-Oriented Dialogue Generation, arXiv:2204.09149",
    shape=(2, 2, 120, 120),
    from_memory="the threshold, and that dropped triples do not even see themselves; the released "
    "code leaves triples out of the input instead",
)
def dialokg() -> Parts:
    """Causal; triples of a knowledge graph are seen if the graph gives them enough weight."""
    n_triples, least = 12, 0.1
    weight = normal(2, n_triples + 1, seed=221)
    weight[:, n_triples] = 1.0  # the dialogue, always seen
    triple = integers(0, n_triples, 2, 120, seed=222).sort(dim=1).values
    triple[:, 70:] = n_triples

    def is_relevant(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return weight[b, triple[b, kv_idx]] >= least

    return Parts(library.causal() & is_relevant, data={"weight": weight, "triple": triple})


@system(
    "ViCo",
    source="ViCo: Detail-Preserving Visual Condition for Personalized Text-to-Image Generation, "
    "arXiv:2306.00971",
    shape=(2, 2, 90, 110),
)
def vico() -> Parts:
    """Places of a reference image whose attention to a token exceeds Otsu's threshold."""
    earlier = (0.4 * normal(2, 110, seed=225)).softmax(dim=1)
    lowest, highest = earlier.amin(1, keepdim=True), earlier.amax(1, keepdim=True)
    scaled = (earlier - lowest) / (highest - lowest)
    is_above = scaled[:, None] >= torch.arange(1, 10)[:, None] / 10  # (B, thresholds, keys)
    share = is_above.float().mean(dim=2)
    mean_above = (scaled[:, None] * is_above).mean(dim=2) / share
    mean_below = (scaled[:, None] * ~is_above).mean(dim=2) / (1 - share)
    between = share * (1 - share) * (mean_above - mean_below).square()
    threshold = (between.argmax(dim=1) + 1) / 10

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return scaled[b, kv_idx] >= threshold[b]

    return Parts(mask, data={"scaled": scaled, "threshold": threshold})


@system(
    "Draw an Audio",
    source="Draw an Audio: Leveraging Multi-Instruction for Video-to-Audio Synthesis, "
    "arXiv:2409.06135",
    shape=(2, 2, 50, 128),
    from_memory="that frames without a drawn region hide all their patches",
)
def draw_an_audio() -> Parts:
    """Audio sees, of eight frames of 4 x 4 patches, those inside the regions drawn there."""
    drawn = flags(0.25, 2, 8, 4, 4, seed=226)
    drawn[:, 2] = False

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        frame, patch = kv_idx // 16, kv_idx % 16
        return drawn[b, frame, patch // 4, patch % 4]

    return Parts(mask, data={"drawn": drawn})
