"""Classes of the tiles of a mask: EMPTY, PARTIAL or FULL, exact, without visiting all tiles.

Large rectangles are asked first; only what the interval analysis leaves open is split, level
by level, down to tiles. There two witnesses, a visible and a hidden pair, prove PARTIAL; the few
tiles that are still open are evaluated element by element. Work and memory follow the boundary
of the mask, not its area.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from attnc.blocks.geometry import Geometry, Ints, Rectangles, axes_of, truths_on
from attnc.blocks.tiles import kinds_of_tiles
from attnc.intervals import Facts, Truth
from attnc.ir import Expr, IndexName, indices_of
from attnc.run_table import Kind, RunTable, expanded

# A level of few boxes takes as long as one of so many: NumPy's calls, not its work.
_FIRST_BOXES = _FEW_BOXES = 1 << 10


@dataclass(frozen=True)
class Classification:
    """Tile classes of a mask, and how many tiles had to be evaluated element by element."""

    table: RunTable
    n_evaluated: int


def classify(
    mask: Expr,
    tensors: Sequence[torch.Tensor],
    *,
    n_batch: int,
    n_heads: int,
    n_queries: int,
    n_keys: int,
    block_m: int,
    block_n: int,
    facts: Facts | None = None,
) -> Classification:
    """Tile classes of ``mask``, exact: EMPTY without a visible pair, FULL without a hidden one.

    Args:
        mask: Boolean over ``b, h, q_idx, kv_idx``, without ``Param``s (or with ``facts.params``).
        tensors: Captured tensors by slot number.
        n_batch, n_heads: Extents of ``b`` and ``h``; those the mask does not read become 1.
        n_queries, n_keys: Lengths, in tokens; pairs beyond them do not count.
        block_m, block_n: Queries and keys per tile, in tokens.
        facts: Range structures to reuse between calls with the same tensors.
    """
    read = indices_of(mask)
    geometry = Geometry(
        n_batch if IndexName.B in read else min(n_batch, 1),
        n_heads if IndexName.H in read else min(n_heads, 1),
        n_queries,
        n_keys,
        block_m,
        block_n,
    )
    facts = Facts(tensors) if facts is None else facts
    runs, open_tiles = _split(mask, geometry, facts)
    kinds, n_evaluated = kinds_of_tiles(mask, open_tiles, geometry, facts)
    runs.append(
        (
            open_tiles.group * geometry.n_q_blocks + open_tiles.row,
            open_tiles.column.astype(np.int32),
            (open_tiles.column + 1).astype(np.int32),
            kinds,
        )
    )
    rows, starts, stops, all_kinds = (np.concatenate(arrays) for arrays in zip(*runs, strict=True))
    table = RunTable.from_runs(
        rows,
        starts,
        stops,
        all_kinds,
        n_batch=geometry.n_batch,
        n_heads=geometry.n_heads,
        n_queries=n_queries,
        n_keys=n_keys,
        block_m=block_m,
        block_n=block_n,
    )
    return Classification(table, n_evaluated)


_Runs = tuple[Ints, NDArray[np.int32], NDArray[np.int32], NDArray[np.int8]]


def _split(mask: Expr, geometry: Geometry, facts: Facts) -> tuple[list[_Runs], Rectangles]:
    """FULL runs (rows, starts, stops, kinds) found above or at tile size, and the open tiles."""
    # Sizes of a rectangle, in tiles; halved at each level until both are 1.
    front, height, width = _first_rectangles(geometry)
    runs: list[_Runs] = []
    while len(front):
        axes = axes_of(height * geometry.block_m, width * geometry.block_n, geometry)
        truths = truths_on(mask, front, axes, facts)
        always = np.flatnonzero(truths == Truth.ALWAYS)
        runs.append(_full_runs(front.at(always), height, width, geometry))
        front = front.at(np.flatnonzero(truths == Truth.MAYBE))
        if height == width == 1:
            break
        front, height, width = _halved(front, height, width, geometry)
        while len(front) < _FEW_BOXES and height * width > 1:
            front, height, width = _halved(front, height, width, geometry)
    return runs, front


def _first_rectangles(geometry: Geometry) -> tuple[Rectangles, int, int]:
    """All rectangles of the greatest size that there are enough of; their height and width."""
    height = 1 << max(geometry.n_q_blocks - 1, 0).bit_length()
    width = 1 << max(geometry.n_kv_blocks - 1, 0).bit_length()

    def grid(height: int, width: int) -> tuple[int, int, int]:
        return (
            geometry.n_groups,
            -(-geometry.n_q_blocks // height),
            -(-geometry.n_kv_blocks // width),
        )

    while height * width > 1:
        finer = max(height // 2, 1), max(width // 2, 1)
        if math.prod(grid(*finer)) > _FIRST_BOXES:
            break
        height, width = finer
    try:
        group, row, column = np.indices(grid(height, width)).reshape(3, -1)
    except ValueError as error:  # what NumPy says to more bytes than there are addresses
        raise MemoryError(str(error)) from None
    return Rectangles(group if geometry.n_groups > 1 else group[:1], row, column), height, width


def _halved(
    front: Rectangles, height: int, width: int, geometry: Geometry
) -> tuple[Rectangles, int, int]:
    """Quarters (or halves, where one side is a single tile) that hold any tile."""
    rows, columns = (2 if height > 1 else 1), (2 if width > 1 else 1)
    height, width = height // rows, width // columns
    n_parts = rows * columns
    row = np.repeat(front.row * rows, n_parts)
    column = np.repeat(front.column * columns, n_parts)
    if rows == 2:
        row.reshape(-1, 2, columns)[:, 1] += 1
    if columns == 2:
        column.reshape(-1, rows, 2)[:, :, 1] += 1
    group = front.group if len(front.group) == 1 else np.repeat(front.group, n_parts)
    parts = Rectangles(group, row, column)
    inside = (row * height < geometry.n_q_blocks) & (column * width < geometry.n_kv_blocks)
    return parts if inside.all() else parts.at(np.flatnonzero(inside)), height, width


def _full_runs(found: Rectangles, height: int, width: int, geometry: Geometry) -> _Runs:
    """One run per tile row of each rectangle."""
    first = found.row * height
    last = np.minimum(first + height, geometry.n_q_blocks)
    rectangle, rows = expanded(first, last)
    # Block numbers take 32 bits, as in the table: half of the memory there is at most.
    starts = (found.column * width).astype(np.int32)
    stops = np.minimum(starts + width, geometry.n_kv_blocks).astype(np.int32)
    group = found.group if len(found.group) == 1 else found.group[rectangle]
    rows += group * geometry.n_q_blocks
    kinds = np.full(len(rows), Kind.FULL, np.int8)
    return rows, starts[rectangle], stops[rectangle], kinds
