"""Dense twins of masks of pairs: the masks themselves, cut, joined and filled as tensors."""

from __future__ import annotations

import torch
from gallery.harness import Data, Dense, dense


@dense
def mask2former(data: Data) -> Dense:
    """As released: what is hidden, cleared in rows that would hide everything."""
    hidden = data["logits"].sigmoid() < 0.5
    hidden[torch.where(hidden.sum(-1) == hidden.shape[-1])] = False
    return Dense(~hidden.unsqueeze(1))


@dense
def seem_masks(data: Data) -> Dense:
    return Dense(torch.cat([data["predicted"], data["drawn"]], dim=1).unsqueeze(1))


@dense
def acmil(data: Data) -> Dense:
    """As released: indices of what is hidden, put into a matrix of ones."""
    visible = torch.ones(1, 5, 300)
    for query in range(5):
        indices = data["hidden"][0, query].nonzero().flatten()
        visible[0, query].index_fill_(0, indices, 0.0)
    return Dense(visible.bool().unsqueeze(1))


@dense
def cmai(data: Data) -> Dense:
    """Four blocks: image and text by image and text."""
    image, text = torch.ones(2, 75, 75).tril(), torch.ones(2, 40, 40).tril()
    in_focus = torch.ones(2, 40, 75)
    in_focus[data["focus"] < 0.012] = 0.0
    upper = torch.cat([image, torch.zeros(2, 75, 40)], dim=2)
    lower = torch.cat([in_focus, text], dim=2)
    return Dense(torch.cat([upper, lower], dim=1).bool().unsqueeze(1))
