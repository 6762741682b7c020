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


@dense
def four_real_video(data: Data) -> Dense:
    """For each frame the frames it sees, by axes of view and time."""
    frames = torch.zeros(3, 4, 3, 4, dtype=torch.bool)
    for view in range(3):
        for time in range(4):
            frames[view, time, view, :] = True
            frames[view, time, :, time] = True
    whole = frames.reshape(12, 12).repeat_interleave(12, 0).repeat_interleave(12, 1)
    return Dense(whole)


@dense
def pt_dit_windows(data: Data) -> Dense:
    """Along each axis the pieces that a shifted border leaves, then their product."""
    times = torch.block_diag(torch.ones(1, 1), torch.ones(2, 2), torch.ones(1, 1))
    places = torch.block_diag(torch.ones(1, 1), torch.ones(3, 3), torch.ones(2, 2))
    return Dense(torch.kron(torch.kron(times, places), places).bool())


@dense
def pt_dit_proxies(data: Data) -> Dense:
    """Every proxy opens its column; there are eight."""
    visible = torch.zeros(2, 1, 144, 144, dtype=torch.bool)
    for sample, token in data["is_proxy"].nonzero().tolist():
        visible[sample, :, :, token] = True
    assert (visible.sum(-1) == 8).all()
    return Dense(visible)
