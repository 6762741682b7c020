"""Systems whose keys are those of the image itself and, after them, those of a reference."""

from __future__ import annotations

from typing import Any

import torch

from examples.systems.catalogue import Parts, flags, integers, system


@system(
    "MaX4Zero",
    source="MaX4Zero: Masked Extended Attention for Zero-Shot Virtual Try-On In The Wild, "
    "arXiv:2406.15331",
    shape=(2, 2, 81, 162),
    from_memory="that all of the target sees the garment",
)
def max4zero() -> Parts:
    """The target sees itself and, of the warped reference, the garment."""
    n_target = 81
    garment = flags(0.3, 2, n_target, seed=240)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (kv_idx < n_target) | garment[b, torch.clamp(kv_idx - n_target, min=0)]

    return Parts(mask, data={"garment": garment})


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
    n_image = 80
    subject = torch.cat(
        [
            integers(0, 3, 2, 10, seed=243).repeat_interleave(8, dim=1),
            integers(0, 3, 2, 9, seed=244).repeat_interleave(8, dim=1),
        ],
        dim=1,
    )
    assert subject.shape[1] > n_image  # the image, then its references

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        own, other = subject[b, q_idx], subject[b, kv_idx]
        return (own == 0) | (other == 0) | (own == other)

    return Parts(mask, data={"subject": subject})
