"""What a kernel needs of a block mask, ours or PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from attnc.block_mask.mask import LARGE_BLOCK, BlockMask
from attnc.errors import BlockMaskLengthError, BlockMaskShapeError
from attnc.mods import Mod, noop_mask
from attnc.run_table import Kind, RunTable
from attnc.runtime.contents import ContentMemory
from attnc.runtime.dispatch import Fixed

_from_torch: ContentMemory[RunTable] = ContentMemory()


def as_fixed(mask: Any, q: torch.Tensor, k: torch.Tensor) -> Fixed | None:
    """What a kernel needs of a block mask, ours or PyTorch's; None for anything else.

    Raises:
        BlockMaskLengthError: It was made for other lengths.
        BlockMaskShapeError: Its batch or heads are neither 1 nor those of q.
    """
    block_mask = _as_block_mask(mask)
    if block_mask is None:
        return None
    n_queries, n_keys = q.shape[2], k.shape[2]
    block = block_mask.BLOCK_SIZE
    if block == (LARGE_BLOCK, LARGE_BLOCK) and n_queries and n_keys:
        block_mask = block_mask.of_lengths(n_queries, n_keys)
    if block_mask.seq_lengths != (n_queries, n_keys):
        raise BlockMaskLengthError(
            mask_q=block_mask.seq_lengths[0],
            mask_kv=block_mask.seq_lengths[1],
            n_queries=n_queries,
            n_keys=n_keys,
        )
    batch_shape = (1, 1, *block_mask.batch_shape)[-2:]
    for axis, size, wanted in zip("BH", batch_shape, q.shape[:2], strict=True):
        if size not in (1, wanted):
            raise BlockMaskShapeError(axis=axis, mask_size=size, size=wanted)
    if block_mask.frozen_mask is not None:
        return Fixed(None, block_mask.mask_mod, block_mask.frozen_mask)
    table = block_mask.table
    if block[0] % 16 == 0 and block[1] % 16 == 0:
        return Fixed(table, block_mask.mask_mod, None)
    return Fixed(None, listed_mod(table, block_mask.mask_mod, q.device), None)


def _as_block_mask(mask: Any) -> BlockMask | None:
    if isinstance(mask, BlockMask):
        return mask
    cls = type(mask)
    if cls.__name__ != "BlockMask" or not cls.__module__.startswith("torch.nn.attention"):
        return None
    block_mask = BlockMask.from_kv_blocks(
        mask.kv_num_blocks,
        mask.kv_indices,
        mask.full_kv_num_blocks,
        mask.full_kv_indices,
        tuple(mask.BLOCK_SIZE),
        mask.mask_mod,
        tuple(mask.seq_lengths),
        compute_q_blocks=False,
    )
    if block_mask.BLOCK_SIZE != (LARGE_BLOCK, LARGE_BLOCK):
        # The lists are long: their table is kept for as long as they say the same.
        lists = [mask.kv_num_blocks, mask.kv_indices]
        if mask.full_kv_indices is not None:
            lists += [mask.full_kv_num_blocks, mask.full_kv_indices]
        key = (block_mask.BLOCK_SIZE, block_mask.seq_lengths)
        block_mask.table = _from_torch.get(key, lists, block_mask.table_from_lists)
    return block_mask


def as_function(fixed: Fixed, device: torch.device) -> Mod:
    """A mask_mod that says the same as the block mask that ``fixed`` was made of."""
    if fixed.table is not None:
        return listed_mod(fixed.table, fixed.mod, device)
    return noop_mask if fixed.mod is None else fixed.mod


def listed_mod(
    table: RunTable, mask_mod: Mod | None, device: torch.device
) -> Callable[[Any, Any, Any, Any], Any]:
    """A mask_mod that says the same as a table and what holds inside its partial blocks.

    For block sizes that no kernel tile divides, and for the dense reference.
    """
    kinds = torch.from_numpy(table.to_dense()).to(device)
    block_m, block_n = table.block_m, table.block_n

    def listed(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        row = kinds[b if table.n_batch > 1 else 0, h if table.n_heads > 1 else 0]
        kind = row[q_idx // block_m, kv_idx // block_n]
        inside = kind == int(Kind.PARTIAL)
        if mask_mod is not None:
            inside = inside & mask_mod(b, h, q_idx, kv_idx)
        return (kind == int(Kind.FULL)) | inside

    return listed
