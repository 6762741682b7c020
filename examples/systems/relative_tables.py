"""Systems that learn what a relative place is worth: tables, or products of queries with them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from attnc import library
from examples.systems.catalogue import Parts, normal, system


@system(
    "MVPA",
    source="A foundation model with multi-variate parallel attention to generate neuronal "
    "activity, arXiv:2506.20354",
    shape=(1, 2, 132, 132),
)
def mvpa() -> Parts:
    """Queries times embeddings of relative time and channel; content counts for a while only."""
    n_times, n_channels, window = 12, 11, 4
    of_time = normal(1, 2, 132, n_times, seed=320)
    of_channel = normal(1, 2, 132, 2 * n_channels - 1, seed=321)

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        ago = q_idx // n_channels - kv_idx // n_channels
        across = q_idx % n_channels - kv_idx % n_channels + n_channels - 1
        content = torch.where(ago < window, s, 0.0)
        return content + of_time[b, h, q_idx, ago] + of_channel[b, h, q_idx, across]

    data = {"of_time": of_time, "of_channel": of_channel}
    return Parts(library.block_causal(n_channels), score, data, learned=("of_time", "of_channel"))


@system(
    "RCMHA",
    source="RCMHA: Relative Convolutional Multi-Head Attention for Natural Language Modelling, "
    "arXiv:2308.03429",
    shape=(2, 2, 101, 101),
    from_memory="that all three terms are those of Transformer-XL, and causal order; convolutions "
    "happen to q, k and v before attention",
)
def rcmha() -> Parts:
    """Queries times embeddings of distances, a bias of each distance, and one of each key."""
    n = 101
    of_query = 0.5 * normal(2, 2, n, n, seed=322)  # by distance: 0 is the query's own place
    of_distance, of_key = 0.5 * normal(2, n, seed=323), 0.5 * normal(2, 2, n, seed=324)

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        distance = q_idx - kv_idx
        placed = of_query[b, h, q_idx, distance] + of_distance[h, distance]
        return s + placed + of_key[b, h, kv_idx]

    data = {"of_query": of_query, "of_distance": of_distance, "of_key": of_key}
    return Parts(library.causal(), score, data, learned=tuple(data))


@system(
    "Transformer wave functions",
    source="Are queries and keys always relevant? A case study on Transformer wave functions, "
    "arXiv:2405.18874",
    shape=(2, 3, 100, 100),
    from_memory="that relative places wrap around the lattice",
)
def spin_wave_functions() -> Parts:
    """Weights by relative place alone, on a periodic lattice of spins: no query, no key."""
    side = 10
    table = normal(3, side, side, seed=325)

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        down = (kv_idx // side - q_idx // side) % side
        return table[h, down, (kv_idx - q_idx) % side]

    return Parts(score=score, data={"table": table}, learned=("table",))


@system(
    "TransNeXt",
    source="TransNeXt: Robust Foveal Visual Perception for Vision Transformers, arXiv:2311.17132",
    shape=(2, 2, 120, 132),
    from_memory="that cosines come from normalising q and k before attention, with scale=1",
)
def transnext() -> Parts:
    """The 3 x 3 cells around, and a pooled image, in one softmax; scores grow with their number.

    What the model adds to weights after the softmax is left out.
    """
    rows, columns, n_pooled = 10, 12, 12
    n_cells = rows * columns
    heat = normal(2, seed=326)
    of_offset, of_pooled = normal(2, 3, 3, seed=327), normal(2, n_cells, n_pooled, seed=328)
    in_image = F.pad(torch.ones(rows, columns), (1, 1, 1, 1)).unfold(0, 3, 1).unfold(1, 3, 1)
    log_length = torch.log(in_image.sum((2, 3)).flatten() + n_pooled)

    def offset(q_idx: Any, kv_idx: Any) -> tuple[Any, Any]:
        return kv_idx // columns - q_idx // columns, kv_idx % columns - q_idx % columns

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        dy, dx = offset(q_idx, kv_idx)
        near = of_offset[h, torch.clamp(dy, -1, 1) + 1, torch.clamp(dx, -1, 1) + 1]
        pooled = of_pooled[h, q_idx, torch.clamp(kv_idx - n_cells, min=0)]
        scale = F.softplus(heat[h]) * log_length[q_idx]
        return s * scale + torch.where(kv_idx < n_cells, near, pooled)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        dy, dx = offset(q_idx, kv_idx)
        return (kv_idx >= n_cells) | ((torch.abs(dy) <= 1) & (torch.abs(dx) <= 1))

    data = {"heat": heat, "of_offset": of_offset, "of_pooled": of_pooled, "log_length": log_length}
    return Parts(mask, score, data, learned=("heat", "of_offset", "of_pooled"))
