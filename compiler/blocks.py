"""Classes of the tiles of a mask: EMPTY, PARTIAL or FULL, exact, without visiting all tiles.

Large rectangles are asked first; only what the interval analysis leaves open is split, level
by level, down to tiles. There two witnesses, a visible and a hidden pair, prove PARTIAL; the few
tiles that are still open are evaluated element by element. Work and memory follow the boundary
of the mask, not its area.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from attnc.evaluate import evaluate
from attnc.intervals import Boxes, Facts, Products, Side, Truth, truth_of
from attnc.intervals.boxes import Truths
from attnc.ir import Expr, IndexName, indices_of
from attnc.run_table import Kind, RunTable, expanded

Ints = NDArray[np.int64]

# A level of few boxes takes as long as one of so many: NumPy's calls, not its work.
_FIRST_BOXES = 1 << 10
_MAX_BOXES = 1 << 17
_MAX_ELEMENTS = 1 << 22
_MAX_POINTS = 1 << 20

# Corners of a tile, whether at its last row and at its last column: those that tell most first.
_CORNERS = ((True, False), (False, True)), ((False, False), (True, True))
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


@dataclass(frozen=True)
class Classification:
    """Tile classes of a mask, and how many tiles had to be evaluated element by element."""

    table: RunTable
    n_evaluated: int


@dataclass(frozen=True)
class Geometry:
    """Sizes of the problem (tokens) and of its tiles; heads and batches that the mask tells apart."""

    n_batch: int
    n_heads: int
    n_queries: int
    n_keys: int
    block_m: int
    block_n: int

    @property
    def n_q_blocks(self) -> int:
        return -(-self.n_queries // self.block_m)

    @property
    def n_kv_blocks(self) -> int:
        return -(-self.n_keys // self.block_n)


@dataclass(frozen=True)
class _Rectangles:
    """Rectangles of tiles of one size: place in units of that size, and (batch, head) number."""

    group: Ints
    row: Ints
    column: Ints

    def __len__(self) -> int:
        return len(self.group)

    def at(self, where: Ints) -> _Rectangles:
        return _Rectangles(*(x.take(where) for x in (self.group, self.row, self.column)))

    def parts(self, size: int) -> Iterator[_Rectangles]:
        for first in range(0, len(self), size):
            part = slice(first, first + size)
            yield _Rectangles(self.group[part], self.row[part], self.column[part])


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
    kinds, n_evaluated = _kinds_of_tiles(mask, open_tiles, geometry, facts)
    runs.append(
        (
            open_tiles.group * geometry.n_q_blocks + open_tiles.row,
            open_tiles.column,
            open_tiles.column + 1,
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


_Runs = tuple[Ints, Ints, Ints, NDArray[np.int8]]


def _split(mask: Expr, geometry: Geometry, facts: Facts) -> tuple[list[_Runs], _Rectangles]:
    """FULL runs (rows, starts, stops, kinds) found above or at tile size, and the open tiles."""
    # Sizes of a rectangle, in tiles; halved at each level until both are 1.
    front, height, width = _first_rectangles(geometry)
    runs: list[_Runs] = []
    while len(front):
        truths = _truths_of(mask, front, height, width, geometry, facts)
        always = np.flatnonzero(truths == Truth.ALWAYS)
        runs.append(_full_runs(front.at(always), height, width, geometry))
        front = front.at(np.flatnonzero(truths == Truth.MAYBE))
        if height == width == 1:
            break
        front, height, width = _halved(front, height, width, geometry)
    return runs, front


def _first_rectangles(geometry: Geometry) -> tuple[_Rectangles, int, int]:
    """All rectangles of the greatest size that there are enough of; their height and width."""
    n_groups = geometry.n_batch * geometry.n_heads
    height = 1 << max(geometry.n_q_blocks - 1, 0).bit_length()
    width = 1 << max(geometry.n_kv_blocks - 1, 0).bit_length()

    def grid(height: int, width: int) -> tuple[int, int, int]:
        return n_groups, -(-geometry.n_q_blocks // height), -(-geometry.n_kv_blocks // width)

    while height * width > 1:
        finer = max(height // 2, 1), max(width // 2, 1)
        if math.prod(grid(*finer)) > _FIRST_BOXES:
            break
        height, width = finer
    try:
        group, row, column = np.indices(grid(height, width)).reshape(3, -1)
    except ValueError as error:  # what NumPy says to more bytes than there are addresses
        raise MemoryError(str(error)) from None
    return _Rectangles(group, row, column), height, width


def _truths_of(
    mask: Expr, front: _Rectangles, height: int, width: int, geometry: Geometry, facts: Facts
) -> Truths:
    """Truth of ``mask`` on rectangles of ``height`` x ``width`` tiles."""
    q_idx = _tokens_of(height * geometry.block_m, geometry.n_queries)
    kv_idx = _tokens_of(width * geometry.block_n, geometry.n_keys)
    return _truths_on(mask, front, q_idx, kv_idx, geometry, facts)


def _truths_on(
    mask: Expr,
    front: _Rectangles,
    q_idx: tuple[Ints, Ints],
    kv_idx: tuple[Ints, Ints],
    geometry: Geometry,
    facts: Facts,
) -> Truths:
    """Truth of ``mask`` where row ``i`` of ``front`` is ``q_idx[0][i] .. q_idx[1][i]``."""
    n_groups = geometry.n_batch * geometry.n_heads
    groups = np.arange(n_groups)
    axes = q_idx, kv_idx
    sides = [
        _side(groups.repeat(len(axis[0])), [np.tile(end, n_groups) for end in axis], geometry)
        if n_groups * len(axis[0]) <= len(front)
        else None
        for axis in axes
    ]
    truths = []
    for part in front.parts(_MAX_BOXES):
        numbered: list[tuple[Side, Ints | None]] = []
        for known, place, axis in zip(sides, (part.row, part.column), axes, strict=True):
            if known is None:
                side = _side(part.group, [end.take(place) for end in axis], geometry)
                numbered.append((side, None))
            elif n_groups == 1:
                numbered.append((known, place))
            else:
                numbered.append((known, part.group * len(axis[0]) + place))
        (rows, row), (columns, column) = numbered
        truths.append(truth_of(mask, Products(rows, columns, row, column), facts))
    return np.concatenate(truths) if truths else np.zeros(0, np.int8)


def _tokens_of(size: int, length: int) -> tuple[Ints, Ints]:
    """First and last token of every block of ``size`` tokens."""
    return _tokens(np.arange(-(-length // size)), size, length)


def _side(group: Ints, tokens: Sequence[Ints], geometry: Geometry) -> Side:
    """Rows or columns of boxes: first and last token of each, and its (batch, head) number."""
    b = h = np.zeros(1, np.int64)
    if geometry.n_batch > 1:
        b, h = np.divmod(group, geometry.n_heads) if geometry.n_heads > 1 else (group, h)
    elif geometry.n_heads > 1:
        h = group
    first, last = tokens
    return Side(Boxes((b, b), (h, h), (first, last), (first, last)))


def _tokens(block: Ints, size: int, length: int) -> tuple[Ints, Ints]:
    first = block * size
    return first, np.minimum(first + (size - 1), length - 1)


def _halved(
    front: _Rectangles, height: int, width: int, geometry: Geometry
) -> tuple[_Rectangles, int, int]:
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
    parts = _Rectangles(np.repeat(front.group, n_parts), row, column)
    inside = (row * height < geometry.n_q_blocks) & (column * width < geometry.n_kv_blocks)
    return parts if inside.all() else parts.at(np.flatnonzero(inside)), height, width


def _full_runs(found: _Rectangles, height: int, width: int, geometry: Geometry) -> _Runs:
    """One run per tile row of each rectangle."""
    first = found.row * height
    last = np.minimum(first + height, geometry.n_q_blocks)
    rectangle, rows = expanded(first, last)
    starts = found.column * width
    stops = np.minimum(starts + width, geometry.n_kv_blocks)
    rows = rows + found.group[rectangle] * geometry.n_q_blocks
    kinds = np.full(len(rows), Kind.FULL, np.int8)
    return rows, starts[rectangle], stops[rectangle], kinds


def _kinds_of_tiles(
    mask: Expr, tiles: _Rectangles, geometry: Geometry, facts: Facts
) -> tuple[NDArray[np.int8], int]:
    """Kind of each open tile, and how many needed all their elements."""
    kinds = np.full(len(tiles), Kind.PARTIAL, np.int8)
    undecided = np.arange(len(tiles))
    visible, hidden = np.zeros(len(tiles), bool), np.zeros(len(tiles), bool)
    rows = _tokens_of(geometry.block_m, geometry.n_queries)
    columns = _tokens_of(geometry.block_n, geometry.n_keys)
    for corners in _CORNERS:
        for last_row, last_column in corners:
            q_idx, kv_idx = rows[last_row], columns[last_column]
            truths = _truths_on(
                mask, tiles.at(undecided), (q_idx, q_idx), (kv_idx, kv_idx), geometry, facts
            )
            visible[undecided] |= truths == Truth.ALWAYS
            hidden[undecided] |= truths == Truth.NEVER
        undecided = np.flatnonzero(~(visible & hidden))
    for part in _slices(undecided, _MAX_POINTS // len(_INSIDE)):
        values = _values_at(mask, tiles.at(part), _INSIDE, geometry, facts)
        visible[part] |= values.any(1)
        hidden[part] |= ~values.all(1)
    undecided = undecided[~(visible & hidden)[undecided]]
    for part in _slices(undecided, max(_MAX_ELEMENTS // (geometry.block_m * geometry.block_n), 1)):
        any_true, all_true = _extremes_of(mask, tiles.at(part), geometry, facts)
        kinds[part] = np.where(all_true, Kind.FULL, np.where(any_true, Kind.PARTIAL, Kind.EMPTY))
    return kinds, len(undecided)


def witnesses(
    mask: Expr, b: int, h: int, q_block: int, kv_block: int, geometry: Geometry, facts: Facts
) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """A visible and a hidden pair (q_idx, kv_idx) of one tile; None where there is none."""
    group = np.array([b * geometry.n_heads + h])
    tile = _Rectangles(group, np.array([q_block]), np.array([kv_block]))
    values, q_idx, kv_idx = _elements(mask, tile, geometry, facts)
    found: list[tuple[int, int] | None] = []
    for wanted in (True, False):
        places = (values[0] == wanted).nonzero()
        pair = None
        if len(places):
            row, column = places[0].tolist()
            pair = (int(q_idx[0, row]), int(kv_idx[0, column]))
        found.append(pair)
    return found[0], found[1]


def _slices(numbers: Ints, size: int) -> Iterator[Ints]:
    for first in range(0, len(numbers), size):
        yield numbers[first : first + size]


def _values_at(
    mask: Expr,
    tiles: _Rectangles,
    places: Sequence[tuple[int, int]],
    geometry: Geometry,
    facts: Facts,
) -> NDArray[np.bool_]:
    """Value of ``mask`` at some places of each tile: (n_tiles, n_places)."""
    q_first, q_last = _tokens(tiles.row, geometry.block_m, geometry.n_queries)
    kv_first, kv_last = _tokens(tiles.column, geometry.block_n, geometry.n_keys)
    shares = np.array(places)
    q_idx = q_first[:, None] + (q_last - q_first)[:, None] * shares[:, 0] // 64
    kv_idx = kv_first[:, None] + (kv_last - kv_first)[:, None] * shares[:, 1] // 64
    return _evaluated(mask, tiles, q_idx, kv_idx, geometry, facts).numpy()


def _extremes_of(
    mask: Expr, tiles: _Rectangles, geometry: Geometry, facts: Facts
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether any pair, and whether every pair of each tile is visible: two arrays (n_tiles,)."""
    values = _elements(mask, tiles, geometry, facts)[0].flatten(1)
    return values.any(1).numpy(), values.all(1).numpy()


def _elements(
    mask: Expr, tiles: _Rectangles, geometry: Geometry, facts: Facts
) -> tuple[torch.Tensor, Ints, Ints]:
    """Values (n_tiles, block_m, block_n) and positions (n_tiles, block_m), (n_tiles, block_n).

    Positions beyond a length repeat its last one.
    """
    rows, columns = np.arange(geometry.block_m), np.arange(geometry.block_n)
    q_idx = np.minimum(tiles.row[:, None] * geometry.block_m + rows, geometry.n_queries - 1)
    kv_idx = np.minimum(tiles.column[:, None] * geometry.block_n + columns, geometry.n_keys - 1)
    values = _evaluated(mask, tiles, q_idx[:, :, None], kv_idx[:, None, :], geometry, facts)
    return values, q_idx, kv_idx


def _evaluated(
    mask: Expr, tiles: _Rectangles, q_idx: Ints, kv_idx: Ints, geometry: Geometry, facts: Facts
) -> torch.Tensor:
    """Value of ``mask`` on positions whose first axis is that of ``tiles``; on the CPU."""
    shape = np.broadcast_shapes(q_idx.shape, kv_idx.shape)
    b, h = np.divmod(tiles.group, geometry.n_heads)
    lines = (len(tiles),) + (1,) * (len(shape) - 1)
    # Numbers on the CPU go with tensors of any device.
    devices = (t.device for t in facts.tensors if t.dim() or t.device.type != "cpu")
    device = next(devices, torch.device("cpu"))
    coordinates = [
        torch.from_numpy(x.astype(np.int32)).to(device)
        for x in (b.reshape(lines), h.reshape(lines), q_idx, kv_idx)
    ]
    values = evaluate(
        mask,
        b=coordinates[0],
        h=coordinates[1],
        q_idx=coordinates[2],
        kv_idx=coordinates[3],
        tensors=facts.tensors,
        params=facts.params or (),
    )
    return values.expand(shape).cpu()
