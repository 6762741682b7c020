"""Systems whose masks take a video apart: frames, places, windows of space and time."""

from __future__ import annotations

from typing import Any

import torch

from attnc import library
from examples.systems.catalogue import Parts, integers, system

_MASKVIT = "MaskViT: Masked Visual Pre-Training for Video Prediction, arXiv:2206.11894"
_VIDEO_FIRST = (
    "A Simple Recipe for Contrastively Pre-training Video-First Encoders Beyond 16 Frames, "
    "arXiv:2312.07395"
)


@system(
    "MaskViT, spatial windows",
    source=_MASKVIT,
    shape=(1, 2, 144, 144),
    from_memory="that a spatial window is one whole frame",
)
def maskvit_spatial() -> Parts:
    """Each frame is a window."""
    return Parts(library.windows((4, 6, 6), (1, 6, 6)))


@system(
    "MaskViT, spatiotemporal windows",
    source=_MASKVIT,
    shape=(1, 2, 144, 144),
    from_memory="that a spatiotemporal window is a small square of all frames",
)
def maskvit_spatiotemporal() -> Parts:
    """A small square of every frame is a window."""
    return Parts(library.windows((4, 6, 6), (4, 3, 3)))


@system("Video-first encoders, same frame", source=_VIDEO_FIRST, shape=(1, 2, 150, 150))
def video_first_spatial() -> Parts:
    """Factorised attention, first half: tokens of the same frame."""
    return Parts(library.chunked(25))


@system("Video-first encoders, same patch", source=_VIDEO_FIRST, shape=(1, 2, 150, 150))
def video_first_temporal() -> Parts:
    """Factorised attention, second half: the same patch in every frame."""
    return Parts(library.axial((6, 25), 0))


@system(
    "4Real-Video-V2",
    source="4Real-Video-V2: Fused View-Time Attention and Feedforward Reconstruction for 4D Scene "
    "Generation, arXiv:2506.18839",
    shape=(1, 2, 144, 144),
)
def four_real_video() -> Parts:
    """Views times frames: tokens of the same view, or of the same time in any view."""
    views_and_times = (3, 4, 12)  # views, times, tokens of a frame
    same_view = library.windows(views_and_times, (1, 4, 12))
    return Parts(same_view | library.windows(views_and_times, (3, 1, 12)))


_PT_DIT = (
    "Qihoo-T2X: An Efficient Proxy-Tokenized Diffusion Transformer for Text-to-Any-Task, "
    "arXiv:2409.04005"
)


@system("PT-DiT, shifted windows", source=_PT_DIT, shape=(1, 2, 144, 144))
def pt_dit_windows() -> Parts:
    """Windows of space and time, shifted in every other layer."""
    return Parts(library.windows((4, 6, 6), (2, 3, 3), shift=(1, 1, 1)))


@system(
    "PT-DiT, proxy tokens",
    source=_PT_DIT,
    shape=(2, 2, 144, 144),
    from_memory="that all tokens read proxies in place: a mask instead of gathered keys",
)
def pt_dit_proxies() -> Parts:
    """All read the proxies: one token of each window, drawn for each sample."""
    drawn = integers(0, 18, 2, 8, seed=250)  # for each window of 2 x 3 x 3, in its order
    cells = torch.arange(144).reshape(2, 2, 2, 3, 2, 3).permute(0, 2, 4, 1, 3, 5).reshape(8, 18)
    chosen = cells.expand(2, 8, 18).gather(2, drawn.long()[..., None])[..., 0]
    is_proxy = torch.zeros(2, 144, dtype=torch.bool).scatter(1, chosen, True)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return is_proxy[b, kv_idx]

    return Parts(mask, data={"is_proxy": is_proxy})
