"""Dense twins of axes: Kronecker products of what each axis allows."""

from __future__ import annotations

import torch
from gallery.harness import Data, Dense, dense


def _kron(*axes: torch.Tensor) -> Dense:
    """Tokens in row-major order see each other where all axes agree; the slowest axis is first."""
    visible = axes[0]
    for axis in axes[1:]:
        visible = torch.kron(visible, axis)
    return Dense(visible.bool())


def _band(n: int, reach: int) -> torch.Tensor:
    ones = torch.ones(n, n)
    return ones.tril(reach) * ones.triu(-reach)


@dense
def hpnet_times(data: Data) -> Dense:
    recent = torch.ones(7, 7).tril(-1).triu(-4)
    return _kron(recent, torch.eye(4), torch.eye(5))


@dense
def hpnet_agents(data: Data) -> Dense:
    return _kron(torch.eye(7), 1 - torch.eye(4), torch.eye(5))


@dense
def hpnet_modes(data: Data) -> Dense:
    return _kron(torch.eye(7), torch.eye(4), 1 - torch.eye(5))


@dense
def sener_rows(data: Data) -> Dense:
    return _kron(torch.eye(12), _band(11, 3))


@dense
def sener_columns(data: Data) -> Dense:
    return _kron(_band(12, 3), torch.eye(11))
