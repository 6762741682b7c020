"""Dense twins of chunks: matrices put together from whole blocks."""

from __future__ import annotations

import torch
from gallery.harness import Data, Dense, dense


@dense
def enerverse(data: Data) -> Dense:
    """Chunk by chunk: memory, what came before, and the chunk itself."""
    visible = torch.zeros(149, 149, dtype=torch.bool)
    visible[:29, :29] = True
    for start in (29, 69, 109):
        visible[start : start + 40, : start + 40] = True
    return Dense(visible)


@dense
def fast_dllm(data: Data) -> Dense:
    """Quadrants of (noised, clean) x (noised, clean), each of 6 x 6 blocks."""
    block = torch.ones(11, 11)
    own, earlier = torch.eye(6), torch.ones(6, 6).tril(-1)
    noised = torch.cat([torch.kron(own, block), torch.kron(earlier, block)], dim=1)
    clean = torch.cat([torch.zeros(66, 66), torch.kron(own + earlier, block)], dim=1)
    return Dense(torch.cat([noised, clean]).bool())


@dense
def m_var(data: Data) -> Dense:
    blocks = [torch.ones(side * side, side * side) for side in range(1, 8)]
    return Dense(torch.block_diag(*blocks).bool())


@dense
def titans(data: Data) -> Dense:
    """The learned tokens as columns of ones beside a band."""
    band = torch.ones(150, 150).tril() - torch.ones(150, 150).tril(-40)
    return Dense(torch.cat([torch.ones(150, 6), band[:, 6:]], dim=1).bool())


@dense
def titans_context(data: Data) -> Dense:
    """One segment as it is written, three times along the diagonal."""
    segment = torch.zeros(49, 49)
    for i in range(49):
        segment[i, : max(13, i + 1)] = 1
    return Dense(torch.block_diag(segment, segment, segment).bool())
