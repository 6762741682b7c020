"""Systems that capture where each token is: in views, on a sphere, in scales, in another order."""

from __future__ import annotations

import math
from typing import Any

import torch

from attnc import library
from examples.systems.catalogue import Parts, integers, normal, system

_EGFORMER = (
    "EGformer: Equirectangular Geometry-biased Transformer for 360 Depth Estimation, "
    "arXiv:2304.07803"
)


@system(
    "SPAD",
    source="SPAD: Spatially Aware Multiview Diffusers, arXiv:2402.05235",
    shape=(2, 2, 144, 144),
    from_memory="that the mask is computed in the kernel, from captured fundamental matrices; "
    "the released code makes it beforehand",
)
def spad() -> Parts:
    """Tokens of the own view, and of other views those near the query's epipolar line."""
    n_view, columns, tolerance = 48, 8, 1.3007
    fundamental = normal(2, 3, 3, 3, 3, seed=314)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        view, other = q_idx // n_view, kv_idx // n_view
        x, y = q_idx % columns, q_idx % n_view // columns
        other_x, other_y = kv_idx % columns, kv_idx % n_view // columns
        matrix = fundamental[b, view, other]
        line = [matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] for i in range(3)]
        distance = line[0] * other_x + line[1] * other_y + line[2]
        squared = line[0] * line[0] + line[1] * line[1]
        return (view == other) | (distance * distance <= tolerance**2 * squared)

    return Parts(mask, data={"fundamental": fundamental})


@system(
    "LiteVAR",
    source="LiteVAR: Compressing Visual Autoregressive Modelling with Efficient Attention and "
    "Quantization, arXiv:2411.17178",
    shape=(1, 2, 140, 140),
    from_memory="that places off the diagonals are hidden; the released code sets their scores to "
    "0, which is no saving",
)
def litevar() -> Parts:
    """In each scale up to the own one a diagonal, whose width a table has for head and scales."""
    sides = torch.arange(1, 8, dtype=torch.int32)  # 1 x 1 to 7 x 7
    side = torch.repeat_interleave(sides, sides * sides)
    place = torch.cat([torch.arange(n * n, dtype=torch.int32) for n in sides.tolist()])
    width = integers(3, 12, 2, 8, 8, seed=311)
    width[:, :4] = width[:, :, :3] = 49  # of small images all is seen

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        own, other = side[q_idx], side[kv_idx]
        off = place[q_idx] * other * other - place[kv_idx] * own * own
        return (other <= own) & (torch.abs(off) <= width[h, own, other] * own * own)

    return Parts(mask, data={"side": side, "place": place, "width": width})


@system(
    "REOrder",
    source="REOrdering Patches Improves Vision Models, arXiv:2505.23751",
    shape=(2, 2, 101, 101),
    from_memory="that Longformer's class token stays in front",
)
def reorder() -> Parts:
    """Longformer's attention to patches in an order that a policy drew for each sample."""
    orders = [torch.randperm(100, generator=torch.Generator().manual_seed(i)) for i in (311, 312)]
    place = torch.stack([torch.cat([torch.zeros(1), 1 + order]) for order in orders]).int()
    longformer = library.global_window(1, 8, 8)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return longformer(b, h, place[b, q_idx], place[b, kv_idx])

    return Parts(mask, data={"place": place})


@system(
    "Attention on the Sphere",
    source="Attention on the Sphere, arXiv:2505.11157",
    shape=(1, 2, 135, 135),
    from_memory="that the neighbourhood is all within a geodesic radius, its centre included",
)
def attention_on_the_sphere() -> Parts:
    """Keys count as much as their cell is large, and are seen within a geodesic radius."""
    n_latitudes, n_longitudes, radius = 9, 15, 0.713
    colatitude = (torch.arange(n_latitudes) + 0.5) * (math.pi / n_latitudes)
    log_weight = torch.log(torch.sin(colatitude))
    least = math.cos(radius)

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return s + log_weight[kv_idx // n_longitudes]

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        own, other = colatitude[q_idx // n_longitudes], colatitude[kv_idx // n_longitudes]
        angle = (q_idx % n_longitudes - kv_idx % n_longitudes) * (2 * math.pi / n_longitudes)
        along = torch.sin(own) * torch.sin(other) * torch.cos(angle)
        return torch.cos(own) * torch.cos(other) + along >= least

    return Parts(mask, score, {"colatitude": colatitude, "log_weight": log_weight})


def _egformer(seen: Any) -> Parts:
    """A tenth of the chord to keys of ``seen``, negative before the query; 9 x 16 cells."""
    colatitude = (torch.arange(9).repeat_interleave(16) + 0.5) * (math.pi / 9)
    longitude = torch.arange(16).repeat(9) * (2 * math.pi / 16)
    across = torch.sin(colatitude)
    point = torch.stack(
        [across * torch.cos(longitude), across * torch.sin(longitude), torch.cos(colatitude)], dim=1
    )

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        chord = torch.sqrt((point[q_idx] - point[kv_idx]).square().sum())
        return s + 0.1 * torch.where(kv_idx > q_idx, chord, -chord)

    return Parts(seen, score, {"point": point})


@system("EGformer, horizontal windows", source=_EGFORMER, shape=(1, 2, 144, 144))
def egformer_rows() -> Parts:
    """Cells of one latitude, biased by how far away they are on the sphere."""
    return _egformer(library.axial((9, 16), 1))


@system("EGformer, vertical windows", source=_EGFORMER, shape=(1, 2, 144, 144))
def egformer_columns() -> Parts:
    """Cells of one longitude, biased by how far away they are on the sphere."""
    return _egformer(library.axial((9, 16), 0))
