"""Systems that hide keys, the same ones from all queries, by captured flags or weights."""

from __future__ import annotations

from typing import Any

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
    from_memory="the threshold, and that dropped triples do not even see themselves",
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
    "DesignEdit",
    source="DesignEdit: Multi-Layered Latent Decomposition and Fusion for Unified & Accurate "
    "Image Editing, arXiv:2403.14487",
    shape=(2, 2, 121, 121),
    from_memory="that the mask is resized to a layer by taking every second pixel",
)
def designedit() -> Parts:
    """Nothing sees the region to be removed, which is drawn at twice the layer's resolution."""
    side = 11
    removed = flags(0.3, 2, 2 * side, 2 * side, seed=223)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return ~removed[b, kv_idx // side * 2, kv_idx % side * 2]

    return Parts(mask, data={"removed": removed})


@system(
    "Masked denoising",
    source="Masked Image Training for Generalizable Deep Image Denoising, arXiv:2303.13132",
    shape=(2, 2, 144, 144),
    from_memory="windows as in Swin; that a masked token is hidden as a key and does not even see "
    "itself",
)
def masked_denoising() -> Parts:
    """Windows of an image in which tokens drawn at random are hidden."""
    hidden = flags(0.75, 2, 144, seed=224)

    def is_kept(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return ~hidden[b, kv_idx]

    return Parts(library.windows((12, 12), 4) & is_kept, data={"hidden": hidden})


@system(
    "ViCo",
    source="ViCo: Detail-Preserving Visual Condition for Personalized Text-to-Image Generation, "
    "arXiv:2306.00971",
    shape=(2, 2, 90, 110),
    from_memory="that the threshold is one number for each image",
)
def vico() -> Parts:
    """Keys of a reference image, of which attention of an earlier pass above a threshold is left."""
    earlier = normal(2, 110, seed=225).softmax(dim=1)
    threshold = earlier.mean(dim=1)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return earlier[b, kv_idx] > threshold[b]

    return Parts(mask, data={"earlier": earlier, "threshold": threshold})


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
