"""Block masks: the tiles of a mask_mod, known ahead of the call; a drop-in for PyTorch's.

A ``BlockMask`` holds a run-length table. PyTorch's index lists, quadratic in the number of blocks,
are made on first access only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from attnc.errors import (
    BlockMaskArgumentError,
    BlockMaskLengthError,
    BlockMaskShapeError,
    SlicedMaskModError,
)
from attnc.ir import Expr
from attnc.mods import Mod, mod_kind, mod_name, noop_mask, require_kind
from attnc.run_table import IndexLists, Kind, RunTable
from attnc.runtime.dispatch import Fixed
from attnc.simplify import simplify
from attnc.trace import SlotTable, trace_mask, trace_score

_LARGE_BLOCK = 1 << 30  # PyTorch's "no blocks at all"
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
_CHARACTERS = {0.0: " ", 1.0: "█"}


def _sliced_mask_mod(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    raise SlicedMaskModError()


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
        self._expr: Expr | None = None
        self._table: RunTable | None = None
        self._device = kv_indices.device
        self._separate_full_blocks = full_kv_indices is not None
        self._batch_shape: tuple[int, ...] = tuple(kv_indices.shape[:-2])
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
    def _from_table(
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
        block_mask._expr = expr
        block_mask._table = table
        block_mask._device = device
        block_mask._separate_full_blocks = separate_full_blocks
        block_mask._batch_shape = batch_shape
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
        if self._expr is not None:
            self._expr = None

    @property
    def table(self) -> RunTable:
        """The same blocks as runs; B and H of size 1 where all batches or heads share them."""
        if self._table is None:
            self._table = self._table_from_lists()
        return self._table

    def _table_from_lists(self) -> RunTable:
        def array(name: str, dims: int) -> np.ndarray[Any, Any]:
            tensor = self._lists[name]
            if tensor is None:  # no full blocks are listed
                tensor = torch.zeros_like(self._required(name.removeprefix("full_")))
            listed = tensor.detach().cpu().numpy()
            return listed.reshape((1,) * (dims - listed.ndim) + listed.shape)

        lists = IndexLists(
            array("kv_num_blocks", 3),
            array("kv_indices", 4),
            array("full_kv_num_blocks", 3),
            array("full_kv_indices", 4),
        )
        return RunTable.from_lists(
            lists,
            n_queries=self.seq_lengths[0],
            n_keys=self.seq_lengths[1],
            block_m=self.BLOCK_SIZE[0],
            block_n=self.BLOCK_SIZE[1],
        )

    def _list(self, name: str) -> torch.Tensor | None:
        if name not in self._lists:
            self._make_lists(transposed=name in _LISTS[4:])
        return self._lists[name]

    def _make_lists(self, *, transposed: bool) -> None:
        table = _with_partial_tail(self.table)
        if not self._separate_full_blocks:
            table = replace(table, kinds=np.full_like(table.kinds, Kind.PARTIAL))
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
        if len(self._batch_shape) < 2:
            return blocks.reshape(*self._batch_shape, *rest).to(self._device)
        return blocks.expand(*self._batch_shape, *rest).to(self._device)

    @property
    def kv_num_blocks(self) -> torch.Tensor:
        return self._required("kv_num_blocks")

    @property
    def kv_indices(self) -> torch.Tensor:
        return self._required("kv_indices")

    @property
    def full_kv_num_blocks(self) -> torch.Tensor | None:
        return self._list("full_kv_num_blocks")

    @property
    def full_kv_indices(self) -> torch.Tensor | None:
        return self._list("full_kv_indices")

    @property
    def q_num_blocks(self) -> torch.Tensor | None:
        return self._list("q_num_blocks")

    @property
    def q_indices(self) -> torch.Tensor | None:
        return self._list("q_indices")

    @property
    def full_q_num_blocks(self) -> torch.Tensor | None:
        return self._list("full_q_num_blocks")

    @property
    def full_q_indices(self) -> torch.Tensor | None:
        return self._list("full_q_indices")

    def _required(self, name: str) -> torch.Tensor:
        tensor = self._list(name)
        assert tensor is not None
        return tensor

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
        return (*self._batch_shape, *self.seq_lengths)

    def numel(self) -> int:
        """Pairs of query and key, over all batches and heads."""
        return int(np.prod(self.shape, dtype=np.int64))

    def sparsity(self) -> float:
        """Percentage of pairs that lie in empty blocks."""
        n_queries, n_keys = self.seq_lengths
        if self.numel() == 0:
            return 0.0
        dense = self.table.to_dense() != Kind.EMPTY
        rows = _block_lengths(n_queries, self.BLOCK_SIZE[0], dense.shape[2])
        columns = _block_lengths(n_keys, self.BLOCK_SIZE[1], dense.shape[3])
        visited = np.einsum("bhqk,q,k->", dense.astype(np.float64), rows, columns)
        total = dense.shape[0] * dense.shape[1] * n_queries * n_keys
        return 100.0 * (1.0 - float(visited) / total)

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
        dense = self.to_dense().cpu().numpy()
        n_rows, n_columns = dense.shape[-2:]
        if grid_size == -1:
            max_rows, max_columns = n_rows, n_columns
        else:
            max_rows, max_columns = (
                (grid_size, grid_size) if isinstance(grid_size, int) else grid_size
            )
        row_step = max(1, -(-n_rows // max(1, max_rows)))
        column_step = max(1, -(-n_columns // max(1, max_columns)))
        pictures = []
        for number, position in enumerate(itertools.product(*map(range, dense.shape[:-2]))):
            if number == limit:
                pictures.append(
                    f"... {int(np.prod(dense.shape[:-2])) - limit} more: to_string(limit=N), or "
                    "index the mask by [batch, head]"
                )
                break
            lines = [str(position)] if position else []
            for row in range(0, n_rows, row_step):
                cells = (
                    dense[position][row : row + row_step, column : column + column_step].mean()
                    for column in range(0, n_columns, column_step)
                )
                lines.append("".join(2 * _CHARACTERS.get(float(cell), "░") for cell in cells))
            pictures.append("\n".join(lines))
        return "\n".join(pictures)

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
        batch_shape = (*self._batch_shape, 1, 1)[:2]
        return BlockMask._from_table(
            table,
            self.mask_mod,
            self._expr,
            self._device,
            (batch_shape[0], batch_shape[1]),
            self._separate_full_blocks,
        )

    def _of_lengths(self, n_queries: int, n_keys: int) -> BlockMask:
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
            *(self._list(name) for name in _LISTS),
            BLOCK_SIZE=self.BLOCK_SIZE,
            mask_mod=getattr(self.mask_mod, "fn", self.mask_mod),
        )


def _with_partial_tail(table: RunTable) -> RunTable:
    """The table as PyTorch lists it: a block that reaches beyond a length is never full."""
    rows, columns = bool(table.n_queries % table.block_m), bool(table.n_keys % table.block_n)
    if not (rows or columns):
        return table
    dense = table.to_dense()
    if rows:
        dense[:, :, -1] = np.minimum(dense[:, :, -1], Kind.PARTIAL)
    if columns:
        dense[:, :, :, -1] = np.minimum(dense[:, :, :, -1], Kind.PARTIAL)
    return RunTable.from_dense(
        dense,
        n_queries=table.n_queries,
        n_keys=table.n_keys,
        block_m=table.block_m,
        block_n=table.block_n,
    )


def _block_lengths(length: int, block: int, n_blocks: int) -> np.ndarray[Any, Any]:
    starts = np.arange(n_blocks, dtype=np.int64) * block
    return np.clip(length - starts, 0, block).astype(np.float64)


def create_block_mask(
    mask_mod: Mod,
    B: int | None,
    H: int | None,
    Q_LEN: int,
    KV_LEN: int,
    device: torch.device | str | None = None,
    BLOCK_SIZE: int | tuple[int, int] = 128,
    _compile: bool = False,
    separate_full_blocks: bool = True,
) -> BlockMask:
    """The block mask of a mask_mod, by analysis of the function instead of evaluating every pair.

    Args:
        mask_mod: ``(b, h, q_idx, kv_idx) -> bool``.
        B: Batches, or None where the mask is the same for all.
        H: Query heads, or None where the mask is the same for all.
        Q_LEN: Number of queries.
        KV_LEN: Number of keys.
        device: Where the index lists are put when they are asked for; that of the captured
            tensors, else the CPU, if None.
        BLOCK_SIZE: Tokens per block, one number or (queries, keys).
        _compile: Accepted for PyTorch's sake; there is nothing to compile.
        separate_full_blocks: Tell full blocks from partial ones in the index lists.
    """
    from attnc.blocks import classify

    require_kind(mask_mod, "mask_mod", "mask_mod")
    slots = SlotTable()
    expr = simplify(trace_mask(mask_mod, slots).expr)
    block = (BLOCK_SIZE, BLOCK_SIZE) if isinstance(BLOCK_SIZE, int) else BLOCK_SIZE
    if min(block) <= 0:
        raise BlockMaskArgumentError(problem=f"BLOCK_SIZE {BLOCK_SIZE} is not positive")
    shape = (B or 1, H or 1)
    table = classify(
        expr,
        slots.tensors,
        n_batch=shape[0],
        n_heads=shape[1],
        n_queries=Q_LEN,
        n_keys=KV_LEN,
        block_m=block[0],
        block_n=block[1],
    ).table
    if device is None:
        device = slots.tensors[0].device if slots.tensors else "cpu"
    # Without captured tensors the expression is the mask for good; with them the table is a
    # snapshot of their content, and mask_mod is read anew inside partial blocks.
    frozen = None if slots.tensors else expr
    return BlockMask._from_table(
        table, mask_mod, frozen, torch.device(device), shape, separate_full_blocks
    )


def create_mask(
    mod_fn: Mod,
    B: int | None,
    H: int | None,
    Q_LEN: int,
    KV_LEN: int,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Dense (B or 1, H or 1, Q_LEN, KV_LEN) bool: where a mask_mod holds.

    For a score_mod, where it does not turn a score of 0 into -inf.
    """
    from attnc.evaluate import evaluate

    slots = SlotTable()
    is_mask = mod_kind(mod_fn) == "mask_mod"
    traced = trace_mask(mod_fn, slots) if is_mask else trace_score(mod_fn, slots)
    if device is None:
        device = slots.tensors[0].device if slots.tensors else "cpu"
    shape = (B or 1, H or 1, Q_LEN, KV_LEN)
    indices = [
        torch.arange(n, dtype=torch.int32, device=device).reshape(
            [n if axis == i else 1 for i in range(4)]
        )
        for axis, n in enumerate(shape)
    ]
    value = evaluate(
        traced.expr,
        b=indices[0],
        h=indices[1],
        q_idx=indices[2],
        kv_idx=indices[3],
        score=None if is_mask else torch.zeros((), device=device),
        tensors=[t.to(device) for t in slots.tensors],
    )
    visible = value if is_mask else value != -torch.inf
    return visible.expand(shape).contiguous()


_from_torch: WeakKeyDictionary[Any, tuple[list[torch.Tensor | None], BlockMask]] = (
    WeakKeyDictionary()
)


def as_fixed(mask: Any, q: torch.Tensor, k: torch.Tensor) -> Fixed | None:
    """What a kernel needs of a block mask, ours or PyTorch's; None for anything else.

    Raises:
        BlockMaskLengthError: It was made for other lengths.
        BlockMaskShapeError: Its batch or heads are neither 1 nor those of q.
        DeviceError: It is on another device than q.
    """
    block_mask = _as_block_mask(mask)
    if block_mask is None:
        return None
    n_queries, n_keys = q.shape[2], k.shape[2]
    block = block_mask.BLOCK_SIZE
    if block == (_LARGE_BLOCK, _LARGE_BLOCK) and n_queries and n_keys:
        block_mask = block_mask._of_lengths(n_queries, n_keys)
    if block_mask.seq_lengths != (n_queries, n_keys):
        raise BlockMaskLengthError(
            mask_q=block_mask.seq_lengths[0],
            mask_kv=block_mask.seq_lengths[1],
            n_queries=n_queries,
            n_keys=n_keys,
        )
    batch_shape = (1, 1, *block_mask._batch_shape)[-2:]
    for axis, size, wanted in zip("BH", batch_shape, q.shape[:2], strict=True):
        if size not in (1, wanted):
            raise BlockMaskShapeError(axis=axis, mask_size=size, size=wanted)
    if block_mask._expr is not None:
        return Fixed(None, block_mask.mask_mod, block_mask._expr)
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
    lists: list[torch.Tensor | None] = [getattr(mask, name) for name in _LISTS[:4]]
    known = _from_torch.get(mask)
    if known is not None and all(
        (a is None) == (b is None) and (a is None or b is None or torch.equal(a, b))
        for a, b in zip(known[0], lists, strict=True)
    ):
        block_mask = known[1]
    else:
        copies = [None if t is None else t.clone() for t in lists]
        block_mask = BlockMask.from_kv_blocks(
            *lists, BLOCK_SIZE=tuple(mask.BLOCK_SIZE), seq_lengths=tuple(mask.seq_lengths)
        )
        _from_torch[mask] = (copies, block_mask)
    block_mask.seq_lengths = tuple(mask.seq_lengths)
    block_mask.mask_mod = mask.mask_mod
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
