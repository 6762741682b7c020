"""Systems whose masks follow from order and distance alone."""

from __future__ import annotations

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
    from_memory="the width of the window",
)
def synch_transformer() -> Parts:
    """Frames of a motion see those near them."""
    return Parts(library.sliding_window(9, 9))
