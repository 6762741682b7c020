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
    visible = torch.zeros(22, 132, dtype=torch.bool)
    for word, middle in enumerate(range(0, 132, 6)):
        visible[word, max(middle - 15, 0) : middle + 16] = True
    return Dense(visible)
