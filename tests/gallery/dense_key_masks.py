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
def designedit(data: Data) -> Dense:
    """The mask resized by slices, flattened to keys."""
    keys = data["removed"][:, ::2, ::2].flatten(1).logical_not()
    return Dense(keys[:, None, None])


@dense
def masked_denoising(data: Data) -> Dense:
    """Windows as an axis of their own; of each, the rows and columns that are left."""
    parted = torch.arange(144).reshape(3, 4, 3, 4).permute(0, 2, 1, 3).reshape(9, 16)
    visible = torch.zeros(2, 144, 144, dtype=torch.bool)
    for b, hidden in enumerate(data["hidden"]):
        for window in parted:
            visible[b, window[:, None], window[~hidden[window]]] = True
    return Dense(visible.unsqueeze(1))


@dense
def vico(data: Data) -> Dense:
    visible = torch.zeros(2, 1, 1, 110, dtype=torch.bool)
    for b, (earlier, threshold) in enumerate(
        zip(data["earlier"].tolist(), data["threshold"].tolist(), strict=True)
    ):
        visible[b, ..., [key for key, value in enumerate(earlier) if value > threshold]] = True
    return Dense(visible)


@dense
def draw_an_audio(data: Data) -> Dense:
    return Dense(data["drawn"].flatten(1)[:, None, None].expand(2, 1, 50, 128))
