"""Systems whose windows of queries see larger windows of keys, cut off at the border."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from attnc import library
from examples.systems.catalogue import Parts, normal, system


def halo_windows(side: int, size: int, halo: int) -> Callable[..., Any]:
    """Windows of ``size`` x ``size`` cells see themselves and ``halo`` cells around them."""

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        top, left = q_idx // side // size * size, q_idx % side // size * size
        row, column = kv_idx // side, kv_idx % side
        in_rows = (row >= top - halo) & (row < top + size + halo)
        return in_rows & (column >= left - halo) & (column < left + size + halo)

    return mask


@system(
    "HaloNet",
    source="Scaling Local Self-Attention for Parameter Efficient Visual Backbones, "
    "arXiv:2103.12731",
    shape=(1, 2, 144, 144),
    from_memory="that relative embeddings are one table per axis, multiplied by queries; that "
    "nothing is seen beyond the border",
)
def halonet() -> Parts:
    """Blocks see a halo around them; queries times learned embeddings of relative places."""
    side, size, halo = 12, 4, 1
    reach = size + halo - 1
    down = normal(1, 2, side * side, 2 * reach + 1, seed=40)
    right = normal(1, 2, side * side, 2 * reach + 1, seed=41)

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        dy = torch.clamp(kv_idx // side - q_idx // side, -reach, reach) + reach
        dx = torch.clamp(kv_idx % side - q_idx % side, -reach, reach) + reach
        return s + down[b, h, q_idx, dy] + right[b, h, q_idx, dx]

    data = {"down": down, "right": right}
    return Parts(halo_windows(side, size, halo), score, data, learned=("down", "right"))


@system(
    "HAT, overlapping cross-attention",
    source="HAT: Hybrid Attention Transformer for Image Restoration, arXiv:2309.05239",
    shape=(1, 2, 144, 144),
    from_memory="the table of relative places; that nothing is seen beyond the border",
)
def hat() -> Parts:
    """Windows of 4 x 4 see 8 x 8, half as much again on each side; a learned relative table."""
    side, size, halo = 12, 4, 2
    table = normal(2, 11, 11, seed=42)
    score = library.relative_bias_2d(table, (side, side))
    return Parts(halo_windows(side, size, halo), score, {"table": table}, learned=("table",))
