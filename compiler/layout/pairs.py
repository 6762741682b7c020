"""The visible pairs of a mask, once, and the tiles that they make in any order of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from attnc.evaluate import evaluate
from attnc.ir import Expr
from attnc.run_table import RunTable, expanded

#: Elements that are evaluated at once.
_CHUNK = 1 << 22
#: Queries of a sample, at least.
_FEWEST = 32


@dataclass(frozen=True, eq=False)
class Pairs:
    """Every visible pair: its row of batch and head, its query, its key; (n_pairs,) each."""

    rows: NDArray[np.int32]
    queries: NDArray[np.int32]
    keys: NDArray[np.int32]
    n_rows: int
    n_tokens: int

    def tiles(self, places: NDArray[np.int64], block_m: int, block_n: int) -> tuple[int, int]:
        """How many tiles are visited, and how many of these are full.

        Args:
            places: (n_tokens,), where each token stands.
            block_m, block_n: Queries and keys of a tile.
        """
        n_q, n_kv = -(-self.n_tokens // block_m), -(-self.n_tokens // block_n)
        q_block = (places // block_m * n_kv).astype(np.int32)
        kv_block = (places // block_n).astype(np.int32)
        tile = q_block[self.queries] + kv_block[self.keys]
        if self.n_rows > 1:
            tile = tile + self.rows * np.int32(n_q * n_kv)
        counts = np.bincount(tile, minlength=self.n_rows * n_q * n_kv)
        heights = np.minimum(block_m, self.n_tokens - block_m * np.arange(n_q))
        widths = np.minimum(block_n, self.n_tokens - block_n * np.arange(n_kv))
        whole = np.tile((heights[:, None] * widths).ravel(), self.n_rows)
        return int(np.count_nonzero(counts)), int(np.count_nonzero(counts == whole))


def pairs_of_some(
    mask: Expr, tensors: Sequence[torch.Tensor], n_batch: int, n_heads: int, n_tokens: int
) -> Pairs:
    """The visible pairs of some queries, drawn at random, the same ones each time."""
    n_rows = n_batch * n_heads
    n_drawn = max(_FEWEST, _CHUNK // max(1, n_rows * n_tokens))
    drawn = np.random.default_rng(0).permutation(n_tokens)[:n_drawn].astype(np.int32)
    parts = []
    for row in range(n_rows):
        seen = evaluate(
            mask,
            b=torch.tensor(row // n_heads, dtype=torch.int32),
            h=torch.tensor(row % n_heads, dtype=torch.int32),
            q_idx=torch.from_numpy(drawn)[:, None],
            kv_idx=torch.arange(n_tokens, dtype=torch.int32),
            tensors=tensors,
        )
        query, key = seen.expand(len(drawn), n_tokens).numpy().nonzero()
        parts.append((np.full(len(key), row, np.int32), drawn[query], key.astype(np.int32)))
    return _joined(parts, n_rows, n_tokens)


def n_elements(table: RunTable) -> int:
    """Pairs of the tiles that are visited."""
    return (table.n_full + table.n_partial) * table.block_m * table.block_n


def visible_pairs(mask: Expr, tensors: Sequence[torch.Tensor], table: RunTable) -> Pairs:
    """The visible pairs of ``mask``, from the tiles that its table visits."""
    run, columns = expanded(table.starts.astype(np.int64), table.stops.astype(np.int64))
    rows, kv_blocks = table.run_rows()[run].astype(np.int32), columns.astype(np.int32)
    step = max(1, _CHUNK // (table.block_m * table.block_n))
    parts = [
        _of_tiles(mask, tensors, table, rows[first : first + step], kv_blocks[first : first + step])
        for first in range(0, len(rows), step)
    ]
    return _joined(parts, table.n_batch * table.n_heads, table.n_queries)


_Part = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]


def _joined(parts: Sequence[_Part], n_rows: int, n_tokens: int) -> Pairs:
    empty = np.zeros(0, np.int32)
    rows, queries, keys = (
        np.concatenate([empty, *(part[number] for part in parts)]) for number in range(3)
    )
    return Pairs(rows, queries, keys, n_rows, n_tokens)


def _of_tiles(
    mask: Expr,
    tensors: Sequence[torch.Tensor],
    table: RunTable,
    rows: NDArray[np.int32],
    kv_blocks: NDArray[np.int32],
) -> _Part:
    outer = torch.from_numpy(rows // table.n_q_blocks)[:, None, None]
    first_q = torch.from_numpy(rows % table.n_q_blocks * table.block_m)[:, None, None]
    first_kv = torch.from_numpy(kv_blocks * table.block_n)[:, None, None]
    q_idx = first_q + torch.arange(table.block_m, dtype=torch.int32)[:, None]
    kv_idx = first_kv + torch.arange(table.block_n, dtype=torch.int32)
    inside = (q_idx < table.n_queries) & (kv_idx < table.n_keys)
    last = torch.tensor(table.n_queries - 1, dtype=torch.int32)
    seen = evaluate(
        mask,
        b=outer // table.n_heads,
        h=outer % table.n_heads,
        q_idx=torch.minimum(q_idx, last),
        kv_idx=torch.minimum(kv_idx, last),
        tensors=tensors,
    )
    tile, row, column = (seen & inside).nonzero(as_tuple=True)
    return (
        outer[tile, 0, 0].numpy().astype(np.int32),
        q_idx[tile, row, 0].numpy().astype(np.int32),
        kv_idx[tile, 0, column].numpy().astype(np.int32),
    )
