"""Systems that edit scores by captured regions: of objects, attributes, prompts."""

from __future__ import annotations

from typing import Any

import torch

import attnc
from attnc import library
from examples.systems.catalogue import Parts, flags, integers, normal, system


@system(
    "Attentive Eraser",
    source="Attentive Eraser: Unleashing Diffusion Model's Object Removal Potential via "
    "Self-Attention Redirection Guidance, arXiv:2412.12974",
    shape=(2, 2, 121, 121),
)
def attentive_eraser() -> Parts:
    """Nothing sees the object; rows inside it are flattened."""
    removed = flags(0.3, 2, 121, seed=60)

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return torch.where(removed[b, q_idx], 0.3 * s, s)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return ~removed[b, kv_idx]

    return Parts(mask, score, {"removed": removed})


@system(
    "MAKIMA",
    source="MAKIMA: Tuning-free Multi-Attribute Open-domain Video Editing via Mask-Guided "
    "Attention Modulation, arXiv:2412.19978",
    shape=(2, 2, 130, 130),
    from_memory="that scores are raised and lowered by a constant, and not where there is no "
    "attribute",
)
def makima() -> Parts:
    """Scores between tokens of one attribute are raised, those across attributes lowered."""
    attribute = integers(0, 4, 2, 130, seed=61)

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        own, other = attribute[b, q_idx], attribute[b, kv_idx]
        edited = torch.where(own == other, s + 1.5, s - 2.5)
        return torch.where((own == 0) | (other == 0), s, edited)

    return Parts(score=score, data={"attribute": attribute})


@system(
    "FALIP",
    source="FALIP: Visual Prompt as Foveal Attention Boosts CLIP Zero-Shot Performance, "
    "arXiv:2407.05578",
    shape=(2, 2, 101, 101),
    from_memory="that only the class token is affected",
)
def falip() -> Parts:
    """The class token's scores are raised around a prompted place, like in a fovea."""
    side, centre = 10, torch.tensor([[2.5, 3.0], [7.0, 6.5]])
    place = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    distance = (place - centre[:, None]).square().sum(-1)
    fovea = torch.cat([torch.zeros(2, 1), 2.0 * torch.exp(-distance / 8.0)], dim=1)

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return torch.where(q_idx == 0, s + fovea[b, kv_idx], s)

    return Parts(score=score, data={"fovea": fovea})


@system(
    "DesignEdit",
    source="DesignEdit: Multi-Layered Latent Decomposition and Fusion for Unified & Accurate "
    "Image Editing, arXiv:2403.14487",
    shape=(2, 2, 121, 121),
)
def designedit() -> Parts:
    """Keys inside the region to be removed become zero, partly at its border: so do scores."""
    side = 11
    removed = torch.zeros(2, 1, 2 * side, 2 * side)
    removed[1, :, 3:16, 7:18] = 1.0  # in the layer that is painted anew; the other is the source
    kept = 1 - torch.nn.functional.interpolate(removed, size=(side, side), mode="bilinear")
    kept = kept.flatten(1)

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return s * kept[b, kv_idx]

    return Parts(score=score, data={"kept": kept})


@system(
    "Masked denoising",
    source="Masked Image Training for Generalizable Deep Image Denoising, arXiv:2303.13132",
    shape=(2, 2, 144, 144),
    from_memory="Q, K and V without bias, so that those of hidden tokens are zero",
)
def masked_denoising() -> Parts:
    """Windows of Swin where tokens drawn at random are zero: of their scores the table is left."""
    hidden = flags(0.75, 2, 144, seed=224)
    table = normal(2, 7, 7, seed=227)

    def hide(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return torch.where(hidden[b, q_idx] | hidden[b, kv_idx], 0.0, s)

    return Parts(
        library.windows((12, 12), 4, shift=2),
        attnc.kernel(hide).then(library.relative_bias_2d(table, (12, 12))),
        {"hidden": hidden, "table": table},
        learned=("table",),
    )
