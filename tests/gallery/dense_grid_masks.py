"""Dense twins of windows and neighbourhoods: maps rolled, cut into parts and put back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from gallery.harness import Data, Dense, dense


@dense
def swin(data: Data) -> Dense:
    """Roll by the shift, cut into windows, mask what the roll brought together."""
    side, size, shift = 12, 4, 2
    cells = torch.arange(side * side).reshape(side, side).roll((-shift, -shift), (0, 1))
    regions = torch.zeros(side, side, dtype=torch.int64)
    parts = (slice(0, -size), slice(-size, -shift), slice(-shift, None))
    for i, rows in enumerate(parts):
        for j, columns in enumerate(parts):
            regions[rows, columns] = 3 * i + j
    visible = torch.zeros(side * side, side * side, dtype=torch.bool)
    bias = data["table"].new_zeros(2, side * side, side * side)
    inside = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    distance = inside[:, None] - inside + size - 1
    in_window = data["table"][:, distance[..., 0], distance[..., 1]]
    for y in range(0, side, size):
        for x in range(0, side, size):
            window = cells[y : y + size, x : x + size].flatten()
            region = regions[y : y + size, x : x + size].flatten()
            visible[window[:, None], window] = region[:, None] == region
            bias[:, window[:, None], window] = in_window
    return Dense(visible, lambda scores: scores + bias)


@dense
def audio_mae(data: Data) -> Dense:
    """Cut at the shifted borders, in pieces that share no cell."""
    cells = torch.arange(20 * 8).reshape(20, 8)
    bands = cells.split([2, 4, 4, 4, 4, 2], dim=0)
    return Dense(_together([part for band in bands for part in band.split(4, dim=1)], 160))


@dense
def dito(data: Data) -> Dense:
    """Roll, then cut into windows: what the roll joins stays together."""
    cells = torch.arange(144).reshape(12, 12).roll((-2, -2), (0, 1))
    parts = [part for band in cells.split(4, dim=0) for part in band.split(4, dim=1)]
    return Dense(_together(parts, 144))


@dense
def zits_rows(data: Data) -> Dense:
    """One matrix for a row: diagonals of equal bias. The same one for every row."""
    matrix = torch.stack([data["table"][:, 11 - i : 23 - i] for i in range(12)], dim=1)
    bias = torch.stack([torch.kron(torch.eye(9).to(head), head) for head in matrix])
    return Dense(torch.block_diag(*[torch.ones(12, 12)] * 9).bool(), lambda scores: scores + bias)


@dense
def zits_columns(data: Data) -> Dense:
    """The same for a column, whose cells are 12 apart."""
    matrix = torch.stack([data["table"][:, 8 - i : 17 - i] for i in range(9)], dim=1)
    bias = torch.stack([torch.kron(head, torch.eye(12).to(head)) for head in matrix])
    return Dense(torch.eye(12).repeat(9, 9).bool(), lambda scores: scores + bias)


@dense
def fna(data: Data) -> Dense:
    """Gather the nearest neighbours of each cell in the coarse image it belongs to."""
    cells = torch.arange(130).reshape(10, 13)
    visible = torch.zeros(130, 130, dtype=torch.bool)
    for coarse in (cells[y::2, x::2] for y in range(2) for x in range(2)):
        n_rows, n_columns = coarse.shape
        for y in range(n_rows):
            for x in range(n_columns):
                near = coarse[nearest(y, n_rows, 3)][:, nearest(x, n_columns, 3)]
                visible[coarse[y, x], near.flatten()] = True
    return Dense(visible)


@dense
def fna_causal(data: Data) -> Dense:
    """Join what each axis allows, the slowest axis first."""
    frames = torch.ones(5, 5).tril() - torch.ones(5, 5).tril(-3)
    return Dense(torch.kron(torch.kron(frames, inward(4, 3)), inward(7, 5)).bool())


@dense
def gna(data: Data) -> Dense:
    """Rows of cells that share a leader are those of the leader."""
    frames, across = inward(4, 3), inward(6, 3)
    leaders = torch.tensor([1, 1, 3, 3, 5, 5])
    # The window of 4 around i: two cells before it, one after.
    starts = [min(max(int(leader) - 2, 0), 2) for leader in leaders]
    down = torch.stack([torch.eye(6)[start : start + 4].sum(0) for start in starts])
    return Dense(torch.kron(torch.kron(frames, down), across).bool())


@dense
def freeswim(data: Data) -> Dense:
    """One spatial mask, repeated for every pair of frames."""
    return Dense(torch.kron(inward(6, 3), inward(8, 5)).repeat(2, 2).bool())


@dense
def vwformer(data: Data) -> Dense:
    """Contexts start at 0, 2 and 4 along each axis: the outer two are moved inwards."""
    cells = torch.arange(144).reshape(12, 12)
    visible = torch.zeros(144, 144, dtype=torch.bool)
    for y, top in ((0, 0), (4, 2), (8, 4)):
        for x, left in ((0, 0), (4, 2), (8, 4)):
            queries = cells[y : y + 4, x : x + 4].flatten()
            visible[queries[:, None], cells[top : top + 8, left : left + 8].flatten()] = True
    return Dense(visible)


@dense
def clear(data: Data) -> Dense:
    """Stamp the same disc onto an image around each of its cells."""
    disc = [
        (y, x)
        for y in range(-4, 5)
        for x in range(-4, 5)
        if torch.tensor([y, x]).float().norm() < 4
    ]
    visible = torch.ones(149, 149, dtype=torch.bool)
    for y in range(11):
        for x in range(12):
            seen = torch.zeros(11, 12, dtype=torch.bool)
            for dy, dx in disc:
                if 0 <= y + dy < 11 and 0 <= x + dx < 12:
                    seen[y + dy, x + dx] = True
            visible[17 + 12 * y + x, 17:] = seen.flatten()
    return Dense(visible)


@dense
def inf_dit(data: Data) -> Dense:
    """As released: each block attends to a list of blocks, where there are such."""
    cells = torch.arange(135).reshape(9, 15)
    blocks = [list(band.split(3, dim=1)) for band in cells.split(3, dim=0)]
    visible = torch.zeros(135, 135, dtype=torch.bool)
    for row in range(3):
        for column in range(5):
            for above in {row, max(row - 1, 0)}:
                for left in {column, max(column - 1, 0)}:
                    queries = blocks[row][column].flatten()
                    visible[queries[:, None], blocks[above][left].flatten()] = True
    return Dense(visible)


def _together(parts: Sequence[torch.Tensor], n: int) -> torch.Tensor:
    """(n, n) bool: tokens see those of the same part."""
    visible = torch.zeros(n, n, dtype=torch.bool)
    for part in parts:
        visible[part.flatten()[:, None], part.flatten()] = True
    return visible


def nearest(place: int, n: int, size: int) -> list[int]:
    """The ``size`` places of a line that are closest to ``place``."""
    return sorted(range(n), key=lambda other: abs(other - place))[:size]


def inward(n: int, size: int) -> torch.Tensor:
    """(n, n), 1 where a place is among the ``size`` closest, an odd number, else 0."""
    return torch.stack([torch.eye(n)[nearest(place, n, size)].sum(0) for place in range(n)])


@dense
def rasm(data: Data) -> Dense:
    """Every second row and column, then slices of five of those that hold the place."""
    visible = torch.zeros(11, 13, 11, 13, dtype=torch.bool)
    for row in range(11):
        for column in range(13):
            spans = []
            for place, length in ((row, 11), (column, 13)):
                like = list(range(place % 2, length, 2))
                first = min(max(place // 2 - 2, 0), len(like) - 5)
                spans.append(torch.tensor(like[first : first + 5]))
            visible[row, column, spans[0][:, None], spans[1]] = True
    return Dense(visible.reshape(143, 143))
