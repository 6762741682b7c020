"""Dense twins of streams of two rates: pairs entered one by one."""

from __future__ import annotations

import torch
from gallery.harness import Data, Dense, dense


@dense
def faceformer_alignment(data: Data) -> Dense:
    """As released: the keys of each query are opened in turn."""
    visible = torch.zeros(64, 128, dtype=torch.bool)
    for i in range(64):
        visible[i, 2 * i : 2 * i + 2] = True
    return Dense(visible)


@dense
def synch_transformer_captions(data: Data) -> Dense:
    """As released: a lower and an upper bound for each word, cut off at both ends."""
    lower = (data["place"] - 15).clamp(min=0)
    upper = (data["place"] + 15).clamp(max=131)
    counts = torch.zeros(2, 2, 22, 133, dtype=torch.int64)
    counts.scatter_add_(-1, lower[..., None].long(), torch.ones(2, 2, 22, 1).long())
    counts.scatter_add_(-1, upper[..., None].long() + 1, -torch.ones(2, 2, 22, 1).long())
    return Dense(counts.cumsum(-1)[..., :132] > 0)


@dense
def uniavgen_to_video(data: Data) -> Dense:
    """Slices of one stream for slices of the other."""
    visible = torch.zeros(96, 150, dtype=torch.bool)
    for frame in range(6):
        sounds = slice(25 * max(frame - 1, 0), 25 * (frame + 2))
        visible[16 * frame : 16 * (frame + 1), sounds] = True
    return Dense(visible)


@dense
def uniavgen_to_audio(data: Data) -> Dense:
    frames = torch.eye(6) + torch.ones(6, 6).triu(1).tril(1)
    return Dense(torch.kron(frames, torch.ones(25, 16)).bool())
