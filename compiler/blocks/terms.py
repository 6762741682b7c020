"""Which terms of a mask hold all over the PARTIAL tiles of a table, so that they need no check.

Of causal attention within documents, the tile on the diagonal needs the comparison of indices
only, the tile at the beginning of a document only that of documents.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from attnc.blocks.geometry import Geometry, Rectangles, axes_of, truths_on
from attnc.intervals import Facts, Truth
from attnc.ir import Expr
from attnc.run_table import Kind, RunTable, expanded


def with_held_terms(
    table: RunTable, terms: Sequence[Expr], tensors: Sequence[torch.Tensor]
) -> RunTable:
    """``table`` with the terms that hold all over its PARTIAL runs, as ``RunTable.held`` has them.

    Args:
        table: Of the conjunction of ``terms``.
        terms: Boolean over the coordinates, without ``Param``s.
        tensors: Captured tensors by slot number.
    """
    is_partial = table.kinds == Kind.PARTIAL
    run, columns = expanded(
        table.starts[is_partial].astype(np.int64), table.stops[is_partial].astype(np.int64)
    )
    rows = table.run_rows()
    tile_rows = rows[is_partial][run]
    geometry = Geometry(
        table.n_batch,
        table.n_heads,
        table.n_queries,
        table.n_keys,
        table.block_m,
        table.block_n,
    )
    group, q_block = np.divmod(tile_rows, max(table.n_q_blocks, 1))
    tiles = Rectangles(group, q_block, columns)
    axes = axes_of(table.block_m, table.block_n, geometry)
    facts = Facts(tensors)
    kinds = np.full(len(columns), Kind.PARTIAL, np.int8)
    for number, term in enumerate(terms):
        holds = truths_on(term, tiles, axes, facts) == Truth.ALWAYS
        kinds |= RunTable.bit_of(number) * holds.astype(np.int8)
    return RunTable.from_runs(
        np.concatenate([rows[~is_partial], tile_rows]),
        np.concatenate([table.starts[~is_partial], columns.astype(np.int32)]),
        np.concatenate([table.stops[~is_partial], (columns + 1).astype(np.int32)]),
        np.concatenate([table.kinds[~is_partial], kinds]),
        n_batch=table.n_batch,
        n_heads=table.n_heads,
        n_queries=table.n_queries,
        n_keys=table.n_keys,
        block_m=table.block_m,
        block_n=table.block_n,
    )
