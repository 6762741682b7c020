"""Systems, or parts of systems, that cannot run yet, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NotYet:
    """``source`` as in ``System``; ``reason`` in one sentence."""

    source: str
    reason: str


#: By the name in the paper.
NOT_YET: dict[str, NotYet] = {
    "MAFT, table of values": NotYet(
        "Mask-Attention-Free Transformer for 3D Instance Segmentation, arXiv:2309.01692",
        "What is added to a value depends on the query too, so it is no row of V.",
    ),
}
