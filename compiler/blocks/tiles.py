"""Kinds of single tiles that the analysis of whole tiles leaves open.

Two witnesses, a visible and a hidden pair, prove PARTIAL. Where they are not found at the corners
and at some places inside, the tile is cut into smaller boxes (see ``refine``); the few tiles that
are still open are evaluated element by element.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from attnc.blocks.equalities import compared
from attnc.blocks.geometry import Geometry, Ints, Rectangles, axes_of, tokens, truths_on
from attnc.blocks.refine import refine
from attnc.blocks.values import evaluated, positions
from attnc.intervals import Facts, Truth
from attnc.ir import Expr
from attnc.run_table import Kind

Flags = NDArray[np.bool_]

_MAX_ELEMENTS = 1 << 22
_MAX_POINTS = 1 << 20

# Places inside a tile, in 64ths of its (height, width).
_INSIDE = (
    (32, 32),
    (64, 32),
    (32, 0),
    (0, 32),
    (32, 64),
    (16, 16),
    (48, 48),
    (16, 48),
    (48, 16),
    (21, 21),
    (43, 43),
    (5, 59),
    (59, 5),
    (27, 9),
    (9, 27),
    (54, 37),
)


def kinds_of_tiles(
    mask: Expr, tiles: Rectangles, geometry: Geometry, facts: Facts
) -> tuple[NDArray[np.int8], int]:
    """Kind of each open tile, and how many needed all their elements."""
    kinds = np.full(len(tiles), Kind.PARTIAL, np.int8)
    visible, hidden = np.zeros(len(tiles), bool), np.zeros(len(tiles), bool)
    undecided, front = np.arange(len(tiles)), tiles
    axes = axes_of(geometry.block_m, geometry.block_n, geometry)
    first_row, first_column = (axis.firsts for axis in axes)
    last_row, last_column = (axis.lasts for axis in axes)
    if axes[0] is axes[1]:
        first_column, last_column = first_row, last_row
    # Corners, those that tell most first.
    for corners in (
        ((last_row, first_column), (first_row, last_column)),
        ((first_row, first_column), (last_row, last_column)),
    ):
        for corner in corners:
            truths = truths_on(mask, front, corner, facts)
            visible[undecided] |= truths == Truth.ALWAYS
            hidden[undecided] |= truths == Truth.NEVER
        undecided = np.flatnonzero(~(visible & hidden))
        front = tiles.at(undecided)
    for part in _slices(undecided, _MAX_POINTS // len(_INSIDE)):
        values = _values_at(mask, tiles.at(part), _INSIDE, geometry, facts)
        visible[part] |= values.any(1)
        hidden[part] |= ~values.all(1)
    undecided = undecided[~(visible & hidden)[undecided]]
    found = compared(mask, tiles.at(undecided), geometry, facts)
    if found is not None:
        visible[undecided] |= found.visible
        hidden[undecided] |= found.hidden
        decided = undecided[found.decided]
        kinds[decided] = _kinds(visible[decided], hidden[decided])
        undecided = undecided[~(found.decided | (visible & hidden)[undecided])]
    refined = refine(mask, tiles.at(undecided), geometry, facts)
    visible[undecided] |= refined.visible
    hidden[undecided] |= refined.hidden
    decided = undecided[~refined.open]
    kinds[decided] = _kinds(visible[decided], hidden[decided])
    undecided = undecided[refined.open]
    for part in _slices(undecided, max(_MAX_ELEMENTS // (geometry.block_m * geometry.block_n), 1)):
        some = tiles.at(part)
        q_idx, kv_idx = positions(some, geometry)
        places = q_idx[:, :, None], kv_idx[:, None, :]
        pairs = evaluated(mask, some.group, *places, geometry, facts).flatten(1)
        kinds[part] = _kinds(pairs.any(1).numpy(), ~pairs.all(1).numpy())
    return kinds, len(undecided)


def _kinds(visible: Flags, hidden: Flags) -> NDArray[np.int8]:
    """Kinds of tiles that hold visible pairs, hidden ones or both."""
    kinds = np.where(hidden, Kind.PARTIAL, Kind.FULL)
    return np.where(visible, kinds, Kind.EMPTY).astype(np.int8)


def _slices(numbers: Ints, size: int) -> Iterator[Ints]:
    for first in range(0, len(numbers), size):
        yield numbers[first : first + size]


def _values_at(
    mask: Expr,
    tiles: Rectangles,
    places: Sequence[tuple[int, int]],
    geometry: Geometry,
    facts: Facts,
) -> NDArray[np.bool_]:
    """Value of ``mask`` at some places of each tile: (n_tiles, n_places)."""
    q_first, q_last = tokens(tiles.row, geometry.block_m, geometry.n_queries)
    kv_first, kv_last = tokens(tiles.column, geometry.block_n, geometry.n_keys)
    shares = np.array(places)
    q_idx = q_first[:, None] + (q_last - q_first)[:, None] * shares[:, 0] // 64
    kv_idx = kv_first[:, None] + (kv_last - kv_first)[:, None] * shares[:, 1] // 64
    return evaluated(mask, tiles.group, q_idx, kv_idx, geometry, facts).numpy()
