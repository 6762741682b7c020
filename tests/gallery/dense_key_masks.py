"""Dense twins of hidden keys: columns that are taken out of matrices of ones."""

from __future__ import annotations

import torch
from gallery.harness import Data, Dense, dense


@dense
def zero_guidance(data: Data) -> Dense:
    """The first row of a matrix of ones is the segment."""
    segment = data["segment"].unsqueeze(1)
    return Dense(torch.cat([segment, torch.ones(3, 100, 101).bool()], dim=1).unsqueeze(1))


@dense
def dialokg(data: Data) -> Dense:
    """Triples with little weight, one after the other, taken out of a causal matrix."""
    visible = torch.ones(120, 120).tril().bool().repeat(2, 1, 1)
    for b, triple in (data["weight"] < 0.1).nonzero().tolist():
        visible[b, :, data["triple"][b] == triple] = False
    return Dense(visible.unsqueeze(1))


@dense
def vico(data: Data) -> Dense:
    """As released: one threshold after the other; the first that parts keys best."""
    visible = torch.zeros(2, 1, 1, 110, dtype=torch.bool)
    for b, keys in enumerate(data["scaled"]):
        best = 0.0
        for tenths in range(1, 10):
            low, high = keys[keys < tenths / 10], keys[keys >= tenths / 10]
            between = len(low) / 110 * len(high) / 110 * (low.mean() - high.mean()) ** 2
            if between > best:
                best = float(between)
                visible[b, 0, 0] = keys >= tenths / 10
    return Dense(visible)


@dense
def draw_an_audio(data: Data) -> Dense:
    return Dense(data["drawn"].flatten(1)[:, None, None].expand(2, 1, 50, 128))
