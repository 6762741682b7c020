"""Dense twins of scores edited by regions: in place, one region after the other."""

from __future__ import annotations

import torch
from gallery.harness import Data, Dense, dense


@dense
def attentive_eraser(data: Data) -> Dense:
    """Rows of the object are exchanged for weakened ones; its columns are closed."""
    visible = torch.ones(2, 1, 121, 121, dtype=torch.bool)
    for row, removed in enumerate(data["removed"]):
        visible[row, :, :, removed.nonzero()[:, 0]] = False

    def redirected(scores: torch.Tensor) -> torch.Tensor:
        rows = [
            torch.where(removed[:, None], part * 0.3, part)
            for removed, part in zip(data["removed"], scores, strict=True)
        ]
        return torch.stack(rows)

    return Dense(visible, redirected)


@dense
def makima(data: Data) -> Dense:
    """What is added: -2.5 between all tokens with an attribute, 4 more within each."""
    added = torch.zeros(2, 1, 130, 130, dtype=torch.float64)
    for row, attribute in enumerate(data["attribute"]):
        marked = (attribute > 0).double()
        added[row] -= 2.5 * torch.outer(marked, marked)
        for number in (1, 2, 3):
            own = (attribute == number).double()
            added[row] += 4.0 * torch.outer(own, own)
    return Dense(None, lambda scores: scores + added)


@dense
def falip(data: Data) -> Dense:
    first = torch.zeros(101, 1, dtype=torch.float64)
    first[0] = 1.0
    return Dense(None, lambda scores: scores + first * data["fovea"].double()[:, None, None])
