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
_N_SAMPLED_ROWS = 33
_MAX_SAMPLED_IN_ROW = 12
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
    whole = table
    while _runs_of_first(table) > _MAX_RUNS and max(table.n_q_blocks, table.n_kv_blocks) > 64:
        factor *= 2
        table = coarsened(whole, factor)
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
    rows, starts, stops, kinds = [], [], [], []
    heights = np.minimum(factor, table.n_q_blocks - np.arange(n_q_blocks) * factor)
    widths = np.minimum(factor, table.n_kv_blocks - np.arange(n_kv_blocks) * factor)
    for row in range(table.n_batch * table.n_heads * n_q_blocks):
        group, q_block = divmod(row, n_q_blocks)
        first = group * table.n_q_blocks + q_block * factor
        last = min(first + factor, (group + 1) * table.n_q_blocks)
        runs = slice(int(table.offsets[first]), int(table.offsets[last]))
        begins, ends = (part[runs].astype(np.int64) for part in (table.starts, table.stops))
        run, column = expanded(begins // factor, (ends - 1) // factor + 1)
        overlap = np.minimum(ends[run], (column + 1) * factor) - np.maximum(
            begins[run], column * factor
        )
        visited = np.bincount(column, minlength=n_kv_blocks)
        is_full = table.kinds[runs][run] == Kind.FULL
        n_full = np.bincount(column, weights=overlap * is_full, minlength=n_kv_blocks)
        columns = np.flatnonzero(visited)
        full = n_full[columns] == heights[q_block] * widths[columns]
        rows.append(np.full(len(columns), row))
        starts.append(columns)
        stops.append(columns + 1)
        kinds.append(np.where(full, Kind.FULL, Kind.PARTIAL).astype(np.int8))
    return RunTable.from_runs(
        np.concatenate(rows),
        np.concatenate(starts),
        np.concatenate(stops),
        np.concatenate(kinds),
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
    """Reasons for the tiles of the heads that are shown, ``MAX_REASONS`` at the most.

    ``analysis`` has the tiles of ``heads.table``.
    """
    texts: dict[str, int] = {}
    found: list[list[list[int]]] = []
    room = MAX_REASONS
    are_all = True
    for head in heads.shown:
        tiles, is_whole = wanted_tiles(heads.table, head, room)
        room -= len(tiles)
        are_all = are_all and is_whole
        reasons = analysis.whys(tiles, head.b, head.h)
        numbered = (
            (place, texts.setdefault(str(why).partition("\n")[2], len(texts)))
            for place, why in reasons
        )
        found.append([[*place, number] for place, number in numbered])
    data = json.dumps({"texts": list(texts), "tiles": found}, separators=(",", ":"))
    return Reasons(compressed(data.encode()), sum(map(len, found)), are_all)


def wanted_tiles(table: RunTable, head: Head, room: int) -> tuple[list[tuple[int, int]], bool]:
    """Which tiles to explain, and whether every visited one is among them.

    All, where there are few; else those visited and both ends of every gap between them; else, in
    rows at even steps, the ends and the middle of every run and of every gap.
    """
    n_empty, n_partial, n_full = head.counts
    n_visited = n_partial + n_full
    group = (head.b * table.n_heads + head.h) * table.n_q_blocks
    rows = np.arange(table.n_q_blocks)
    if n_empty + n_visited <= min(room, _MAX_ALL):
        columns = range(table.n_kv_blocks)
        return [(row, column) for row in rows.tolist() for column in columns], True
    tiles: list[tuple[int, int]] = []
    if n_visited <= room:
        for row in rows.tolist():
            for start, stop, kind in _pieces(table, group + row):
                is_gap = kind == Kind.EMPTY
                columns_of = {start, stop - 1} if is_gap else set(range(start, stop))
                tiles += [(row, column) for column in sorted(columns_of)]
        visited_first = sorted(tiles, key=lambda tile: not _is_visited(table, group, tile))
        return sorted(visited_first[:room]), True
    for row in np.unique(np.linspace(0, table.n_q_blocks - 1, _N_SAMPLED_ROWS).round()).astype(int):
        places: dict[int, None] = {}
        for start, stop, _ in _pieces(table, group + int(row)):
            places |= dict.fromkeys((start, stop - 1, (start + stop) // 2))
        columns_in = np.array(sorted(places))
        picked = np.linspace(0, len(columns_in) - 1, _MAX_SAMPLED_IN_ROW).round().astype(int)
        tiles += [(int(row), int(column)) for column in columns_in[np.unique(picked)]]
    return tiles[: max(room, 0)], False


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


def _is_visited(table: RunTable, group: int, tile: tuple[int, int]) -> bool:
    row, column = tile
    first, last = (int(x) for x in table.offsets[group + row : group + row + 2])
    run = first + int(np.searchsorted(table.starts[first:last], column, "right")) - 1
    return run >= first and column < table.stops[run]
