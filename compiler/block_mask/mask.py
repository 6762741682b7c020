"""Block masks: the tiles of a mask_mod, known ahead of the call; a drop-in for PyTorch's.

A ``BlockMask`` holds a run-length table. PyTorch's index lists, quadratic in the number of blocks,
are made on first access only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from attnc.block_mask.lists import listed_as_pytorch, table_of_lists, visited_share
from attnc.block_mask.pictures import block_pictures
from attnc.errors import (
    BlockMaskArgumentError,
    BlockMaskLengthError,
    SlicedMaskModError,
)
from attnc.ir import Expr
from attnc.mods import Mod, mod_name, noop_mask
from attnc.run_table import Kind, RunTable

LARGE_BLOCK = 1 << 30  # PyTorch's "no blocks at all"
_LISTS = (
    "kv_num_blocks",
    "kv_indices",
    "full_kv_num_blocks",
    "full_kv_indices",
    "q_num_blocks",
    "q_indices",
    "full_q_num_blocks",
    "full_q_indices",
)


def _sliced_mask_mod(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    raise SlicedMaskModError()


def _optional(name: str) -> property:
    """A list of a BlockMask that may be None, made on first access."""

    def listed(self: BlockMask) -> torch.Tensor | None:
        return self._list(name)

    return property(listed)


def _required(name: str) -> property:
    """A list of a BlockMask that is always there, made on first access."""

    def listed(self: BlockMask) -> torch.Tensor:
        tensor = self._list(name)
        assert tensor is not None
        return tensor

    return property(listed)


class BlockMask:
    """Which blocks of (queries, keys) a mask leaves empty, partial or full.

    In a mask made from lists the lists are the truth: a block that is absent is skipped, in one
    listed as partial ``mask_mod`` holds, in one listed as full every pair is visible.

    Attributes:
        seq_lengths: (n_queries, n_keys) in tokens.
        BLOCK_SIZE: (queries, keys) per block.
        mask_mod: What holds inside partial blocks.
        kv_num_blocks: (..., n_q_blocks) int32, partial blocks per row of blocks.
        kv_indices: (..., n_q_blocks, n_kv_blocks) int32, their numbers, first ``kv_num_blocks``
            of each row.
        full_kv_num_blocks: The same for full blocks; None where full blocks are not told apart.
        full_kv_indices: See ``full_kv_num_blocks``.
        q_num_blocks: (..., n_kv_blocks) int32, the transposed lists; None where not computed.
        q_indices: See ``q_num_blocks``.
        full_q_num_blocks: See ``q_num_blocks``.
        full_q_indices: See ``q_num_blocks``.
    """

    def __init__(
        self,
        seq_lengths: tuple[int, int],
        kv_num_blocks: torch.Tensor,
        kv_indices: torch.Tensor,
        full_kv_num_blocks: torch.Tensor | None,
        full_kv_indices: torch.Tensor | None,
        q_num_blocks: torch.Tensor | None,
        q_indices: torch.Tensor | None,
        full_q_num_blocks: torch.Tensor | None,
        full_q_indices: torch.Tensor | None,
        BLOCK_SIZE: tuple[int, int] = (128, 128),
        mask_mod: Mod = noop_mask,
    ) -> None:
        if kv_indices.dim() < 2:
            raise BlockMaskArgumentError(problem="kv_indices needs at least 2 dimensions")
        if (full_kv_num_blocks is None) != (full_kv_indices is None):
            raise BlockMaskArgumentError(
                problem="full_kv_num_blocks and full_kv_indices go together: give both or neither"
            )
        if (full_q_num_blocks is None) != (full_q_indices is None):
            raise BlockMaskArgumentError(
                problem="full_q_num_blocks and full_q_indices go together: give both or neither"
            )
        self.seq_lengths = seq_lengths
        self.BLOCK_SIZE = BLOCK_SIZE
        self._mask_mod = mask_mod
        self.frozen_mask: Expr | None = None
        self._table: RunTable | None = None
        self._device = kv_indices.device
        self._separate_full_blocks = full_kv_indices is not None
        self.batch_shape: tuple[int, ...] = tuple(kv_indices.shape[:-2])
        self._lists: dict[str, torch.Tensor | None] = {
            "kv_num_blocks": kv_num_blocks,
            "kv_indices": kv_indices,
            "full_kv_num_blocks": full_kv_num_blocks,
            "full_kv_indices": full_kv_indices,
            "q_num_blocks": q_num_blocks,
            "q_indices": q_indices,
            "full_q_num_blocks": full_q_num_blocks,
            "full_q_indices": full_q_indices,
        }

    @classmethod
    def from_table(
        cls,
        table: RunTable,
        mask_mod: Mod,
        expr: Expr | None,
        device: torch.device,
        batch_shape: tuple[int, int],
        separate_full_blocks: bool,
    ) -> BlockMask:
        block_mask = cls.__new__(cls)
        block_mask.seq_lengths = (table.n_queries, table.n_keys)
        block_mask.BLOCK_SIZE = (table.block_m, table.block_n)
        block_mask._mask_mod = mask_mod
        block_mask.frozen_mask = expr
        block_mask._table = table
        block_mask._device = device
        block_mask._separate_full_blocks = separate_full_blocks
        block_mask.batch_shape = batch_shape
        block_mask._lists = {}
        return block_mask

    @classmethod
    def from_kv_blocks(
        cls,
        kv_num_blocks: torch.Tensor,
        kv_indices: torch.Tensor,
        full_kv_num_blocks: torch.Tensor | None = None,
        full_kv_indices: torch.Tensor | None = None,
        BLOCK_SIZE: int | tuple[int, int] = 128,
        mask_mod: Mod | None = None,
        seq_lengths: tuple[int, int] | None = None,
        compute_q_blocks: bool = True,
    ) -> BlockMask:
        """A block mask from lists of key blocks per block of queries.

        Args:
            kv_num_blocks: (..., n_q_blocks), integers: partial blocks per row.
            kv_indices: (..., n_q_blocks, n_kv_blocks), integers.
            full_kv_num_blocks: As ``kv_num_blocks``, for blocks that need no mask.
            full_kv_indices: As ``kv_indices``, for blocks that need no mask.
            BLOCK_SIZE: Tokens per block, one number or (queries, keys).
            mask_mod: What holds inside partial blocks; everything if None.
            seq_lengths: (n_queries, n_keys); whole blocks if None.
            compute_q_blocks: Also give the transposed lists, which a backward needs.
        """
        if kv_indices.dim() < 2:
            raise BlockMaskArgumentError(problem="kv_indices needs at least 2 dimensions")
        block = (BLOCK_SIZE, BLOCK_SIZE) if isinstance(BLOCK_SIZE, int) else BLOCK_SIZE
        if seq_lengths is None:
            seq_lengths = (kv_indices.shape[-2] * block[0], kv_indices.shape[-1] * block[1])
        block_mask = cls(
            seq_lengths,
            kv_num_blocks,
            kv_indices,
            full_kv_num_blocks,
            full_kv_indices,
            None,
            None,
            None,
            None,
            block,
            noop_mask if mask_mod is None else mask_mod,
        )
        if compute_q_blocks:
            for name in _LISTS[4:]:  # made from the others on first access
                del block_mask._lists[name]
        return block_mask

    @property
    def mask_mod(self) -> Mod:
        return self._mask_mod

    @mask_mod.setter
    def mask_mod(self, mask_mod: Mod) -> None:
        self._mask_mod = mask_mod
        self.frozen_mask = None

    @property
    def table(self) -> RunTable:
        """The same blocks as runs; B and H of size 1 where all batches or heads share them."""
        if self._table is None:
            self._table = self.table_from_lists()
        return self._table

    @table.setter
    def table(self, table: RunTable) -> None:
        self._table = table

    def table_from_lists(self) -> RunTable:
        """The table that the index lists spell out."""
        return table_of_lists(
            self.kv_num_blocks,
            self.kv_indices,
            self.full_kv_num_blocks,
            self.full_kv_indices,
            self.seq_lengths,
            self.BLOCK_SIZE,
        )

    def _list(self, name: str) -> torch.Tensor | None:
        if name not in self._lists:
            self._make_lists(transposed=name in _LISTS[4:])
        return self._lists[name]

    def _make_lists(self, *, transposed: bool) -> None:
        table = listed_as_pytorch(self.table, self._separate_full_blocks)
        lists = (table.transpose() if transposed else table).to_lists()
        arrays: list[np.ndarray[Any, Any] | None] = [lists.kv_num_blocks, lists.kv_indices]
        if self._separate_full_blocks:
            arrays += [lists.full_kv_num_blocks, lists.full_kv_indices]
        else:
            arrays += [None, None]
        for name, array in zip(_LISTS[4:] if transposed else _LISTS[:4], arrays, strict=True):
            self._lists[name] = None if array is None else self._batched(torch.from_numpy(array))

    def _batched(self, blocks: torch.Tensor) -> torch.Tensor:
        """(B or 1, H or 1, ...) as (..., ...) with the batch dimensions of this mask."""
        rest = blocks.shape[2:]
        if len(self.batch_shape) < 2:
            return blocks.reshape(*self.batch_shape, *rest).to(self._device)
        return blocks.expand(*self.batch_shape, *rest).to(self._device)

    kv_num_blocks = _required("kv_num_blocks")
    kv_indices = _required("kv_indices")
    full_kv_num_blocks = _optional("full_kv_num_blocks")
    full_kv_indices = _optional("full_kv_indices")
    q_num_blocks = _optional("q_num_blocks")
    q_indices = _optional("q_indices")
    full_q_num_blocks = _optional("full_q_num_blocks")
    full_q_indices = _optional("full_q_indices")

    def as_tuple(self, flatten: bool = True) -> tuple[Any, ...]:
        """(lengths, the eight lists in the order of the attributes, block size, mask_mod).

        Args:
            flatten: Give the two lengths and the two block sizes as separate items.
        """
        lists = tuple(self._list(name) for name in _LISTS)
        if flatten:
            return (*self.seq_lengths, *lists, *self.BLOCK_SIZE, self.mask_mod)
        return (self.seq_lengths, *lists, self.BLOCK_SIZE, self.mask_mod)

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, H, n_queries, n_keys); without B and H where they were indexed away."""
        return (*self.batch_shape, *self.seq_lengths)

    def numel(self) -> int:
        """Pairs of query and key, over all batches and heads."""
        return int(np.prod(self.shape, dtype=np.int64))

    def sparsity(self) -> float:
        """Percentage of pairs that lie in empty blocks."""
        return 100.0 * (1.0 - visited_share(self.table))

    def to_dense(self) -> torch.Tensor:
        """(..., n_q_blocks, n_kv_blocks) int32: 1 where a block is visited."""
        visited = self.table.to_dense() != Kind.EMPTY
        return self._batched(torch.from_numpy(visited.astype(np.int32)))

    def to_string(self, grid_size: int | tuple[int, int] = (20, 20), limit: int = 4) -> str:
        """A picture per batch and head: visited blocks dark, empty ones blank.

        Args:
            grid_size: Rows and columns at the most; -1 shows every block.
            limit: Pictures at the most.
        """
        return block_pictures(self.to_dense().cpu().numpy(), grid_size, limit)

    def __str__(self) -> str:
        head = f"BlockMask(shape={self.shape}, sparsity={self.sparsity():.2f}%"
        return f"{head},\n{self.to_string().strip()}\n)"

    def __repr__(self) -> str:
        return (
            f"BlockMask(shape={self.shape}, BLOCK_SIZE={self.BLOCK_SIZE}, "
            f"sparsity={self.sparsity():.2f}%, mask_mod={mod_name(self.mask_mod)})"
        )

    def __getitem__(self, index: Any) -> BlockMask:
        """The block mask of some batches, heads and blocks of queries.

        Its mask_mod would see wrong indices, so it raises until it is replaced by assignment.
        """
        index = index if isinstance(index, tuple) else (index,)
        index = (*index, slice(None), slice(None), slice(None))[:3]
        sizes = self.kv_num_blocks.shape[:3]
        kept = tuple(
            slice(i % n, i % n + 1) if isinstance(i, int) and -n <= i < n else i
            for i, n in zip(index, sizes, strict=False)
        )

        def pick(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else tensor[kept]

        n_rows = self.kv_num_blocks[kept].shape[-1]
        n_queries = self.seq_lengths[0]
        if n_rows != self.kv_num_blocks.shape[-1]:
            n_queries = min(n_queries, n_rows * self.BLOCK_SIZE[0])
        return BlockMask.from_kv_blocks(
            self.kv_num_blocks[kept],
            self.kv_indices[kept],
            pick(self.full_kv_num_blocks),
            pick(self.full_kv_indices),
            self.BLOCK_SIZE,
            _sliced_mask_mod,
            (n_queries, self.seq_lengths[1]),
        )

    def _adjust(self, new_q_len: int, new_kv_len: int) -> BlockMask:
        """The upper left corner, for shorter sequences; right for masks that ignore the lengths."""
        old = self.table
        if new_q_len > self.seq_lengths[0] or new_kv_len > self.seq_lengths[1]:
            raise BlockMaskLengthError(
                mask_q=self.seq_lengths[0],
                mask_kv=self.seq_lengths[1],
                n_queries=new_q_len,
                n_keys=new_kv_len,
            )
        n_rows = -(-new_q_len // self.BLOCK_SIZE[0])
        n_columns = -(-new_kv_len // self.BLOCK_SIZE[1])
        table = RunTable.from_dense(
            old.to_dense()[:, :, :n_rows, :n_columns],
            n_queries=new_q_len,
            n_keys=new_kv_len,
            block_m=self.BLOCK_SIZE[0],
            block_n=self.BLOCK_SIZE[1],
        )
        batch_shape = (*self.batch_shape, 1, 1)[:2]
        return BlockMask.from_table(
            table,
            self.mask_mod,
            self.frozen_mask,
            self._device,
            (batch_shape[0], batch_shape[1]),
            self._separate_full_blocks,
        )

    def of_lengths(self, n_queries: int, n_keys: int) -> BlockMask:
        """A copy of a mask of one block that fits any lengths, for these."""
        copy = BlockMask.__new__(BlockMask)
        copy.__dict__.update(self.__dict__, seq_lengths=(n_queries, n_keys), _table=None)
        return copy

    def to(self, device: torch.device | str) -> BlockMask:
        """A copy whose lists are on ``device``; captured tensors of mask_mod stay where they are."""
        moved = BlockMask.__new__(BlockMask)
        moved.__dict__.update(self.__dict__)
        moved._device = torch.device(device)
        moved._lists = {
            name: None if tensor is None else tensor.to(device)
            for name, tensor in self._lists.items()
        }
        return moved

    def to_torch(self) -> Any:
        """The same as a ``torch.nn.attention.flex_attention.BlockMask``."""
        from torch.nn.attention.flex_attention import BlockMask as TorchBlockMask

        return TorchBlockMask(
            self.seq_lengths,
            self.kv_num_blocks,
            self.kv_indices,
            self.full_kv_num_blocks,
            self.full_kv_indices,
            self.q_num_blocks,
            self.q_indices,
            self.full_q_num_blocks,
            self.full_q_indices,
            self.BLOCK_SIZE,
            getattr(self.mask_mod, "fn", self.mask_mod),
        )
