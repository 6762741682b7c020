"""The order in which blocks of keys add to the gradient of a block of queries.

PyTorch's deterministic FLASH backward reads it from a BlockMask; nothing here does.
"""

from __future__ import annotations

import functools

import torch

from attnc.block_mask.lists import Pair, dense_of_lists


def write_order(
    kv: Pair, full_kv: Pair | None, q: Pair, full_q: Pair | None, *, descending: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rank of each listed pair of blocks among those of its block of queries, for both q lists.

    Args:
        kv: Partial blocks of keys per block of queries, (B, H, ...).
        full_kv: Full ones, or None.
        q: Partial blocks of queries per block of keys.
        full_q: Full ones, or None.
        descending: The last block of keys writes first.

    Returns:
        int32, of the shapes of the indices in ``q`` and ``full_q``; None without ``full_q``.
    """
    visited = dense_of_lists(*kv)
    if full_kv is not None:
        visited = visited | dense_of_lists(*full_kv)
    n_before = visited.cumsum(-1) - visited
    ranks = visited.sum(-1, keepdim=True) - 1 - n_before if descending else n_before
    by_key = ranks.transpose(-2, -1)

    def gathered(indices: torch.Tensor) -> torch.Tensor:
        blocks = indices.long().clamp(0, by_key.shape[-1] - 1)
        return by_key.expand(*blocks.shape[:-1], -1).gather(-1, blocks).to(torch.int32)

    return gathered(q[1]), None if full_q is None else gathered(full_q[1])


@functools.cache
def torch_has_write_order() -> bool:
    """Whether BlockMasks of the PyTorch at hand have one."""
    from torch.nn.attention.flex_attention import BlockMask as TorchBlockMask

    return "dq_write_order" in TorchBlockMask.__annotations__
