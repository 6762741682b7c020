"""Block masks: the tiles of a mask_mod, known ahead of the call; a drop-in for PyTorch's."""

from __future__ import annotations

import math
from typing import Any, Self, TypeVar

import torch

from attnc import checks
from attnc.block_mask.arguments import (
    check_list,
    check_lists,
    checked_block_size,
    checked_flag,
    checked_lengths,
    kept_index,
    taken,
)
from attnc.block_mask.lists import Pair, dense_of_lists, lists_of_dense
from attnc.block_mask.parts import BlockParts
from attnc.block_mask.pictures import block_pictures
from attnc.block_mask.storage import KV_LISTS, Q_LISTS
from attnc.block_mask.write_order import write_order
from attnc.errors import (
    BlockMaskArgumentError,
    BlockMaskLengthError,
    BlockMaskListsError,
    MaskDeviceError,
    SlicedMaskModError,
    WriteOrderError,
)
from attnc.ir import Expr
from attnc.mods import Mod, noop_mask, require_kind
from attnc.run_table import Kind, RunTable

LARGE_BLOCK = 1 << 30  # PyTorch's "no blocks at all"


def _sliced_mask_mod(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    raise SlicedMaskModError()


def is_sliced(block_mask: Any) -> bool:
    """Whether ``block_mask``, ours or PyTorch's, was cut out of another and not finished."""
    mask_mod = block_mask.mask_mod
    return (
        mask_mod is _sliced_mask_mod
        or getattr(mask_mod, "__name__", "") == "_sliced_mask_mod_error"
    )


class BlockMask(BlockParts):
    """Which blocks of (queries, keys) a mask leaves empty, partial or full.

    The lists are the truth: a block that is absent is skipped, in one listed as partial
    ``mask_mod`` holds, in one listed as full every pair is visible. All attributes may be assigned
    and all lists written to.

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
        dq_write_order: What PyTorch's deterministic FLASH backward reads, or None; nothing here
            does.
        dq_write_order_full: See ``dq_write_order``.
        dq_kv_order: The order it was made for, as a tensor.
        dq_kv_order_spt: The same as a bool: whether the last block of keys comes first.
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
        *,
        dq_write_order: torch.Tensor | None = None,
        dq_write_order_full: torch.Tensor | None = None,
        dq_kv_order: torch.Tensor | None = None,
        dq_kv_order_spt: bool | None = None,
    ) -> None:
        check_lists(kv_num_blocks, kv_indices, full_kv_num_blocks, full_kv_indices)
        require_kind(mask_mod, "mask_mod", "mask_mod")
        q_lists = (q_num_blocks, q_indices, full_q_num_blocks, full_q_indices)
        for name, value in zip(Q_LISTS, q_lists, strict=True):
            check_list(name, value)
        if (full_q_num_blocks is None) != (full_q_indices is None):
            raise BlockMaskListsError(one="full_q_num_blocks", other="full_q_indices")
        if dq_write_order_full is not None and dq_write_order is None:
            raise BlockMaskArgumentError(problem="dq_write_order_full needs dq_write_order")
        self._seq_lengths = checked_lengths(seq_lengths)
        self._block_size = checked_block_size(BLOCK_SIZE)
        self._mask_mod = mask_mod
        self.dq_write_order = dq_write_order
        self.dq_write_order_full = dq_write_order_full
        self.dq_kv_order = dq_kv_order
        self.dq_kv_order_spt = dq_kv_order_spt
        kv = (kv_num_blocks, kv_indices, full_kv_num_blocks, full_kv_indices)
        self._hold_lists(dict(zip((*KV_LISTS, *Q_LISTS), (*kv, *q_lists), strict=True)))

    @classmethod
    def from_table(
        cls,
        table: RunTable,
        mask_mod: Mod,
        expr: Expr | None,
        device: torch.device,
        batch_shape: tuple[int, ...],
        separate_full_blocks: bool,
    ) -> Self:
        """A block mask whose lists are made when they are asked for.

        Args:
            table: The runs of tiles of one class, per row of tiles.
            mask_mod: What holds inside partial blocks.
            expr: The whole mask if it reads no tensor, else None.
            device: Where the lists are put.
            batch_shape: Axes before the blocks, as (B, H).
            separate_full_blocks: Tell full blocks from partial ones in the lists.
        """
        block_mask = cls.__new__(cls)
        block_mask._hold_table(table, device, separate=separate_full_blocks)
        block_mask._batch_shape = batch_shape
        block_mask._mask_mod = mask_mod
        block_mask._frozen_mask = expr
        for name in (*cls._TENSOR_ATTRS[8:], "dq_kv_order_spt"):
            setattr(block_mask, name, None)
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
        *,
        dq_write_order: torch.Tensor | None = None,
        dq_write_order_full: torch.Tensor | None = None,
        dq_kv_order: torch.Tensor | bool | None = None,
    ) -> Self:
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
            dq_write_order: See the class.
            dq_write_order_full: See the class.
            dq_kv_order: See the class; a bool goes to ``dq_kv_order_spt``.
        """
        check_lists(kv_num_blocks, kv_indices, full_kv_num_blocks, full_kv_indices)
        block = checked_block_size(BLOCK_SIZE)
        if seq_lengths is None:
            seq_lengths = (kv_indices.shape[-2] * block[0], kv_indices.shape[-1] * block[1])
        if not isinstance(dq_kv_order, (bool, torch.Tensor, type(None))):
            raise BlockMaskArgumentError(problem="dq_kv_order must be a bool, a tensor or None")
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
            dq_write_order=dq_write_order,
            dq_write_order_full=dq_write_order_full,
            dq_kv_order=dq_kv_order if isinstance(dq_kv_order, torch.Tensor) else None,
            dq_kv_order_spt=dq_kv_order if isinstance(dq_kv_order, bool) else None,
        )
        if checked_flag("compute_q_blocks", compute_q_blocks):
            for name in Q_LISTS:  # made from the others on first access
                del block_mask._lists[name]
        return block_mask

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, H, n_queries, n_keys)."""
        return (*self.batch_shape, *self.seq_lengths)

    def numel(self) -> int:
        """Pairs of query and key, over all batches and heads."""
        return math.prod(self.shape)

    def sparsity(self) -> float:
        """Percentage of pairs that are not in visited blocks, as PyTorch counts them.

        A block at the end counts in full however short it is, so that the result is too low, even
        negative, for lengths that are no multiples of the blocks; ``attnc.analyze`` is exact.
        """
        if self._lists_follow:
            table = self.table
            n_copies = math.prod(self.batch_shape) // max(1, table.n_batch * table.n_heads)
            n_visited = (table.n_partial + table.n_full) * n_copies
        else:
            n_visited = int(self.kv_num_blocks.sum())
            if self.full_kv_num_blocks is not None:
                n_visited += int(self.full_kv_num_blocks.sum())
        n_pairs = self.numel()
        return 100 * (1 - n_visited * math.prod(self.BLOCK_SIZE) / n_pairs) if n_pairs else 0.0

    def to_dense(self) -> torch.Tensor:
        """(..., n_q_blocks, n_kv_blocks) int32: 1 where a block is visited."""
        if self._lists_follow:
            visited = self.table.to_dense() != Kind.EMPTY
            return self._batched(torch.from_numpy(visited).to(torch.int32))
        # Lists are assigned one at a time, so that they need fit together only here.
        check_lists(self.kv_num_blocks, self.kv_indices, *(self.full_kv or (None, None)))
        dense = dense_of_lists(self.kv_num_blocks, self.kv_indices)
        return dense if self.full_kv is None else dense | dense_of_lists(*self.full_kv)

    def to_string(self, grid_size: int | tuple[int, int] = (20, 20), limit: int = 4) -> str:
        """A picture per batch and head: visited blocks dark, empty ones blank.

        Args:
            grid_size: Rows and columns at the most; -1 shows every block.
            limit: Pictures at the most.
        """
        return block_pictures(self.to_dense().cpu().numpy(), grid_size, limit)

    def __str__(self) -> str:
        head = f"BlockMask(shape={self.shape}, sparsity={self.sparsity():.2f}%, "
        return f"{head}\n{self.to_string().strip()}\n)"

    def __repr__(self) -> str:
        lines = [f"{name}={self.shape_named(name)}" for name in (*KV_LISTS, *Q_LISTS)]
        lines += [f"BLOCK_SIZE={self.BLOCK_SIZE}", f"shape={self.shape}"]
        lines.append(f"sparsity={self.sparsity():.2f}%")
        lines.append(f"mask_mod={getattr(self.mask_mod, '__name__', self.mask_mod)}")
        return "BlockMask(\n    " + ",\n    ".join(lines) + "\n)"

    def __getitem__(self, index: Any) -> BlockMask:
        """The block mask of some batches, heads and blocks of queries.

        All dimensions stay. The lengths are those of the whole, and the mask_mod, which would see
        wrong indices, raises; replace both by assignment:
        ``row = block_mask[:, :, 3]; row.seq_lengths = (1, n_keys); row.mask_mod = ...``.
        """
        self._require_no_order("sliced")
        kept = kept_index(index, self.kv_num_blocks.shape)
        full = self.full_kv
        numbers, indices = taken((self.kv_num_blocks, self.kv_indices), kept, index)
        fulls = (None, None) if full is None else taken(full, kept, index)
        sliced = BlockMask.from_kv_blocks(
            numbers,
            indices,
            fulls[0],
            fulls[1],
            self.BLOCK_SIZE,
            _sliced_mask_mod,
            self.seq_lengths,
            compute_q_blocks=self.q_indices is not None,
        )
        return self._with_write_order_of_its_own(sliced)

    def _adjust(self, new_q_len: int, new_kv_len: int) -> Self:
        """The upper left corner, for other lengths; right for masks that ignore the lengths.

        Raises:
            BlockMaskLengthError: There are no blocks for lengths so long.
        """
        self._require_no_order("adjusted")
        new_q_len, new_kv_len = checked_lengths((new_q_len, new_kv_len))
        kinds = self.listed_kinds()
        n_rows = -(-new_q_len // self.BLOCK_SIZE[0])
        n_columns = -(-new_kv_len // self.BLOCK_SIZE[1])
        if n_rows > kinds.shape[-2] or n_columns > kinds.shape[-1]:
            raise BlockMaskLengthError(
                mask_q=self.seq_lengths[0],
                mask_kv=self.seq_lengths[1],
                n_queries=new_q_len,
                n_keys=new_kv_len,
            )
        corner = kinds[..., :n_rows, :n_columns]
        partial = lists_of_dense(corner == Kind.PARTIAL)
        full = None if self.full_kv is None else lists_of_dense(corner == Kind.FULL)
        adjusted = self.from_kv_blocks(
            partial[0],
            partial[1],
            None if full is None else full[0],
            None if full is None else full[1],
            self.BLOCK_SIZE,
            self.mask_mod,
            (new_q_len, new_kv_len),
            compute_q_blocks=self.q_indices is not None,
        )
        return self._with_write_order_of_its_own(adjusted)

    def _require_no_order(self, verb: str) -> None:
        if self.dq_kv_order is not None:
            raise WriteOrderError(verb=verb)

    def _with_write_order_of_its_own(self, part: _M) -> _M:
        part.dq_kv_order_spt = self.dq_kv_order_spt
        if self.dq_write_order is not None:
            part.add_write_order(descending=bool(self.dq_kv_order_spt))
        return part

    def add_write_order(self, *, descending: bool) -> None:
        """Sets ``dq_write_order`` and ``dq_write_order_full``.

        Args:
            descending: The last block of keys comes first.

        Raises:
            BlockMaskArgumentError: There are no q lists.
        """
        if self.q_num_blocks is None or self.q_indices is None:
            raise BlockMaskArgumentError(problem="a dq_write_order needs the q lists")
        full_q: Pair | None = None
        if self.full_kv is not None and self.full_q_num_blocks is not None:
            assert self.full_q_indices is not None
            full_q = self.full_q_num_blocks, self.full_q_indices
        self.dq_write_order, self.dq_write_order_full = write_order(
            (self.kv_num_blocks, self.kv_indices),
            self.full_kv,
            (self.q_num_blocks, self.q_indices),
            full_q,
            descending=descending,
        )

    def to(self, device: torch.device | str) -> BlockMask:
        """A copy whose lists are on ``device``; captured tensors of mask_mod stay where they are."""
        place = checks.device(device)
        if place is None:
            raise MaskDeviceError(device=device, problem="that is no device.")
        moved = BlockMask.__new__(BlockMask)
        moved.__dict__.update(self.__dict__)
        moved._move_lists(place)
        for name in self._TENSOR_ATTRS[8:]:
            tensor = getattr(self, name)
            setattr(moved, name, None if tensor is None else tensor.to(device))
        return moved


_M = TypeVar("_M", bound=BlockMask)
