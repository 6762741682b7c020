"""Dense twins of keys in pages: attention in logical order, its columns put where pages lie."""

from __future__ import annotations

import torch
from gallery.harness import Data, Dense, dense


@dense
def flex_attention_paged(data: Data) -> Dense:
    n, size = 75, 16
    order = torch.arange(n)
    back = (order[:, None] - torch.arange(80)).abs().double()
    by_head = data["slopes"][:, None, None] * back
    causal = torch.ones(n, 80).tril().bool()
    visible = torch.zeros(2, 1, n, 160, dtype=torch.bool)
    bias = by_head.new_zeros(2, 4, n, 160)
    for row in range(2):
        for physical, page in enumerate(data["logical"][row].tolist()):
            if page >= 0:
                there = slice(physical * size, (physical + 1) * size)
                here = slice(page * size, (page + 1) * size)
                visible[row, 0, :, there] = causal[:, here]
                bias[row, :, :, there] = by_head[:, :, here]
    return Dense(visible, lambda scores: scores - bias)
