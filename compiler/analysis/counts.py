"""How many pairs (query, key) lie in the tiles of a table; ragged tiles count by their true size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attnc.run_table import Kind, RunTable

Ints = NDArray[np.int64]


def pairs_of_runs(table: RunTable) -> Ints:
    """Pairs in each run: (n_runs,)."""
    first = table.run_rows() % table.n_q_blocks * table.block_m
    heights = np.minimum(table.block_m, table.n_queries - first)
    stops = np.minimum(table.stops.astype(np.int64) * table.block_n, table.n_keys)
    pairs: Ints = heights * (stops - table.starts.astype(np.int64) * table.block_n)
    return pairs


def n_pairs_by_kind(table: RunTable) -> tuple[int, int]:
    """Pairs in FULL tiles, and in PARTIAL ones."""
    pairs = pairs_of_runs(table)
    is_full = table.kinds == Kind.FULL
    return int(pairs[is_full].sum()), int(pairs[~is_full].sum())


def share_text(share: float) -> str:
    """A share from 0 to 1 in percent; what is not all or nothing does not look so."""
    text = f"{share:.1%}"
    if share < 1 and text == "100.0%":
        return "over 99.9%"
    return "under 0.1%" if share > 0 and text == "0.0%" else text
