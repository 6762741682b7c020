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


@system(
    "ConViT, positional attention",
    source="ConViT: Improving Vision Transformers with Soft Convolutional Inductive Biases, "
    "arXiv:2103.10697",
    shape=(1, 2, 144, 144),
)
def convit() -> Parts:
    """Weights by place alone; a second call attends to content, a learned gate joins both."""
    side = 12
    weight, offset = 0.1 * normal(2, 3, seed=71), normal(2, seed=72)

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        dy, dx = kv_idx // side - q_idx // side, kv_idx % side - q_idx % side
        squared = dx * dx + dy * dy
        return weight[h, 0] * dx + weight[h, 1] * dy + weight[h, 2] * squared + offset[h]

    return Parts(
        score=score, data={"weight": weight, "offset": offset}, learned=("weight", "offset")
    )
