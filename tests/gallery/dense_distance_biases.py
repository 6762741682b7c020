"""Dense twins of biases by distance: matrices built as released code builds them."""

from __future__ import annotations

import math

import torch
from gallery.harness import Data, Dense, dense


@dense
def faceformer(data: Data) -> Dense:
    """As released: the periods before each query are repeated, counted from the query back."""
    n, period = 130, 25
    bias = torch.zeros(4, n, n, dtype=torch.float64)
    for i in range(n):
        counted = -torch.arange(n).repeat_interleave(period)[: i + 1].flip(0)
        for head in range(4):
            bias[head, i, : i + 1] = counted / 4 ** (head + 1)
    return Dense(torch.ones(n, n).tril().bool(), lambda scores: scores + bias)


@dense
def luong_local_p(data: Data) -> Dense:
    """The log of a normal density at each key, up to its constant, in a window cut out by row."""
    centre = data["centre"]
    visible = torch.zeros(2, 1, 40, 110, dtype=torch.bool)
    for row in range(2):
        for query, place in enumerate(centre[row].tolist()):
            first, last = math.ceil(place - 12), math.floor(place + 12)
            visible[row, 0, query, max(first, 0) : last + 1] = True
    density = torch.distributions.Normal(centre[:, None, :, None], 6.0, validate_args=False)
    keys = torch.arange(110, dtype=torch.float64)
    constant = math.log(6.0 * math.sqrt(2 * math.pi))
    return Dense(visible, lambda scores: scores + density.log_prob(keys) + constant)


@dense
def convit(data: Data) -> Dense:
    """As released: a linear layer on the features dx, dy and their squared length."""
    place = torch.cartesian_prod(torch.arange(12.0), torch.arange(12.0)).double()
    dy, dx = (place[None] - place[:, None]).unbind(-1)
    features = torch.stack([dx, dy, dx**2 + dy**2], dim=-1)

    def by_place(scores: torch.Tensor) -> torch.Tensor:
        return 0.0 * scores + torch.nn.functional.linear(
            features, data["weight"], data["offset"]
        ).permute(2, 0, 1)

    return Dense(None, by_place)
