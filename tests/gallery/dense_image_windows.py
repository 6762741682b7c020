"""Dense twins of plain windows: maps cut into parts, numbered and put back together."""

from __future__ import annotations

import torch
from gallery.harness import Data, Dense, dense


def _numbered(rows: int, columns: int, height: int, width: int) -> torch.Tensor:
    """(n,): the number of the window of each cell, by stretching a small map of numbers."""
    down, right = -(-rows // height), -(-columns // width)
    numbers = torch.arange(down * right).reshape(down, right)
    stretched = numbers.repeat_interleave(height, 0).repeat_interleave(width, 1)
    return stretched[:rows, :columns].flatten()


def _same(numbers: torch.Tensor) -> torch.Tensor:
    """(n, n) bool, by products of one-hot rows."""
    hot = torch.nn.functional.one_hot(numbers).float()
    return (hot @ hot.T).bool()


@dense
def davit(data: Data) -> Dense:
    """Cut as released: view as windows, which are then rows of a batch."""
    cells = torch.arange(147).reshape(1, 7, 3, 7).transpose(1, 2).reshape(3, 49)
    visible = torch.zeros(147, 147, dtype=torch.bool)
    for window in cells:
        visible[window[:, None], window] = True
    return Dense(visible)


@dense
def davit_channels(data: Data) -> Dense:
    return Dense(torch.block_diag(*[torch.ones(24, 24)] * 4).bool())


@dense
def twins(data: Data) -> Dense:
    """Cut as released: view as windows, which are then rows of a batch."""
    cells = torch.arange(150).reshape(2, 5, 3, 5).transpose(1, 2).reshape(6, 25)
    visible = torch.zeros(150, 150, dtype=torch.bool)
    for window in cells:
        visible[window[:, None], window] = True
    return Dense(visible)


@dense
def lamamba_diff(data: Data) -> Dense:
    """Cut at the shifted borders; distances inside a piece are differences of coordinates."""
    table = data["table"]
    cells = torch.arange(150).reshape(10, 15)
    visible = torch.zeros(150, 150, dtype=torch.bool)
    bias = table.new_zeros(2, 150, 150)
    for band in cells.split([2, 5, 3], dim=0):
        for part in band.split([2, 5, 5, 3], dim=1):
            inside = torch.cartesian_prod(*(torch.arange(size) for size in part.shape))
            apart = inside[:, None] - inside + 4
            piece = part.flatten()
            visible[piece[:, None], piece] = True
            bias[:, piece[:, None], piece] = table[:, apart[..., 0], apart[..., 1]]
    return Dense(visible, lambda scores: scores + bias)


@dense
def efficient_vqgan(data: Data) -> Dense:
    own = _same(_numbered(12, 12, 4, 4))
    return Dense(torch.cat([own, torch.ones(144, 9, dtype=torch.bool)], dim=1))


@dense
def arbex(data: Data) -> Dense:
    """The bias is written window by window: inside one, all distances fit into the table."""
    table = data["table"]
    cells = torch.arange(126).reshape(14, 9)
    visible = torch.zeros(126, 126, dtype=torch.bool)
    bias = table.new_zeros(2, 126, 126)
    inside = torch.cartesian_prod(torch.arange(7), torch.arange(3))
    apart = inside[:, None] - inside + torch.tensor([6, 2])
    for band in cells.split(7, dim=0):
        for part in band.split(3, dim=1):
            window = part.flatten()
            visible[window[:, None], window] = True
            bias[:, window[:, None], window] = table[:, apart[..., 0], apart[..., 1]]
    return Dense(visible, lambda scores: scores + bias)
