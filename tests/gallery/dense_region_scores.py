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


@dense
def designedit(data: Data) -> Dense:
    """Columns of the second image times what is left of them: means of 2 x 2 cells."""
    removed = torch.zeros(22, 22, dtype=torch.float64)
    removed[3:16, 7:18] = 1.0
    kept = 1 - removed.unfold(0, 2, 2).unfold(1, 2, 2).mean(dim=(2, 3)).flatten()
    weight = torch.stack([torch.ones_like(kept), kept])[:, None, None]
    return Dense(None, lambda scores: scores * weight)


@dense
def masked_denoising(data: Data) -> Dense:
    """As released: rolled and parted windows, their own table, rows and columns set to zero."""
    table = data["table"]
    region = torch.zeros(12, 12)
    for number, (row, column) in enumerate(
        (row, column)
        for row in (slice(0, 8), slice(8, 10), slice(10, 12))
        for column in (slice(0, 8), slice(8, 10), slice(10, 12))
    ):
        region[row, column] = number
    parted = torch.arange(144).reshape(12, 12).roll((-2, -2), (0, 1))
    parted, region = (
        x.reshape(3, 4, 3, 4).transpose(1, 2).reshape(9, 16) for x in (parted, region)
    )
    place = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    away = place[:, None] - place + 3  # within a window: query less key
    bias = torch.zeros(2, 144, 144, dtype=table.dtype)
    visible = torch.zeros(144, 144, dtype=torch.bool)
    for window, regions in zip(parted, region, strict=True):
        pairs = (window[:, None].expand(16, 16), window.expand(16, 16))
        visible = visible.index_put(pairs, regions[:, None] == regions)
        for_heads = tuple(x.expand(2, 16, 16) for x in (torch.arange(2)[:, None, None], *pairs))
        bias = bias.index_put(for_heads, table[:, away[..., 0], away[..., 1]])
    shown = (~data["hidden"]).double()
    kept = (shown[:, :, None] * shown[:, None]).unsqueeze(1)
    return Dense(visible, lambda scores: scores * kept + bias)
