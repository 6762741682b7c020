"""Dense twins of packed parts: blocks along the diagonal, and rows below them."""

from __future__ import annotations

import torch
from gallery.harness import Data, Dense, dense


@dense
def entp(data: Data) -> Dense:
    return Dense(torch.block_diag(*(torch.ones(n, n) for n in range(1, 16))).bool())


@dense
def parallel_context(data: Data) -> Dense:
    """Blocks of chunks, the shared columns, and the rows of the question, chunk by chunk."""
    rows = []
    for sizes, chosen in (
        ((8, 20, 25, 22, 21, 32), (2, 3)),
        ((8, 30, 13, 35, 12, 30), (1, 2)),
    ):
        visible = torch.block_diag(*(torch.ones(size, size) for size in sizes))
        visible[:, :8] = 1
        for chunk in chosen:
            first = sum(sizes[:chunk])
            visible[-sizes[-1] :, first : first + sizes[chunk]] = 1
        rows.append(visible.tril().bool())
    return Dense(torch.stack(rows).unsqueeze(1))
