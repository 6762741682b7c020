"""What a BlockMask holds: a table, index lists, or both.

One made by analysis has a table; its lists, quadratic in the number of blocks, are made on first
access. One made from lists has its table made when a kernel first asks. The lists are the truth:
once they, the lengths or the block size are changed, the table follows them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch

from attnc.block_mask.arguments import check_list, checked_block_size, checked_lengths
from attnc.block_mask.lists import (
    Pair,
    dense_of_lists,
    listed_as_pytorch,
    lists_of_table,
    table_of_lists,
    transposed_lists,
)
from attnc.ir import Expr
from attnc.mods import Mod, require_kind
from attnc.run_table import Kind, RunTable
from attnc.storage import require_memory

KV_LISTS = ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices")
Q_LISTS = ("q_num_blocks", "q_indices", "full_q_num_blocks", "full_q_indices")


class _ListAttribute:
    """A list of a BlockMask, made on first access."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, blocks: BlockStorage | None, owner: type) -> Any:
        return self if blocks is None else blocks.list_named(self._name)

    def __set__(self, blocks: BlockStorage, value: torch.Tensor | None) -> None:
        blocks.set_list(self._name, value)


class BlockStorage:
    """Blocks of queries and keys as lists and as runs, with what holds inside partial ones."""

    _lists: dict[str, torch.Tensor | None]
    _table: RunTable | None
    _runs: tuple[torch.Tensor, ...]  # the arrays of a table made from a mask
    _lists_follow: bool  # the lists are those of the table
    _seen: tuple[torch.Tensor | int, ...] | None  # the lists, or their versions, that it is of
    _frozen_mask: Expr | None
    _separate_full_blocks: bool
    _device: torch.device
    _batch_shape: tuple[int, ...]
    _seq_lengths: tuple[int, int]
    _block_size: tuple[int, int]
    _mask_mod: Mod

    if TYPE_CHECKING:
        kv_num_blocks: torch.Tensor
        kv_indices: torch.Tensor
        full_kv_num_blocks: torch.Tensor | None
        full_kv_indices: torch.Tensor | None
        q_num_blocks: torch.Tensor | None
        q_indices: torch.Tensor | None
        full_q_num_blocks: torch.Tensor | None
        full_q_indices: torch.Tensor | None
    else:
        kv_num_blocks = _ListAttribute()
        kv_indices = _ListAttribute()
        full_kv_num_blocks = _ListAttribute()
        full_kv_indices = _ListAttribute()
        q_num_blocks = _ListAttribute()
        q_indices = _ListAttribute()
        full_q_num_blocks = _ListAttribute()
        full_q_indices = _ListAttribute()

    def _hold_lists(self, lists: dict[str, torch.Tensor | None]) -> None:
        """Start from lists; those of queries that are left out are made when asked for."""
        self._lists = lists
        self._table = None
        self._lists_follow = False
        self._seen = None
        self._frozen_mask = None

    def _hold_table(self, table: RunTable, device: torch.device, *, separate: bool) -> None:
        self._lists = {}
        self._table = table
        arrays = (table.offsets, table.starts, table.stops, table.kinds)
        self._runs = tuple(torch.from_numpy(array) for array in arrays)
        self._lists_follow = True
        self._seen = None
        self._device = device
        self._separate_full_blocks = separate
        self._seq_lengths = (table.n_queries, table.n_keys)
        self._block_size = (table.block_m, table.block_n)

    @property
    def seq_lengths(self) -> tuple[int, int]:
        return self._seq_lengths

    @seq_lengths.setter
    def seq_lengths(self, seq_lengths: tuple[int, int]) -> None:
        lengths = checked_lengths(seq_lengths)
        self._leave_table()
        self._seq_lengths = lengths

    @property
    def BLOCK_SIZE(self) -> tuple[int, int]:
        return self._block_size

    @BLOCK_SIZE.setter
    def BLOCK_SIZE(self, block_size: tuple[int, int]) -> None:
        block = checked_block_size(block_size)
        self._leave_table()
        self._block_size = block

    @property
    def mask_mod(self) -> Mod:
        return self._mask_mod

    @mask_mod.setter
    def mask_mod(self, mask_mod: Mod) -> None:
        require_kind(mask_mod, "mask_mod", "mask_mod")
        self._mask_mod = mask_mod
        self._frozen_mask = None

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """(B, H), or fewer dimensions where lists have fewer."""
        return self._batch_shape if self._lists_follow else tuple(self.kv_indices.shape[:-2])

    @property
    def frozen_mask(self) -> Expr | None:
        """The whole mask as an expression that reads no tensor, if the table is just its tiles."""
        self._heed_writes()
        return self._frozen_mask

    @property
    def table(self) -> RunTable:
        """The same blocks as runs; B and H of size 1 where all batches or heads share them."""
        self._heed_writes()
        if self._table is None:
            self._table = table_of_lists(
                (self.kv_num_blocks, self.kv_indices),
                self.full_kv,
                self.seq_lengths,
                self.BLOCK_SIZE,
            )
            self._seen = self._list_contents()
        return self._table

    @property
    def full_kv(self) -> Pair | None:
        """Both lists of full blocks of keys, or None."""
        if self.full_kv_num_blocks is None or self.full_kv_indices is None:
            return None
        return self.full_kv_num_blocks, self.full_kv_indices

    def list_named(self, name: str) -> torch.Tensor | None:
        if name not in self._lists:
            made = self._made_lists(transposed=name in Q_LISTS)
            self._lists = {**self._lists, **made}
            if self._lists_follow and name in KV_LISTS:
                self._seen = self._list_contents()
        found = self._lists[name]
        if found is not None:
            require_memory(**{name: found})
        return found

    def set_list(self, name: str, value: torch.Tensor | None) -> None:
        check_list(name, value)
        self._leave_table()
        self._lists = {**self._lists, name: value}

    def _made_lists(self, *, transposed: bool) -> dict[str, torch.Tensor | None]:
        pairs: list[Pair | None]
        if self._lists_follow:
            assert self._table is not None
            table = listed_as_pytorch(self._table, self._separate_full_blocks)
            # Inference tensors do not count the writes to them.
            with torch.inference_mode(False):
                made = lists_of_table(table, transposed=transposed)
                pairs = [(self._batched(n_blocks), self._batched(i)) for n_blocks, i in made]
            if not self._separate_full_blocks:
                pairs[1] = None
        else:
            full = self.full_kv
            pairs = [transposed_lists(self.kv_num_blocks, self.kv_indices)]
            pairs.append(None if full is None else transposed_lists(*full))
        names = Q_LISTS if transposed else KV_LISTS
        values = [value for pair in pairs for value in (pair or (None, None))]
        return dict(zip(names, values, strict=True))

    def _batched(self, blocks: torch.Tensor) -> torch.Tensor:
        """(B or 1, H or 1, ...) as (..., ...) with the batch dimensions of this mask."""
        rest = blocks.shape[2:]
        if len(self._batch_shape) < 2:
            return blocks.reshape(*self._batch_shape, *rest).to(self._device)
        # Expanded lists could not be written to, as PyTorch's can.
        return blocks.to(self._device).expand(*self._batch_shape, *rest).contiguous()

    def _leave_table(self) -> None:
        """From here on the lists stand for themselves."""
        if self._lists_follow:
            for name in ("kv_indices", "q_indices"):
                self.list_named(name)
        self._lists_follow = False
        self._table = None
        self._seen = None
        self._frozen_mask = None

    def _heed_writes(self) -> None:
        """Drops the table if lists were written to in place, or if that cannot be told."""
        if "kv_indices" not in self._lists or self._table is None:
            return
        if not self._are_as_seen():
            self._leave_table()

    def _kv_lists(self) -> list[torch.Tensor]:
        return [tensor for name in KV_LISTS if (tensor := self.list_named(name)) is not None]

    def _list_contents(self) -> tuple[torch.Tensor | int, ...] | None:
        """What tells whether the lists are written to; None where nothing does.

        Copies on CPUs, because version counters do not see writes through NumPy or ``.data``.
        Elsewhere versions, for which nobody waits; inference tensors have none.
        """
        lists = self._kv_lists()
        if all(tensor.is_cpu for tensor in lists):
            return tuple(tensor.detach().clone() for tensor in lists)
        if any(tensor.is_inference() for tensor in lists):
            return None
        return tuple(tensor._version for tensor in lists)

    def _are_as_seen(self) -> bool:
        seen, lists = self._seen, self._kv_lists()
        if seen is None or len(seen) != len(lists):
            return False
        for known, tensor in zip(seen, lists, strict=True):
            if isinstance(known, int):
                if tensor.is_inference() or tensor._version != known:
                    return False
            elif known.dtype is not tensor.dtype or not torch.equal(known, tensor):
                return False
        return True

    def listed_kinds(self) -> torch.Tensor:
        """(..., n_q_blocks, n_kv_blocks) int8, values of ``Kind``, as the lists have it."""
        self._heed_writes()
        if self._lists_follow:
            assert self._table is not None
            table = listed_as_pytorch(self._table, self._separate_full_blocks)
            return self._batched(torch.from_numpy(table.to_dense()))
        partial = dense_of_lists(self.kv_num_blocks, self.kv_indices) * int(Kind.PARTIAL)
        if self.full_kv is None:
            return partial
        return torch.maximum(partial, dense_of_lists(*self.full_kv) * int(Kind.FULL))

    def shape_named(self, name: str) -> torch.Size | None:
        """The shape of a list, which need not be made for that; None where there is none."""
        if not self._lists_follow:
            listed = self.list_named(name)
            return None if listed is None else listed.shape
        if name.startswith("full") and not self._separate_full_blocks:
            return None
        assert self._table is not None
        blocks = [self._table.n_q_blocks, self._table.n_kv_blocks]
        if name in Q_LISTS:
            blocks.reverse()
        n_dims = 1 if name.endswith("num_blocks") else 2
        return torch.Size((*self.batch_shape, *blocks[:n_dims]))

    def _move_lists(self, device: torch.device) -> None:
        self._heed_writes()
        self._device = device
        with torch.inference_mode(False):
            self._lists = {
                name: None if (tensor := self.list_named(name)) is None else tensor.to(device)
                for name in tuple(self._lists)
            }
        has_seen = self._table is not None and "kv_indices" in self._lists
        self._seen = self._list_contents() if has_seen else None

    def of_lengths(self, n_queries: int, n_keys: int) -> Self:
        """A copy of a mask of one block that fits any lengths, for these."""
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.seq_lengths = (n_queries, n_keys)
        return copy
