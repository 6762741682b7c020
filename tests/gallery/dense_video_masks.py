"""Dense twins of masks of videos, from tensors with an axis for each of time, rows and columns."""

from __future__ import annotations

import torch
from gallery.harness import Data, Dense, dense


@dense
def maskvit_spatial(data: Data) -> Dense:
    return Dense(torch.block_diag(*[torch.ones(36, 36)] * 4).bool())


@dense
def maskvit_spatiotemporal(data: Data) -> Dense:
    """Windows as an axis of their own, as code that partitions has them."""
    parted = torch.arange(144).reshape(4, 2, 3, 2, 3).permute(1, 3, 0, 2, 4).reshape(4, 36)
    visible = torch.zeros(144, 144, dtype=torch.bool)
    for window in parted:
        visible[window[:, None], window] = True
    return Dense(visible)


@dense
def video_first_spatial(data: Data) -> Dense:
    visible = torch.zeros(6, 25, 6, 25, dtype=torch.bool)
    for frame in range(6):
        visible[frame, :, frame] = True
    return Dense(visible.reshape(150, 150))


@dense
def video_first_temporal(data: Data) -> Dense:
    visible = torch.zeros(6, 25, 6, 25, dtype=torch.bool)
    for patch in range(25):
        visible[:, patch, :, patch] = True
    return Dense(visible.reshape(150, 150))
