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
    """As released: masks joined, then cleared in rows that would hide everything."""
    hidden = torch.cat([~data["predicted"], ~data["selected"].repeat(1, 9, 1)], dim=1)
    hidden[torch.where(hidden.sum(-1) == hidden.shape[-1])] = False
    return Dense(~hidden.unsqueeze(1))


@dense
def acmil(data: Data) -> Dense:
    """Pairs that are hidden, one after the other, taken out of a matrix of ones."""
    visible = torch.ones(1, 2, 5, 300, dtype=torch.bool)
    hidden = data["hidden"].nonzero().tolist()
    assert len(hidden) == 2 * 5 * 12
    for b, head, query, key in hidden:
        visible[b, head, query, key] = False
    return Dense(visible)


@dense
def cmai(data: Data) -> Dense:
    """Four blocks: image and text by image and text."""
    image, text = torch.ones(2, 75, 75).tril(), torch.ones(2, 40, 40).tril()
    in_focus = torch.ones(2, 40, 75)
    in_focus[data["focus"] < 0.012] = 0.0
    upper = torch.cat([image, torch.zeros(2, 75, 40)], dim=2)
    lower = torch.cat([in_focus, text], dim=2)
    return Dense(torch.cat([upper, lower], dim=1).bool().unsqueeze(1))
