"""Systems that add a function of the distance of query and key to scores."""

from __future__ import annotations

from typing import Any

import torch

from attnc import library
from examples.systems.catalogue import Parts, normal, system


@system(
    "FaceFormer",
    source="FaceFormer: Speech-Driven 3D Facial Animation with Transformers, arXiv:2112.05329",
    shape=(1, 4, 130, 130),
)
def faceformer() -> Parts:
    """ALiBi that counts whole periods of motion, causal."""
    return Parts(library.causal(), library.periodic_bias(library.alibi_slopes(4), 25))


@system(
    "Luong local-p",
    source="Effective Approaches to Attention-based Neural Machine Translation, arXiv:1508.04025",
    shape=(2, 2, 40, 110),
    from_memory="the Gaussian multiplies weights after softmax there: a second call without it "
    "gives the ratio of the two normalisers",
)
def luong_local_p() -> Parts:
    """A window around a predicted place, and a Gaussian at it that trains the prediction."""
    reach = 12
    centre = 109 * torch.sigmoid(normal(2, 40, seed=70))

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        off = (kv_idx - centre[b, q_idx]) / (reach / 2)
        return s - 0.5 * off * off

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return torch.abs(kv_idx - centre[b, q_idx]) <= reach

    return Parts(mask, score, {"centre": centre}, learned=("centre",))
