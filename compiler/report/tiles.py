"""The tiles of a mask as the page holds them: runs by row, packed, and reasons for them."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnc.analysis import Analysis
from attnc.run_table import Kind, RunTable, expanded

#: Tiles that are explained one by one: all of a mask of 64 x 64 tiles that are visited.
MAX_REASONS = 4096
_MAX_ALL = 2048
_MAX_SAMPLED = 396
_MAX_SAMPLED_PAIRS = 1 << 26
_MAX_SAMPLED_IN_ROW = 12
_PER_PIECE = 3  # what neighbours share takes as long as so many of them
_MAX_RUNS = 200_000
_MAX_PACKED = 400_000


@dataclass(frozen=True)
class Head:
    """The tiles of one batch and head, as text for the page.

    Attributes:
        b, h: The first that has these tiles.
        also: All (batch, head) that have them.
        counts: Tiles that are empty, partial, full.
        runs: See ``packed``.
        n_runs: How many there are.
    """

    b: int
    h: int
    also: tuple[tuple[int, int], ...]
    counts: tuple[int, int, int]
    runs: str
    n_runs: int


@dataclass(frozen=True)
class Heads:
    """The tiles of every batch and head that the page has room for.

    Attributes:
        table: All tiles.
        factor: Tiles of the kernel, per side, that are one tile of the table: 1 unless it has more
            runs than a page should hold.
        shown: Each distinct picture.
        n_left_out: Batches and heads for which there is no room.
    """

    table: RunTable
    factor: int
    shown: tuple[Head, ...]
    n_left_out: int


def heads_of(table: RunTable) -> Heads:
    """Pictures of ``table``, each distinct one once, those of equal heads together."""
    factor = 1
    while _runs_of_first(table) > _MAX_RUNS:  # ends: rows of one tile have one run
        factor *= 2
        table = coarsened(table, 2)
    shown: list[Head] = []
    numbers: dict[str, int] = {}
    n_packed = n_left_out = 0
    for b in range(table.n_batch):
        for h in range(table.n_heads):
            runs, counts, n_runs = _packed_head(table, b * table.n_heads + h)
            if runs in numbers:
                known = shown[numbers[runs]]
                shown[numbers[runs]] = Head(
                    known.b, known.h, (*known.also, (b, h)), counts, runs, n_runs
                )
                continue
            if shown and n_packed + len(runs) > _MAX_PACKED:
                n_left_out += 1
                continue
            n_packed += len(runs)
            numbers[runs] = len(shown)
            shown.append(Head(b, h, ((b, h),), counts, runs, n_runs))
    return Heads(table, factor, tuple(shown), n_left_out)


def _runs_of_first(table: RunTable) -> int:
    return int(table.offsets[table.n_q_blocks])


def _packed_head(table: RunTable, group: int) -> tuple[str, tuple[int, int, int], int]:
    first, last = group * table.n_q_blocks, (group + 1) * table.n_q_blocks
    runs = slice(int(table.offsets[first]), int(table.offsets[last]))
    starts, stops, kinds = table.starts[runs], table.stops[runs], table.kinds[runs]
    lengths = (stops - starts).astype(np.int64)
    n_partial, n_full = (int(lengths[kinds == kind].sum()) for kind in (Kind.PARTIAL, Kind.FULL))
    n_empty = table.n_q_blocks * table.n_kv_blocks - n_partial - n_full
    n_in_row = np.diff(table.offsets[first : last + 1])
    return packed(n_in_row, starts, stops, kinds), (n_empty, n_partial, n_full), len(starts)


def packed(
    n_in_row: NDArray[np.int64],
    starts: NDArray[np.int32],
    stops: NDArray[np.int32],
    kinds: NDArray[np.int8],
) -> str:
    """Runs as base64 of zlib: numbers of runs by row, starts, lengths, then kinds.

    The first three as int32, little-endian, all lowest bytes first, then all next ones: where
    numbers grow slowly that takes a fifth of the room.
    """
    planes = [_planes(numbers) for numbers in (n_in_row, starts, stops - starts)]
    return compressed(b"".join([*planes, kinds.astype(np.uint8).tobytes()]))


def _planes(numbers: NDArray[np.int64] | NDArray[np.int32]) -> bytes:
    return numbers.astype("<i4").view(np.uint8).reshape(-1, 4).T.tobytes()


def compressed(data: bytes) -> str:
    """Base64 of zlib's format, which browsers call deflate."""
    return base64.b64encode(zlib.compress(data, 9)).decode()


def coarsened(table: RunTable, factor: int) -> RunTable:
    """Tiles ``factor`` times as long on both sides: FULL where all in it are, EMPTY likewise."""
    n_q_blocks = -(-table.n_q_blocks // factor)
    n_kv_blocks = -(-table.n_kv_blocks // factor)
    group, q_block = np.divmod(table.run_rows(), table.n_q_blocks)
    row = group * n_q_blocks + q_block // factor
    starts, stops = table.starts.astype(np.int64), table.stops.astype(np.int64)
    run, column = expanded(starts // factor, (stops - 1) // factor + 1)
    overlap = np.minimum(stops[run], (column + 1) * factor)
    overlap -= np.maximum(starts[run], column * factor)
    is_full = table.kinds[run] == Kind.FULL
    cells, cell = np.unique(row[run] * n_kv_blocks + column, return_inverse=True)
    n_full = np.bincount(cell, weights=overlap * is_full, minlength=len(cells))
    rows, columns = np.divmod(cells, n_kv_blocks)
    heights = np.minimum(factor, table.n_q_blocks - rows % n_q_blocks * factor)
    widths = np.minimum(factor, table.n_kv_blocks - columns * factor)
    kinds = np.where(n_full == heights * widths, Kind.FULL, Kind.PARTIAL).astype(np.int8)
    return RunTable.from_runs(
        rows,
        columns,
        columns + 1,
        kinds,
        n_batch=table.n_batch,
        n_heads=table.n_heads,
        n_queries=table.n_queries,
        n_keys=table.n_keys,
        block_m=table.block_m * factor,
        block_n=table.block_n * factor,
    )


@dataclass(frozen=True)
class Reasons:
    """Why tiles are what they are.

    Attributes:
        text: Base64 of zlib of JSON: ``texts``, and for each head ``tiles``, a list of
            [q_block, kv_block, number of its text].
        n_tiles: How many tiles are explained.
        are_all: Every visited tile is; else samples of every run in some rows.
    """

    text: str
    n_tiles: int
    are_all: bool


def reasons_of(analysis: Analysis, heads: Heads) -> Reasons:
    """Reasons for tiles of the heads that are shown; fewer of each once there are many.

    ``analysis`` has the tiles of ``heads.table``.
    """
    texts: dict[str, int] = {}
    found: list[list[list[int]]] = []
    work = 0
    are_all = True
    for head in heads.shown:
        tiles, is_whole = wanted_tiles(heads.table, head, is_short=work > _MAX_ALL)
        work += len(tiles) + _PER_PIECE * _n_pieces(tiles)
        if analysis.is_given and heads.factor > 1:  # a block mask says nothing of larger tiles
            tiles, is_whole = [], False
        are_all = are_all and is_whole
        reasons = analysis.whys(tiles, head.b, head.h)
        numbered = (
            (place, texts.setdefault(str(why).partition("\n")[2], len(texts)))
            for place, why in reasons
        )
        found.append([[*place, number] for place, number in numbered])
    data = json.dumps({"texts": list(texts), "tiles": found}, separators=(",", ":"))
    return Reasons(compressed(data.encode()), sum(map(len, found)), are_all)


def wanted_tiles(
    table: RunTable, head: Head, *, is_short: bool = False
) -> tuple[list[tuple[int, int]], bool]:
    """Which tiles to explain, and whether every visited one is among them.

    All, where there are few. Else those visited, and in rows at even steps the ends of every gap
    between them. Else, and if ``is_short``, of visited ones too only these: the ends and the middle
    of runs in rows at even steps.
    """
    n_empty, n_partial, n_full = head.counts
    n_visited = n_partial + n_full
    group = (head.b * table.n_heads + head.h) * table.n_q_blocks
    rows = range(table.n_q_blocks)
    if n_empty + n_visited <= _MAX_ALL and not is_short:
        return [(row, column) for row in rows for column in range(table.n_kv_blocks)], True
    sampled = _sampled(table, group, _MAX_SAMPLED // 4 if is_short else _MAX_SAMPLED)
    if n_visited > MAX_REASONS or is_short:
        return sampled, False
    visited = [
        (row, column)
        for row in rows
        for start, stop, kind in _pieces(table, group + row)
        if kind != Kind.EMPTY
        for column in range(start, stop)
    ]
    return sorted({*visited, *sampled}), True


def _sampled(table: RunTable, group: int, most: int) -> list[tuple[int, int]]:
    """Ends and middles of runs and gaps; fewer where tiles are large."""
    n_tiles = min(max(_MAX_SAMPLED_PAIRS // (table.block_m * table.block_n), 48), most)
    n_rows = max(n_tiles // _MAX_SAMPLED_IN_ROW, 4)
    tiles: list[tuple[int, int]] = []
    for row in _evenly(table.n_q_blocks, n_rows):
        pieces = _pieces(table, group + row)
        columns = sorted({c for a, b, _ in pieces for c in (a, b - 1, (a + b) // 2)})
        picked = _evenly(len(columns), _MAX_SAMPLED_IN_ROW)
        tiles += [(row, columns[number]) for number in picked]
    return tiles


def _evenly(n: int, most: int) -> list[int]:
    """At most ``most`` of range(n), with both ends."""
    places: list[int] = np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)).tolist()
    return places


def _n_pieces(tiles: list[tuple[int, int]]) -> int:
    """How many runs of neighbours ``tiles`` are."""
    return sum(
        (row, column) != (last_row, last_column + 1)
        for (row, column), (last_row, last_column) in zip(tiles, [(-1, -1), *tiles], strict=False)
    )


def _pieces(table: RunTable, row: int) -> Iterator[tuple[int, int, int]]:
    """Runs and the gaps between them, from left to right: start, stop and kind."""
    end = 0
    for run in range(int(table.offsets[row]), int(table.offsets[row + 1])):
        start, stop = int(table.starts[run]), int(table.stops[run])
        if end < start:
            yield end, start, Kind.EMPTY
        yield start, stop, int(table.kinds[run])
        end = stop
    if end < table.n_kv_blocks:
        yield end, table.n_kv_blocks, Kind.EMPTY
