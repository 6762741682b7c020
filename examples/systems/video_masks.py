"""Systems whose masks take a video apart: frames, places, windows of space and time."""

from __future__ import annotations

from attnc import library
from examples.systems.catalogue import Parts, system

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
