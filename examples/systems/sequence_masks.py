"""Systems whose masks follow from order and distance alone."""

from __future__ import annotations

import math
from typing import Any

import torch

from attnc import library
from examples.systems.catalogue import Parts, system

_SYNCH = "Transformer with Controlled Attention for Synchronous Motion Captioning, arXiv:2409.09177"


@system(
    "Perceiver AR",
    source="General-purpose, long-context autoregressive modeling with Perceiver AR, "
    "arXiv:2202.07765",
    shape=(1, 2, 48, 160),
)
def perceiver_ar() -> Parts:
    """The last 48 tokens are latents: they read the whole prefix, causally."""
    return Parts(library.causal(offset=160 - 48))


@system(
    "PowerAttention",
    source="PowerAttention: Exponentially Scaling of Receptive Fields for Effective Sparse "
    "Attention, arXiv:2503.03588",
    shape=(1, 2, 160, 160),
    from_memory="that distances are counted in blocks",
)
def power_attention() -> Parts:
    """Sinks, a window, and keys at distances of powers of two."""
    return Parts(library.power_of_two(4, 7, 4))


@system(
    "Synch-Transformer, motion encoder",
    source=_SYNCH,
    shape=(1, 2, 118, 118),
)
def synch_transformer() -> Parts:
    """Frames of a motion see those near them."""
    return Parts(library.sliding_window(9, 9))


@system(
    "SeNER, arrow attention",
    source="Small Language Model Makes an Effective Long Text Extractor, arXiv:2502.07286",
    shape=(1, 2, 131, 131),
)
def sener_arrow() -> Parts:
    """A band; the class token sees all, by scores that grow with the length, and is seen by all."""
    gain = math.log(131) / math.log(64)  # the length, and the trained one

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return torch.where(q_idx == 0, s * gain, s)

    return Parts(library.global_window(1, 12, 12), score)


@system(
    "Equivariant Image Modeling",
    source="Equivariant Image Modeling, arXiv:2503.18948",
    shape=(1, 2, 120, 120),
)
def equivariant_image_modeling() -> Parts:
    """Columns of an image see the 23 before them: the same context at every place."""
    return Parts(library.sliding_window(23))
