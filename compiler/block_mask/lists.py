"""Between run-length tables and the index lists of PyTorch's BlockMask."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attnc.run_table import IndexLists, Kind, RunTable


def table_of_lists(
    kv_num_blocks: torch.Tensor,
    kv_indices: torch.Tensor,
    full_kv_num_blocks: torch.Tensor | None,
    full_kv_indices: torch.Tensor | None,
    seq_lengths: tuple[int, int],
    block_size: tuple[int, int],
) -> RunTable:
    """The table that the lists spell out.

    Args:
        kv_num_blocks: (..., n_q_blocks), partial blocks per row of blocks.
        kv_indices: (..., n_q_blocks, n_kv_blocks), their numbers.
        full_kv_num_blocks: The same for full blocks, or None.
        full_kv_indices: See ``full_kv_num_blocks``.
        seq_lengths: (n_queries, n_keys), in tokens.
        block_size: (queries, keys) per block, in tokens.
    """

    def array(listed: torch.Tensor | None, model: torch.Tensor, n_dims: int) -> NDArray[Any]:
        tensor = torch.zeros_like(model) if listed is None else listed
        values: NDArray[Any] = tensor.detach().cpu().numpy()
        return values.reshape((1,) * (n_dims - values.ndim) + values.shape)

    lists = IndexLists(
        array(kv_num_blocks, kv_num_blocks, 3),
        array(kv_indices, kv_indices, 4),
        array(full_kv_num_blocks, kv_num_blocks, 3),
        array(full_kv_indices, kv_indices, 4),
    )
    return RunTable.from_lists(
        lists,
        n_queries=seq_lengths[0],
        n_keys=seq_lengths[1],
        block_m=block_size[0],
        block_n=block_size[1],
    )


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


def visited_share(table: RunTable) -> float:
    """Share of the pairs (query, key) that lie in visited blocks; 1 where there are no pairs."""
    visited = table.to_dense() != Kind.EMPTY
    rows = _block_lengths(table.n_queries, table.block_m, visited.shape[2])
    columns = _block_lengths(table.n_keys, table.block_n, visited.shape[3])
    n_pairs = table.n_batch * table.n_heads * table.n_queries * table.n_keys
    if n_pairs == 0:
        return 1.0
    return float(np.einsum("bhqk,q,k->", visited.astype(np.float64), rows, columns)) / n_pairs


def _block_lengths(length: int, block: int, n_blocks: int) -> NDArray[np.float64]:
    starts = np.arange(n_blocks, dtype=np.int64) * block
    return np.clip(length - starts, 0, block).astype(np.float64)
