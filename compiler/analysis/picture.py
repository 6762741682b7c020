"""Tiles as characters, whatever their number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnc.run_table import Kind, RunTable, expanded

LEGEND = "█ full  ▒ partial  · empty"
_SHOWN = {Kind.EMPTY: "·", Kind.PARTIAL: "▒", Kind.FULL: "█"}


@dataclass(frozen=True)
class Picture:
    """The tiles of one batch and head.

    Attributes:
        lines: From the first queries to the last.
        row_step, column_step: Tiles of queries and of keys that one character stands for: ``█`` if
            all of them are FULL, ``·`` if all are EMPTY.
        block_m, block_n: Queries and keys per tile.
    """

    lines: tuple[str, ...]
    row_step: int
    column_step: int
    block_m: int
    block_n: int

    @property
    def scale(self) -> str:
        """What one character stands for, or nothing where it is one tile."""
        if self.row_step == self.column_step == 1:
            return ""
        tokens = f"{self.row_step * self.block_m:,} queries x {self.column_step * self.block_n:,}"
        return f"one character: {self.row_step:,} x {self.column_step:,} tiles, {tokens} keys"

    def __str__(self) -> str:
        return "\n".join([*self.lines, *filter(None, [self.scale])])


def picture_of(table: RunTable, width: int, height: int, b: int, h: int) -> Picture:
    """At most ``height`` lines of at most ``width`` characters, for any number of tiles."""
    row_step = max(-(-table.n_q_blocks // max(height, 1)), 1)
    column_step = max(-(-table.n_kv_blocks // max(width, 1)), 1)
    kinds = _kinds_of_groups(table, row_step, column_step, b, h)
    lines = tuple("".join(_SHOWN[Kind(int(kind))] for kind in row) for row in kinds)
    return Picture(lines, row_step, column_step, table.block_m, table.block_n)


def _kinds_of_groups(
    table: RunTable, row_step: int, column_step: int, b: int, h: int
) -> NDArray[np.int8]:
    """Kinds of rectangles of ``row_step x column_step`` tiles: (n_rows, n_columns)."""
    group = min(b, table.n_batch - 1) * table.n_heads + min(h, table.n_heads - 1)
    shape = -(-table.n_q_blocks // row_step), -(-table.n_kv_blocks // column_step)
    first, last = group * table.n_q_blocks, (group + 1) * table.n_q_blocks
    runs = slice(int(table.offsets[first]), int(table.offsets[last]))
    rows = table.run_rows()[runs] - first
    starts, stops = table.starts[runs].astype(np.int64), table.stops[runs].astype(np.int64)
    run, column = expanded(starts // column_step, (stops - 1) // column_step + 1)
    overlap = np.minimum(stops[run], (column + 1) * column_step)
    overlap = overlap - np.maximum(starts[run], column * column_step)
    n_full, n_visited = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    np.add.at(n_visited, (rows[run] // row_step, column), overlap)
    is_full = table.kinds[runs][run] == Kind.FULL
    np.add.at(n_full, (rows[run] // row_step, column), overlap * is_full)
    heights = np.minimum(row_step, table.n_q_blocks - np.arange(shape[0]) * row_step)
    widths = np.minimum(column_step, table.n_kv_blocks - np.arange(shape[1]) * column_step)
    n_tiles = heights[:, None] * widths
    kinds = np.where(n_visited == 0, Kind.EMPTY, Kind.PARTIAL)
    return np.where(n_full == n_tiles, Kind.FULL, kinds).astype(np.int8)
