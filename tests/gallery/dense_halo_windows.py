"""Dense twins of windows with a halo: keys unfolded from a padded map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from gallery.harness import Data, Dense, dense


def unfolded(side: int, size: int, halo: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cells of each window, (n_windows, size ** 2), and of its halo; -1 beyond the border."""
    cells = torch.arange(side * side).reshape(side, side)
    padded = F.pad(cells, (halo,) * 4, value=-1)
    width = size + 2 * halo
    queries = cells.unfold(0, size, size).unfold(1, size, size)
    keys = padded.unfold(0, width, size).unfold(1, width, size)
    return queries.reshape(-1, size**2), keys.reshape(-1, width**2)


def pairs_of(side: int, size: int, halo: int) -> tuple[torch.Tensor, ...]:
    """For each pair that is seen: query, key, and their rows and columns in the key window."""
    width = size + 2 * halo
    inner = torch.cartesian_prod(torch.arange(size), torch.arange(size)) + halo
    outer = torch.cartesian_prod(torch.arange(width), torch.arange(width))
    queries, keys = unfolded(side, size, halo)
    found = []
    for own, near in zip(queries, keys, strict=True):
        i, j = torch.nonzero((near >= 0).expand(size**2, -1), as_tuple=True)
        found.append(torch.cat([own[i, None], near[j, None], inner[i], outer[j]], dim=1))
    return torch.cat(found).unbind(1)


@dense
def halonet(data: Data) -> Dense:
    n, reach = 144, 4
    query, key, q_row, q_column, k_row, k_column = pairs_of(12, 4, 1)
    visible = torch.zeros(n, n, dtype=torch.bool)
    visible[query, key] = True
    bias = data["down"].new_zeros(1, 2, n, n)
    bias[..., query, key] = (
        data["down"][..., query, k_row - q_row + reach]
        + data["right"][..., query, k_column - q_column + reach]
    )
    return Dense(visible, lambda scores: scores + bias)


@dense
def hat(data: Data) -> Dense:
    """Keys unfolded from the padded map itself, of 16 x 16."""
    queries = torch.arange(144).reshape(12, 12).unfold(0, 4, 4).unfold(1, 4, 4)
    keys = torch.arange(256).reshape(16, 16).unfold(0, 8, 4).unfold(1, 8, 4)
    places = [torch.cartesian_prod(torch.arange(n), torch.arange(n)) for n in (4, 8)]
    distance = places[1] - places[0][:, None] + 3
    in_window = data["table"][:, distance[..., 0], distance[..., 1]]
    visible = torch.zeros(144, 256, dtype=torch.bool)
    bias = data["table"].new_zeros(2, 144, 256)
    for own, near in zip(queries.reshape(9, 16), keys.reshape(9, 64), strict=True):
        visible[own[:, None], near] = True
        bias[:, own[:, None], near] = in_window
    return Dense(visible, lambda scores: scores + bias)
