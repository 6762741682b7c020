"""Systems that edit scores by captured regions: of objects, attributes, prompts."""

from __future__ import annotations

from typing import Any

import torch

from examples.systems.catalogue import Parts, flags, integers, system


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
