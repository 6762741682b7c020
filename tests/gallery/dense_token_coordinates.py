"""Dense twins of captured coordinates: products of point matrices, orders applied and undone."""

from __future__ import annotations

import math

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
    """Block by block, head by head: a band around the diagonal of a rectangle."""
    sizes = [side * side for side in range(1, 8)]
    heads = []
    for widths in data["width"].tolist():
        bands = []
        for own, n_queries in enumerate(sizes):
            across = torch.arange(n_queries, dtype=torch.float64)[:, None] / n_queries
            row = [
                (across * n_keys - torch.arange(n_keys)).abs() < widths[own + 1][other + 1] + 1e-9
                for other, n_keys in enumerate(sizes[: own + 1])
            ]
            row.append(torch.zeros(n_queries, sum(sizes[own + 1 :]), dtype=torch.bool))
            bands.append(torch.cat(row, dim=1))
        heads.append(torch.cat(bands))
    return Dense(torch.stack(heads))


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
    return Dense(visible, lambda scores: scores + 0.1 * _signed_chords(points))


@dense
def egformer_columns(data: Data) -> Dense:
    points = _points(9, 16, 0.5)
    visible = torch.eye(16).repeat(9, 9).bool()
    return Dense(visible, lambda scores: scores + 0.1 * _signed_chords(points))


def _signed_chords(points: torch.Tensor) -> torch.Tensor:
    chords = torch.cdist(points, points)
    return chords.triu() - chords.tril()
