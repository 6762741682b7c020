"""What a kernel needs of a block mask, ours or PyTorch's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch

from attnc.block_mask.mask import LARGE_BLOCK, BlockMask, is_sliced
from attnc.block_mask.storage import KV_LISTS
from attnc.errors import BlockMaskLengthError, BlockMaskShapeError, SlicedMaskModError
from attnc.mods import Mod, noop_mask
from attnc.run_table import Kind, RunTable
from attnc.runtime.dispatch import Fixed

_converted: WeakKeyDictionary[Any, BlockMask] = WeakKeyDictionary()


def as_fixed(mask: Any, q: torch.Tensor, k: torch.Tensor) -> Fixed | None:
    """What a kernel needs of a block mask, ours or PyTorch's; None for anything else.

    Raises:
        BlockMaskLengthError: It was made for other lengths.
        BlockMaskShapeError: Its batch or heads are neither 1 nor those of q.
        SlicedMaskModError: It was cut out of another one and has no mask_mod of its own yet.
    """
    block_mask = _as_block_mask(mask)
    if block_mask is None:
        return None
    if is_sliced(block_mask):  # before the lengths, which are not those of the slice either
        raise SlicedMaskModError()
    n_queries, n_keys = q.shape[2], k.shape[2]
    block = tuple(block_mask.BLOCK_SIZE)
    if block == (LARGE_BLOCK, LARGE_BLOCK) and n_queries and n_keys:
        block_mask = block_mask.of_lengths(n_queries, n_keys)
    if tuple(block_mask.seq_lengths) != (n_queries, n_keys):
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
    cls: type = type(mask)
    if not _is_of_torch(cls):
        return None
    # Kept, with its table, for as long as nothing in it is replaced; it heeds writes by itself.
    known = _converted.get(mask)
    if known is not None and _says_the_same(known, mask):
        return known
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
    _converted[mask] = block_mask
    return block_mask


@functools.cache
def _is_of_torch(cls: type) -> bool:
    return any(
        base.__name__ == "BlockMask" and base.__module__.startswith("torch.nn.attention")
        for base in cls.__mro__
    )


def _says_the_same(block_mask: BlockMask, mask: Any) -> bool:
    return (
        all(getattr(block_mask, name) is getattr(mask, name) for name in KV_LISTS)
        and block_mask.mask_mod is mask.mask_mod
        and block_mask.seq_lengths == tuple(mask.seq_lengths)
        and tuple(mask.BLOCK_SIZE) == block_mask.BLOCK_SIZE
    )


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
