"""Systems whose windows of queries see larger windows of keys."""

from __future__ import annotations

from typing import Any

import torch

from examples.systems.catalogue import Parts, normal, system


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

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        top, left = q_idx // side // size * size, q_idx % side // size * size
        row, column = kv_idx // side, kv_idx % side
        in_rows = (row >= top - halo) & (row < top + size + halo)
        return in_rows & (column >= left - halo) & (column < left + size + halo)

    data = {"down": down, "right": right}
    return Parts(mask, score, data, learned=("down", "right"))


@system(
    "HAT, overlapping cross-attention",
    source="HAT: Hybrid Attention Transformer for Image Restoration, arXiv:2309.05239",
    shape=(1, 2, 144, 256),
)
def hat() -> Parts:
    """Windows of 4 x 4 see 8 x 8 of a padded map, with a learned table of relative places.

    Keys of the padding are zeros, and do count.
    """
    side, size, halo = 12, 4, 2
    table, wide = normal(2, 11, 11, seed=42), side + 2 * halo

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        dy = torch.clamp(kv_idx // wide - q_idx // side + size - 1, 0, 10)
        dx = torch.clamp(kv_idx % wide - q_idx % side + size - 1, 0, 10)
        return s + table[h, dy, dx]

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        down = kv_idx // wide - q_idx // side // size * size
        right = kv_idx % wide - q_idx % side // size * size
        width = size + 2 * halo
        return (down >= 0) & (down < width) & (right >= 0) & (right < width)

    return Parts(mask, score, {"table": table}, learned=("table",))
