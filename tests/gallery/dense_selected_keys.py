"""Dense twins of chosen keys: a list of keys for each query."""

from __future__ import annotations

import torch
from gallery.harness import Data, Dense, dense


@dense
def moba(data: Data) -> Dense:
    """Blocks that queries chose, stretched to their keys."""
    return Dense(data["chosen"].repeat_interleave(12, dim=-1).tril())


@dense
def dma(data: Data) -> Dense:
    """As released: the largest of each causal prefix, scattered into a mask."""
    bias = data["bias"]
    prefixes = bias.detach()[:, :, None, :].expand(1, 2, 128, 128)
    prefixes = prefixes.masked_fill(torch.ones(128, 128).triu(1).bool(), -torch.inf)
    kept = torch.zeros(1, 2, 128, 128, dtype=torch.bool)
    kept.scatter_(-1, prefixes.topk(24).indices, True)
    return Dense(kept.tril(), lambda scores: scores + bias.unsqueeze(2))
