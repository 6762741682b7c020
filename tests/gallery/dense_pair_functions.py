"""Dense twins of functions of pairs: complex poses, propagated states, modules over all pairs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from gallery.harness import Data, Dense, dense


@dense
def lie_transformer(data: Data) -> Dense:
    """Poses as matrices of SE(2): the inverse of one times the other, then a network."""
    pose = data["pose"].double()
    matrices = torch.eye(3, dtype=torch.float64).repeat(2, 39, 1, 1)
    matrices[..., 0, 0] = matrices[..., 1, 1] = pose[..., 2].cos()
    matrices[..., 1, 0] = pose[..., 2].sin()
    matrices[..., 0, 1] = -matrices[..., 1, 0]
    matrices[..., :2, 2] = pose[..., :2]
    relative = torch.einsum("bqij,bkjl->bqkil", torch.linalg.inv(matrices), matrices)
    element = torch.stack(
        [relative[..., 0, 2], relative[..., 1, 2], relative[..., 0, 0], relative[..., 1, 0]], dim=-1
    )

    def located(scores: torch.Tensor) -> torch.Tensor:
        hidden = torch.einsum("bqki,hij->bhqkj", element, data["first"])
        hidden = F.silu(hidden + data["offset"][:, None, None])
        return scores + torch.einsum("bhqkj,hj->bhqk", hidden, data["last"])

    visible = data["sampled"].clone()
    visible.diagonal(dim1=1, dim2=2).fill_(True)
    return Dense(visible.unsqueeze(1), located)


@dense
def adaptive_filter(data: Data) -> Dense:
    """Each key is moved on step by step, with its variance, as a filter predicts."""
    n, steps = 110, torch.arange(110)
    lag = (steps[:, None] - steps).clamp(min=0)
    step = torch.exp(-data["decay"])
    powers = [torch.ones_like(step)]
    for _ in range(1, n):
        powers.append(powers[-1] * step)
    kept = torch.stack(powers, dim=1)[:, lag]
    observed, driven = data["noise"].T[:, :, None, None]
    variance = observed + driven * (1 - kept**2)

    def filtered(scores: torch.Tensor) -> torch.Tensor:
        product = scores * 4
        residual = data["q_squared"][..., None] - 2 * kept * product
        residual = residual + kept**2 * data["k_squared"][:, :, None]
        return -variance.log() / 2 - 8 * (1 + residual / variance / 32).log()

    return Dense(torch.ones(n, n).tril().bool(), filtered)


@dense
def tapa(data: Data) -> Dense:
    """The real part of a rotation by the phase."""
    place = torch.arange(105).double()
    stretch = torch.cdist(place[:, None], place[:, None]).pow(0.1)

    def rotated(scores: torch.Tensor) -> torch.Tensor:
        phase = data["q_phase"] @ data["k_phase"].mT
        angle = 2 * math.pi * stretch * phase
        return torch.polar(torch.ones_like(angle), angle).real * scores

    return Dense(torch.ones(105, 105).tril().bool(), rotated)
