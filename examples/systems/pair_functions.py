"""Systems that learn a function of query and key beyond their product: filters, phases, networks."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from attnc import library
from examples.systems.catalogue import Parts, flags, normal, system


@system(
    "LieTransformer",
    source="LieTransformer: Equivariant self-attention for Lie Groups, arXiv:2012.10885",
    shape=(2, 2, 39, 39),
    from_memory="that the group is SE(2), how its elements are written, and the network's width",
)
def lie_transformer() -> Parts:
    """A network reads where a sampled neighbour is, seen from the query's own frame."""
    pose = normal(2, 39, 3, seed=330)  # x, y, angle
    sampled = flags(0.4, 2, 39, 39, seed=331)
    first, offset = normal(2, 4, 4, seed=332), normal(2, 4, seed=333)
    last = normal(2, 4, seed=334)

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        dx, dy, turn = (pose[b, kv_idx, i] - pose[b, q_idx, i] for i in range(3))
        cos, sin = torch.cos(pose[b, q_idx, 2]), torch.sin(pose[b, q_idx, 2])
        element = cos * dx + sin * dy, cos * dy - sin * dx, torch.cos(turn), torch.sin(turn)
        hidden = offset[h]
        for i, coordinate in enumerate(element):
            hidden = hidden + first[h, i] * coordinate
        return s + torch.dot(last[h], F.silu(hidden))

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return sampled[b, q_idx, kv_idx] | (q_idx == kv_idx)

    data = {"pose": pose, "sampled": sampled, "first": first, "offset": offset, "last": last}
    return Parts(mask, score, data, learned=("first", "offset", "last"))


@system(
    "Adaptive Filter Attention",
    source="Attention as an Adaptive Filter, arXiv:2509.04154",
    shape=(1, 2, 110, 110),
    from_memory="the simplified variant: one decay and two noises for each head, robust as "
    "Student's t; squared norms of q and k are captured",
)
def adaptive_filter() -> Parts:
    """How well a key, moved on to the time of the query, agrees with it, given its uncertainty."""
    n, root, freedom = 110, 4.0, 8.0  # root: of head_dim, which scores are divided by
    decay, noise = 0.05 + 0.02 * normal(2, seed=340).abs(), 0.5 + normal(2, 2, seed=341).abs()
    q_squared, k_squared = 20 + normal(1, 2, n, seed=342), 20 + normal(1, 2, n, seed=343)

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        kept = torch.exp(-decay[h] * (q_idx - kv_idx))
        residual = q_squared[b, h, q_idx] - 2 * root * kept * s
        residual = residual + kept * kept * k_squared[b, h, kv_idx]
        variance = noise[h, 0] + noise[h, 1] * (1 - kept * kept)
        return -0.5 * torch.log(variance) - freedom * torch.log1p(
            residual / (variance * freedom * root)
        )

    data = {"decay": decay, "noise": noise, "q_squared": q_squared, "k_squared": k_squared}
    return Parts(library.causal(), score, data, learned=tuple(data))


@system(
    "TAPA",
    source="Positional Encoding via Token-Aware Phase Attention, arXiv:2509.12635",
    shape=(1, 2, 105, 105),
    from_memory="the formula and its exponent; the second product, of phases, runs over captured "
    "halves of q and k, few numbers each",
)
def tapa() -> Parts:
    """Scores times the cosine of a phase, a product of its own that grows with the distance."""
    exponent = 0.1
    q_phase, k_phase = 0.3 * normal(1, 2, 105, 4, seed=350), 0.3 * normal(1, 2, 105, 4, seed=351)

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        phase = torch.dot(q_phase[b, h, q_idx], k_phase[b, h, kv_idx])
        stretch = torch.abs(q_idx - kv_idx) ** exponent
        return s * torch.cos(2 * math.pi * stretch * phase)

    data = {"q_phase": q_phase, "k_phase": k_phase}
    return Parts(library.causal(), score, data, learned=("q_phase", "k_phase"))
