"""Dense twins of captured coordinates: products of point matrices, orders applied and undone."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from gallery.harness import Data, Dense, dense


@dense
def spad(data: Data) -> Dense:
    """Homogeneous pixels: a line for each pixel and other view, distances as one product."""
    y, x = torch.meshgrid(torch.arange(6), torch.arange(8), indexing="ij")
    pixels = torch.stack([x, y, torch.ones(6, 8)], dim=-1).reshape(48, 3).double()
    lines = torch.einsum("bvwij,pj->bvpwi", data["fundamental"].double(), pixels)
    length = lines[..., :2].norm(dim=-1, keepdim=True)
    distance = (lines @ pixels.T).abs() / length
    for view in range(3):
        distance[:, view, :, view] = 0
    assert (distance - 1.3007).abs().min() > 1e-4  # no pair is decided by rounding
    near = distance <= 1.3007
    return Dense(near.reshape(2, 1, 144, 144))


@dense
def litevar(data: Data) -> Dense:
    """Centres of cells as fractions of the image: each falls into a cell of every scale."""
    cells = [(n, y, x) for n in range(1, 8) for y in range(n) for x in range(n)]
    number = {cell: index for index, cell in enumerate(cells)}
    visible = torch.zeros(140, 140, dtype=torch.bool)
    for query, (side, y, x) in enumerate(cells):
        centre = Fraction(2 * y + 1, 2 * side), Fraction(2 * x + 1, 2 * side)
        for coarse in range(1, side + 1):
            row, column = (math.floor(place * coarse) for place in centre)
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    cell = (coarse, row + dy, column + dx)
                    if cell in number:
                        visible[query, number[cell]] = True
    return Dense(visible)


@dense
def reorder(data: Data) -> Dense:
    """Longformer's matrix in the drawn order, whose rows and columns are then put back."""
    band = torch.ones(101, 101, dtype=torch.bool).tril(8).triu(-8)
    band[0] = band[:, 0] = True
    place = data["place"].long()
    return Dense(torch.stack([band[row][:, row] for row in place]).unsqueeze(1))


def _points(n_latitudes: int, n_longitudes: int, first: float) -> torch.Tensor:
    """(n, 3), float64: the centres of the cells of a latitude-longitude grid."""
    colatitude = (torch.arange(n_latitudes).double() + first) * math.pi / n_latitudes
    longitude = torch.arange(n_longitudes).double() * 2 * math.pi / n_longitudes
    circle = torch.polar(torch.ones(n_longitudes).double(), longitude)
    horizontal = torch.sin(colatitude)[:, None] * circle
    height = torch.cos(colatitude)[:, None].expand(-1, n_longitudes)
    return torch.stack([horizontal.real, horizontal.imag, height], dim=-1).flatten(0, 1)


@dense
def attention_on_the_sphere(data: Data) -> Dense:
    """Angles between points; areas of cells, but for a common factor."""
    points = _points(9, 15, 0.5)
    angle = torch.acos((points @ points.T).clamp(-1, 1))
    assert (angle - 0.713).abs().min() > 1e-4  # no pair is decided by rounding
    area = points[:, :2].norm(dim=-1)
    return Dense(angle <= 0.713, lambda scores: scores + area.log())


@dense
def egformer_rows(data: Data) -> Dense:
    points = _points(9, 16, 0.5)
    visible = torch.block_diag(*[torch.ones(16, 16)] * 9).bool()
    return Dense(visible, lambda scores: scores - torch.cdist(points, points))


@dense
def egformer_columns(data: Data) -> Dense:
    points = _points(9, 16, 0.5)
    visible = torch.eye(16).repeat(9, 9).bool()
    return Dense(visible, lambda scores: scores - torch.cdist(points, points))
