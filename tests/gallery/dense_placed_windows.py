"""Dense twins of windows at captured places: slices of each row, and rolled grids."""

from __future__ import annotations

import torch
from gallery.harness import Data, Dense, dense


@dense
def monotonic_windows(data: Data) -> Dense:
    visible = torch.zeros(2, 1, 50, 120, dtype=torch.bool)
    for b, places in enumerate(data["place"].tolist()):
        for query, place in enumerate(places):
            visible[b, 0, query, max(place - 5, 0) : place + 6] = True
    return Dense(visible)


@dense
def monotonic_segments(data: Data) -> Dense:
    """Each key belongs to the first query whose place it does not pass; the last keys to none."""
    visible = torch.zeros(2, 1, 50, 120, dtype=torch.bool)
    for b, stops in enumerate(data["stop"].tolist()):
        for key in range(stops[-1]):
            query = next(query for query, stop in enumerate(stops) if key < stop)
            visible[b, 0, query, key] = True
    return Dense(visible)


@dense
def polyphase_anchoring(data: Data) -> Dense:
    """As released: the image rolled to its anchor, then cut into windows."""
    visible = torch.zeros(3, 1, 120, 120, dtype=torch.bool)
    for b, (down, right) in enumerate(data["anchor"].tolist()):
        rolled = torch.arange(120).reshape(10, 12).roll((-down, -right), (0, 1))
        parted = rolled.unfold(0, 5, 5).unfold(1, 4, 4).reshape(6, 20)
        for window in parted:
            visible[b, 0, window[:, None], window] = True
    return Dense(visible)
