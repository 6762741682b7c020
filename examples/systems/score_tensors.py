"""Systems that add captured tensors to scores, most of them with gradients to the tensors."""

from __future__ import annotations

from typing import Any

import torch

from examples.systems.catalogue import Parts, integers, normal, system


@system(
    "Attention AT",
    source="Attention Meets Perturbations: Robust and Interpretable Attention with Adversarial "
    "Training, arXiv:2009.12064",
    shape=(2, 1, 1, 150),
)
def attention_at() -> Parts:
    """A perturbation of each word's score, which its own gradient finds."""
    perturbation = 0.5 * normal(2, 150, seed=80)

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return s + perturbation[b, kv_idx]

    return Parts(score=score, data={"perturbation": perturbation}, learned=("perturbation",))


@system(
    "Attention VAT",
    source="Making Attention Mechanisms More Robust and Interpretable with Virtual Adversarial "
    "Training, arXiv:2104.08763",
    shape=(2, 2, 3, 150),
    from_memory="that a direction found by power iteration is scaled before it is added",
)
def attention_vat() -> Parts:
    """A short step along a direction of scores, for each head; its gradient is the next one."""
    step, direction = 0.1, normal(2, 2, 150, seed=81)

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return s + step * direction[b, h, kv_idx]

    return Parts(score=score, data={"direction": direction}, learned=("direction",))


@system(
    "MAFT",
    source="Mask-Attention-Free Transformer for 3D Instance Segmentation, arXiv:2309.01692",
    shape=(1, 2, 24, 100),
)
def maft() -> Parts:
    """Queries and keys times tables of relative places, one per axis of space.

    The table on the side of values is left out: its entry depends on both query and key.
    """
    n_bins = 7
    of_queries = normal(1, 2, 24, 3, n_bins, seed=82)
    of_keys = normal(1, 2, 100, 3, n_bins, seed=83)
    offset = integers(0, n_bins, 1, 3, 24, 100, seed=84)

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        for axis in range(3):
            bin_ = offset[b, axis, q_idx, kv_idx]
            s = s + of_queries[b, h, q_idx, axis, bin_] + of_keys[b, h, kv_idx, axis, bin_]
        return s

    data = {"of_queries": of_queries, "of_keys": of_keys, "offset": offset}
    return Parts(score=score, data=data, learned=("of_queries", "of_keys"))


@system(
    "Attention Regulation",
    source="Enhancing Semantic Fidelity in Text-to-Image Synthesis: Attention Regulation in "
    "Diffusion Models, arXiv:2403.06381",
    shape=(2, 2, 64, 45),
)
def attention_regulation() -> Parts:
    """Hills over the image, added to scores of target words; a few steps find their heights."""
    number = torch.zeros(2, 45, dtype=torch.int32)  # 0: no target word
    number[0, [2, 5, 9]] = number[1, [1, 3, 4]] = torch.tensor([1, 2, 3], dtype=torch.int32)
    line, centres = torch.arange(8.0), torch.tensor([2.0, 5.0])
    hill = torch.exp(-0.25 * (line[:, None] - centres) ** 2)
    hills = torch.einsum("yi,xj->yxij", hill, hill).reshape(64, 4)
    height = normal(2, 2, 3, 4, seed=370)  # for each target word

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        target = number[b, kv_idx]
        edit = torch.dot(hills[q_idx], height[b, h, torch.clamp(target - 1, min=0)])
        return torch.where(target != 0, s + edit, s)

    data = {"number": number, "hills": hills, "height": height}
    return Parts(score=score, data=data, learned=("height",))
