"""Reasons for the classes of many tiles: values are computed for a row of tiles at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray

from attnc.analysis.tile import Cases, Tile, ValueRange, plain_number
from attnc.ir import Expr

_MAX_PAIRS = 1 << 20
_MAX_CONDITIONS = 10
_MAX_CASES = 64

_Ranges = tuple[NDArray[np.generic], NDArray[np.generic]]


@dataclass(frozen=True)
class TileOfStrip(Tile):
    """A tile whose values are those of its strip: the answers of ``Tile``, sooner."""

    strip: Strip
    number: int

    def cases(self, conditions: Sequence[Expr]) -> Cases:
        found = self.strip.cases(tuple(conditions))
        if found is None:
            return super().cases(conditions)
        codes, counts, firsts = found
        first = firsts[self.number]
        order = np.argsort(first)
        order = order[counts[self.number][order] > 0]
        row, column = np.divmod(first[order], len(self.keys))
        places = np.stack([self.queries.start + row, self.keys.start + column], axis=1)
        values = (codes[order, None] >> np.arange(len(conditions))) & 1
        return Cases(values.astype(bool), counts[self.number][order], places)

    def range_of(self, expr: Expr, text: str) -> ValueRange:
        found = self.strip.ranges((expr,), lambda: self.strip.values(expr))
        return super().range_of(expr, text) if found is None else self._range_in(found, text)

    def range_of_difference(self, lhs: Expr, rhs: Expr, text: str) -> ValueRange:
        found = self.strip.ranges(
            (lhs, rhs), lambda: self.strip.values(lhs).long() - self.strip.values(rhs).long()
        )
        if found is None:
            return super().range_of_difference(lhs, rhs, text)
        return self._range_in(found, text)

    def _range_in(self, ranges: _Ranges, text: str) -> ValueRange:
        least, greatest = (plain_number(ends[self.number]) for ends in ranges)
        return ValueRange(text, least, greatest)


@dataclass(frozen=True, eq=False)
class Strip:
    """The pairs of one tile of queries and of several whole tiles of keys, side by side."""

    whole: Tile
    block_n: int
    _cases: dict[
        tuple[Expr, ...], tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None
    ] = field(default_factory=dict, repr=False)
    _ranges: dict[tuple[Expr, ...], _Ranges | None] = field(default_factory=dict, repr=False)

    @property
    def n_tiles(self) -> int:
        return len(self.whole.keys) // self.block_n

    def tiles(self) -> Iterator[TileOfStrip]:
        """Its tiles, from the first keys to the last."""
        whole = self.whole
        for number in range(self.n_tiles):
            start = whole.keys.start + number * self.block_n
            keys = range(start, start + self.block_n)
            yield TileOfStrip(whole.b, whole.h, whole.queries, keys, whole.tensors, self, number)

    def values(self, expr: Expr) -> torch.Tensor:
        """Broadcast over (queries, keys); a side may be 1."""
        return self.whole.values(expr, self.whole.queries)

    def cases(
        self, conditions: tuple[Expr, ...]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None:
        """Combinations of values as codes, (n_cases,), bit by condition; how many pairs of each
        tile have them and the number of the first, both (n_tiles, n_cases). None of very many."""
        if conditions not in self._cases:
            self._cases[conditions] = self._found_cases(conditions)
        return self._cases[conditions]

    def _found_cases(
        self, conditions: tuple[Expr, ...]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None:
        if len(conditions) > _MAX_CONDITIONS:
            return None
        whole = self.whole
        codes = np.zeros((len(whole.queries), len(whole.keys)), np.int16)
        for bit, condition in enumerate(conditions):
            codes |= self.values(condition).cpu().numpy().astype(np.int16) << bit
        present = np.flatnonzero(np.bincount(codes.reshape(-1)))
        if len(present) > _MAX_CASES:
            return None
        in_columns = codes.reshape(len(whole.queries), self.n_tiles, self.block_n)
        by_tile = in_columns.transpose(1, 0, 2).reshape(self.n_tiles, -1)
        shape = self.n_tiles, len(present)
        counts, firsts = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for case, code in enumerate(present.tolist()):
            is_case = by_tile == code
            counts[:, case], firsts[:, case] = is_case.sum(1), is_case.argmax(1)
        return present, counts, firsts

    def ranges(
        self, key: tuple[Expr, ...], values_of: Callable[[], torch.Tensor]
    ) -> _Ranges | None:
        """The least and the greatest number in each tile, both (n_tiles,); None with a NaN."""
        if key not in self._ranges:
            self._ranges[key] = self._found_ranges(values_of())
        return self._ranges[key]

    def _found_ranges(self, values: torch.Tensor) -> _Ranges | None:
        if values.dtype is torch.bool or (values.is_floating_point() and values.isnan().any()):
            return None
        flat = values.detach().cpu().reshape(-1, values.shape[-1] if values.dim() else 1)
        ends = flat.amin(0).numpy(), flat.amax(0).numpy()
        if flat.shape[-1] == 1:
            least, greatest = (np.repeat(end, self.n_tiles) for end in ends)
            return least, greatest
        low, high = (end.reshape(self.n_tiles, self.block_n) for end in ends)
        return low.min(1), high.max(1)


def tiles_at(
    places: Iterable[tuple[int, int]],
    b: int,
    h: int,
    tensors: Sequence[torch.Tensor],
    lengths: tuple[int, int],
    blocks: tuple[int, int],
) -> Iterator[tuple[int, int, Tile]]:
    """Each of ``places``, (q_block, kv_block), in order, with its pairs.

    Neighbours in a row of tiles share what is computed for them.

    Args:
        places: In order of rows, each once.
        b: Batch.
        h: Head.
        tensors: Captured ones, by slot.
        lengths: Queries and keys.
        blocks: Queries and keys per tile.
    """
    n_queries, n_keys = lengths
    block_m, block_n = blocks
    widest = max(_MAX_PAIRS // (block_m * block_n), 1)

    def piece_of(place: tuple[int, tuple[int, int]]) -> tuple[int, int, bool, int]:
        """Equal for neighbours; incomplete tiles are alone, pieces have a bounded number of tiles."""
        number, (q_block, kv_block) = place
        is_whole = (kv_block + 1) * block_n <= n_keys
        return q_block, kv_block - number, is_whole, kv_block // widest

    for (q_block, _, is_whole, _), group in groupby(enumerate(places), piece_of):
        columns = [kv_block for _, (_, kv_block) in group]
        queries = range(q_block * block_m, min((q_block + 1) * block_m, n_queries))
        keys = range(columns[0] * block_n, min((columns[-1] + 1) * block_n, n_keys))
        tile = Tile(b, h, queries, keys, tensors)
        if not is_whole:
            yield q_block, columns[0], tile
            continue
        for kv_block, part in zip(columns, Strip(tile, block_n).tiles(), strict=True):
            yield q_block, kv_block, part
