"""Dense twins of parts at fixed places: blocks of ones and zeros put together."""

from __future__ import annotations

import torch
from gallery.harness import Data, Dense, dense


@dense
def learnable_memory_vit(data: Data) -> Dense:
    """Columns: the base, three class tokens, then the memory of each task."""
    reads = torch.cat([torch.zeros(100, 3), torch.ones(3, 3).tril()])  # which tasks a query reads
    visible = torch.cat([torch.ones(103, 100), reads, reads.repeat_interleave(5, dim=1)], dim=1)
    return Dense(visible.bool())


@dense
def romtrack(data: Data) -> Dense:
    """As released: the inherent template attends on its own, the others to everything."""
    everything, inherent = torch.ones(24, 112), torch.zeros(24, 112)
    inherent[:, 24:48] = 1
    return Dense(torch.cat([everything, inherent, torch.ones(64, 112)]).bool())


@dense
def rpo(data: Data) -> Dense:
    visible = torch.ones(125, 125, dtype=torch.bool)
    visible[:, -24:] = False
    return Dense(visible)
