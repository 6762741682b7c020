"""Systems that tie tokens of another stream, of text or of speech, to regions of an image."""

from __future__ import annotations

from typing import Any

import torch

from examples.systems.catalogue import Parts, flags, integers, system


@system(
    "ALE-Edit",
    source="Addressing Attribute Leakages in Diffusion-based Image Editing without Training",
    shape=(2, 2, 144, 77),
    from_memory="that tokens of no object are seen from everywhere",
)
def ale_edit() -> Parts:
    """Tokens of an object are seen from its region only."""
    region = integers(0, 4, 2, 144, seed=250)
    token_object = integers(0, 4, 2, 77, seed=251)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        named = token_object[b, kv_idx]
        return (named == 0) | (named == region[b, q_idx])

    return Parts(mask, data={"region": region, "token_object": token_object})


@system(
    "Bounded Attention, cross-attention",
    source="Be Yourself: Bounded Attention for Multi-Subject Text-to-Image Generation, "
    "arXiv:2403.16990",
    shape=(2, 2, 100, 77),
)
def bounded_attention_text() -> Parts:
    """Tokens of a subject are seen from its box only; boxes may overlap."""
    boxes = integers(0, 8, 2, 100, seed=252)  # bit i: inside the box of subject i
    subjects = integers(0, 8, 2, 77, seed=253) & integers(0, 8, 2, 77, seed=254)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        named = subjects[b, kv_idx]
        return (named == 0) | ((boxes[b, q_idx] & named) != 0)

    return Parts(mask, data={"boxes": boxes, "subjects": subjects})


@system(
    "PrimeComposer",
    source="PrimeComposer: Faster Progressively Combined Diffusion for Image Composition with "
    "Attention Steering, arXiv:2403.05053",
    shape=(2, 2, 121, 77),
)
def primecomposer() -> Parts:
    """Tokens of the subject are seen only from its shape, put into a box of the image."""
    side = 11
    box = torch.tensor([[1, 2, 6, 7], [0, 4, 5, 11]])  # top, left, bottom, right
    shape = flags(0.7, 2, side, side, seed=257)  # from the corner of the box on
    is_subject = flags(0.1, 2, 77, seed=255)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        row, column = q_idx // side, q_idx % side
        in_rows = (row >= box[b, 0]) & (row < box[b, 2])
        in_box = in_rows & (column >= box[b, 1]) & (column < box[b, 3])
        in_shape = shape[b, row - box[b, 0], column - box[b, 1]]
        return (in_box & in_shape) | ~is_subject[b, kv_idx]

    return Parts(mask, data={"box": box, "shape": shape, "is_subject": is_subject})


@system(
    "MagicInfinite",
    source="MagicInfinite: Generating Infinite Talking Videos with Your Words and Voice, "
    "arXiv:2503.05978",
    shape=(2, 2, 144, 60),
    from_memory="that what shows no speaker hears nothing",
)
def magicinfinite() -> Parts:
    """The area of each speaker, in four frames of 6 x 6 patches, hears that speaker's audio."""
    area = integers(0, 3, 2, 6, 6, seed=256)  # 0: no speaker

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        patch = q_idx % 36
        return area[b, patch // 6, patch % 6] == kv_idx // 30 + 1

    return Parts(mask, data={"area": area})
