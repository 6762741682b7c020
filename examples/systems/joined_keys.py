"""Systems whose keys are those of the image itself and, after them, those of a reference."""

from __future__ import annotations

from typing import Any

import torch

from attnc import library
from examples.systems.catalogue import Parts, flags, integers, system


@system(
    "MaX4Zero",
    source="MaX4Zero: Masked Extended Attention for Zero-Shot Virtual Try-On In The Wild, "
    "arXiv:2406.15331",
    shape=(2, 2, 81, 162),
)
def max4zero() -> Parts:
    """The target sees itself; where it is painted anew also the garment of the reference."""
    n_target = 81
    painted, garment = flags(0.4, 2, n_target, seed=247), flags(0.3, 2, n_target, seed=240)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        of_garment = garment[b, torch.clamp(kv_idx - n_target, min=0)]
        return (kv_idx < n_target) | (painted[b, q_idx] & of_garment)

    return Parts(mask, data={"painted": painted, "garment": garment})


@system(
    "DiffUHaul",
    source="DiffUHaul: A Training-Free Method for Object Dragging in Images, arXiv:2406.01594",
    shape=(2, 2, 80, 160),
    from_memory="that background sees background; the outputs of two such calls are interpolated",
)
def diffuhaul() -> Parts:
    """The target sees itself and, in the source, the object that it shows at this place."""
    n_target = 80
    shown, shown_in_source = integers(0, 4, 2, 80, seed=241), integers(0, 4, 2, 80, seed=242)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        in_source = shown_in_source[b, torch.clamp(kv_idx - n_target, min=0)]
        return (kv_idx < n_target) | (shown[b, q_idx] == in_source)

    return Parts(mask, data={"shown": shown, "shown_in_source": shown_in_source})


@system(
    "DreamVideo-2",
    source="DreamVideo-2: Zero-Shot Subject-Driven Video Customization with Precise Motion "
    "Control, arXiv:2410.13830",
    shape=(3, 2, 64, 100),
    from_memory="that the blended mask multiplies weights before they are normalised",
)
def dreamvideo_2() -> Parts:
    """Frames see a reference image: fully inside a box of their own, weakly outside it."""
    n_frame, side, outside = 64, 8, 0.2
    first = torch.tensor([[0, 0], [1, 3], [4, 4]])  # row and column of each frame's box, 4 x 3
    place = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    ahead = place - first[:, None]
    is_inside = ((ahead >= 0) & (ahead < torch.tensor([4, 3]))).all(dim=-1)
    weight = torch.where(is_inside, 1.0, outside).log()

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return torch.where(kv_idx >= n_frame, s + weight[b, q_idx], s)

    return Parts(score=score, data={"weight": weight})


@system(
    "IR-Diffusion, isolation",
    source="Improving Multi-Subject Consistency in Open-Domain Image Generation with Isolation "
    "and Reposition Attention",
    shape=(2, 2, 80, 152),
    from_memory="that background sees and is seen by all, and that references follow the same "
    "rule; moving them into place is a gather of K and V before attention",
)
def ir_diffusion() -> Parts:
    """Subjects do not see each other, neither in the image nor in references."""
    # In runs of 8 tokens: ten of the image, nine of its references.
    subject = integers(0, 3, 2, 19, seed=243).repeat_interleave(8, dim=1)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        own, other = subject[b, q_idx], subject[b, kv_idx]
        return (own == 0) | (other == 0) | (own == other)

    return Parts(mask, data={"subject": subject})


@system(
    "FreeCustom",
    source="FreeCustom: Tuning-Free Customized Image Generation for Multi-Concept Composition, "
    "arXiv:2405.13870",
    shape=(1, 2, 64, 192),
)
def freecustom() -> Parts:
    """The image sees itself and the concepts in two references, whose weight is added there."""
    n_image, n_references = 64, 128
    keep = torch.cat([torch.ones(n_image, dtype=torch.bool), flags(0.5, n_references, seed=245)])
    weight = torch.cat([torch.zeros(n_image), 3.0 * torch.ones(n_references)])

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return s + weight[kv_idx]

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return keep[kv_idx]

    return Parts(mask, score, {"keep": keep, "weight": weight})


@system(
    "Ouroboros-Diffusion",
    source="Ouroboros-Diffusion: Exploring Consistent Content Generation in Tuning-free Long Video "
    "Diffusion, arXiv:2501.09019",
    shape=(2, 2, 140, 140),
    from_memory="that segments do not overlap, and that a frame sees itself whole",
)
def ouroboros() -> Parts:
    """Frames see themselves and the subject in the other frames of a short segment."""
    n_frame, n_segment = 20, 3  # tokens of a frame; frames of a segment
    is_subject = flags(0.3, 2, 140, seed=246)
    frames = library.chunked(n_frame)
    segments = library.chunked(n_frame * n_segment)

    def subject(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return is_subject[b, kv_idx]

    return Parts(frames | (segments & subject), data={"is_subject": is_subject})
