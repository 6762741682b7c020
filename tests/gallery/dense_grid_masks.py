"""Dense twins of windows and neighbourhoods: maps rolled, cut into parts and put back."""

from __future__ import annotations

import torch
from gallery.harness import Data, Dense, dense


@dense
def swin(data: Data) -> Dense:
    """Roll by the shift, cut into windows, mask what the roll brought together."""
    side, size, shift = 12, 4, 2
    cells = torch.arange(side * side).reshape(side, side).roll((-shift, -shift), (0, 1))
    regions = torch.zeros(side, side, dtype=torch.int64)
    parts = (slice(0, -size), slice(-size, -shift), slice(-shift, None))
    for i, rows in enumerate(parts):
        for j, columns in enumerate(parts):
            regions[rows, columns] = 3 * i + j
    visible = torch.zeros(side * side, side * side, dtype=torch.bool)
    bias = data["table"].new_zeros(2, side * side, side * side)
    inside = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    distance = inside[:, None] - inside + size - 1
    in_window = data["table"][:, distance[..., 0], distance[..., 1]]
    for y in range(0, side, size):
        for x in range(0, side, size):
            window = cells[y : y + size, x : x + size].flatten()
            region = regions[y : y + size, x : x + size].flatten()
            visible[window[:, None], window] = region[:, None] == region
            bias[:, window[:, None], window] = in_window
    return Dense(visible, lambda scores: scores + bias)
