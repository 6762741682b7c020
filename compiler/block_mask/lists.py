"""Between run-length tables and the index lists of PyTorch's BlockMask.

A pair of lists is (numbers, indices): how many blocks each row has, and their numbers first in the
row. What follows them is arbitrary; lists made here go on with the blocks that are not listed, in
order, as PyTorch's do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attnc.errors import BlockMaskArgumentError, BlockMaskRowsError
from attnc.run_table import Kind, RunTable
from attnc.runtime.contents import ContentMemory

Pair = tuple[torch.Tensor, torch.Tensor]

_tables: ContentMemory[RunTable] = ContentMemory()


def dense_of_lists(n_blocks: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """(..., n_rows, n_columns) int32, 1 where a block is listed.

    ``n_blocks``: (..., n_rows). ``indices``: (..., n_rows, n_columns), any integer dtype.
    """
    n_columns = indices.shape[-1]
    places = torch.arange(n_columns, device=indices.device)
    # Places that do not count write to one more column.
    is_listed = (places < n_blocks[..., None]) & (indices >= 0) & (indices < n_columns)
    columns = torch.where(is_listed, indices, n_columns).long()
    dense = torch.zeros(
        (*indices.shape[:-1], n_columns + 1), dtype=torch.int32, device=indices.device
    )
    return dense.scatter_(-1, columns, 1)[..., :n_columns].contiguous()


def lists_of_dense(dense: torch.Tensor) -> Pair:
    """The pair of int32 lists of ``dense``: (..., n_rows, n_columns), not 0 where listed."""
    listed = (dense != 0).to(torch.int8)
    indices = torch.argsort(listed, dim=-1, descending=True, stable=True)
    return listed.sum(-1, dtype=torch.int32), indices.to(torch.int32)


def transposed_lists(n_blocks: torch.Tensor, indices: torch.Tensor) -> Pair:
    """The same blocks, listed by column."""
    return lists_of_dense(dense_of_lists(n_blocks, indices).transpose(-2, -1))


def lists_of_table(table: RunTable, *, transposed: bool) -> list[Pair]:
    """The pairs of lists of PARTIAL and of FULL blocks, (n_batch, n_heads, ...) each."""
    parts = (table.transpose() if transposed else table).split()
    pairs = (part.to_list() for part in parts)
    return [(torch.from_numpy(n_blocks), torch.from_numpy(i)) for n_blocks, i in pairs]


def table_of_lists(
    partial: Pair,
    full: Pair | None,
    seq_lengths: tuple[int, int],
    block_size: tuple[int, int],
) -> RunTable:
    """The table that the lists spell out; a block in both counts as FULL.

    It is remembered for as long as the lists say the same. Rows and blocks beyond the lengths are
    left out.

    Args:
        partial: (..., n_q_blocks) and (..., n_q_blocks, n_kv_blocks), with 0 to 2 dimensions in
            front.
        full: The same for full blocks, or None.
        seq_lengths: (n_queries, n_keys), in tokens.
        block_size: (queries, keys) per block, in tokens.

    Raises:
        BlockMaskRowsError: There are fewer rows than blocks of queries.
    """
    lists = [*partial, *(full or ())]
    key = (tuple(seq_lengths), tuple(block_size), len(lists))
    return _tables.get(key, lists, lambda: _table_of_lists(lists, seq_lengths, block_size))


def _table_of_lists(
    lists: Sequence[torch.Tensor], seq_lengths: tuple[int, int], block_size: tuple[int, int]
) -> RunTable:
    (n_queries, n_keys), (block_m, block_n) = seq_lengths, block_size
    n_q_blocks, n_kv_blocks = -(-n_queries // block_m), -(-n_keys // block_n)
    kinds: NDArray[Any] = np.zeros((), np.int8)
    for kind, pair in zip((Kind.PARTIAL, Kind.FULL), (lists[:2], lists[2:]), strict=True):
        if not pair:
            continue
        n_blocks, indices = pair[0].detach().cpu(), pair[1].detach().cpu()
        _require_in_range(n_blocks, indices, "full_" if kind is Kind.FULL else "")
        listed = dense_of_lists(n_blocks, indices).numpy()
        kinds = np.maximum(kinds, listed.astype(np.int8) * np.int8(kind))
    n_rows, n_columns = kinds.shape[-2:]
    if n_rows < n_q_blocks:
        raise BlockMaskRowsError(n_rows=n_rows, n_queries=n_queries, block=block_m)
    fitting = np.zeros((*kinds.shape[:-2], n_q_blocks, n_kv_blocks), np.int8)
    fitting[..., :n_columns] = kinds[..., :n_q_blocks, :n_kv_blocks]
    return RunTable.from_dense(
        fitting.reshape((1,) * (4 - fitting.ndim) + fitting.shape),
        n_queries=n_queries,
        n_keys=n_keys,
        block_m=block_m,
        block_n=block_n,
    )


def _require_in_range(n_blocks: torch.Tensor, indices: torch.Tensor, prefix: str) -> None:
    """Raises BlockMaskArgumentError if a row lists blocks that its mask does not have."""
    n_columns = indices.shape[-1]
    wrong = n_blocks[(n_blocks < 0) | (n_blocks > n_columns)]
    if len(wrong):
        problem = (
            f"{prefix}kv_num_blocks holds {int(wrong[0])}, but rows of {prefix}kv_indices have "
            f"{n_columns} places"
        )
        raise BlockMaskArgumentError(problem=problem)
    listed = indices[torch.arange(n_columns) < n_blocks[..., None]]
    wrong = listed[(listed < 0) | (listed >= n_columns)]
    if len(wrong):
        problem = (
            f"{prefix}kv_indices lists the block {int(wrong[0])}, but there are blocks 0 to "
            f"{n_columns - 1} only"
        )
        raise BlockMaskArgumentError(problem=problem)


def listed_as_pytorch(table: RunTable, separate_full_blocks: bool) -> RunTable:
    """The table as PyTorch lists it: a block that reaches beyond a length is never full.

    Without ``separate_full_blocks`` none is.
    """
    if not separate_full_blocks:
        return replace(table, kinds=np.full_like(table.kinds, Kind.PARTIAL))
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
