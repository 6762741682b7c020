"""Run-length tables of tile classes: which tiles an attention kernel visits, and how.

A row is one block of queries of one (batch, head); its runs are half-open intervals of key
blocks of one kind. Everything is NumPy without a loop over rows or tiles.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


_KIND_BITS = 2
_KIND = (1 << _KIND_BITS) - 1


class Kind(IntEnum):
    """Class of a tile: no, some or all of its pairs (query, key) are visible."""

    EMPTY = 0
    PARTIAL = 1
    FULL = 2


@dataclass(frozen=True, eq=False)
class RunTable:
    """Runs of key blocks for each block of queries.

    Rows are in order (batch, head, q_block); runs ``offsets[row] .. offsets[row + 1]`` belong to
    a row and are ascending, disjoint and never EMPTY. ``n_batch`` and ``n_heads`` are 1 where the
    mask does not depend on them. Lengths and block sizes are in tokens.

    ``offsets``: (n_rows + 1,), int64. ``starts``, ``stops``: (n_runs,), int32, in key blocks,
    half open. ``kinds``: (n_runs,), int8, values of ``Kind``; tables made for kernels that check
    terms of a mask apart (``blocks.terms``) add to PARTIAL the bits of those that hold throughout.
    """

    offsets: Ints
    starts: NDArray[np.int32]
    stops: NDArray[np.int32]
    kinds: NDArray[np.int8]
    n_batch: int
    n_heads: int
    n_queries: int
    n_keys: int
    block_m: int
    block_n: int
    _refined: dict[tuple[int, int], RunTable] = field(
        default_factory=dict, init=False, repr=False
    )  # what refine has made, since every call of a kernel asks for it

    @property
    def n_q_blocks(self) -> int:
        return -(-self.n_queries // self.block_m)

    @property
    def n_kv_blocks(self) -> int:
        return -(-self.n_keys // self.block_n)

    @property
    def n_rows(self) -> int:
        return self.n_batch * self.n_heads * self.n_q_blocks

    @property
    def n_tiles(self) -> int:
        return self.n_rows * self.n_kv_blocks

    @property
    def n_partial(self) -> int:
        return self._n_tiles_of(Kind.PARTIAL)

    @property
    def n_full(self) -> int:
        return self._n_tiles_of(Kind.FULL)

    @property
    def n_empty(self) -> int:
        return self.n_tiles - self.n_partial - self.n_full

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RunTable):
            return NotImplemented
        return self._geometry() == other._geometry() and all(
            np.array_equal(a, b) for a, b in zip(self._arrays(), other._arrays(), strict=True)
        )

    def __hash__(self) -> int:
        return hash((self._geometry(), *(a.tobytes() for a in self._arrays())))

    @staticmethod
    def from_runs(
        rows: Ints,
        starts: Ints | NDArray[np.int32],
        stops: Ints | NDArray[np.int32],
        kinds: NDArray[np.int8],
        *,
        n_batch: int,
        n_heads: int,
        n_queries: int,
        n_keys: int,
        block_m: int,
        block_n: int,
    ) -> RunTable:
        """Table of disjoint runs in any order; neighbours of one kind become one run.

        ``rows, starts, stops, kinds``: (n_runs,), row number, key blocks (half open), ``Kind``.
        Empty runs and runs of kind EMPTY are dropped.
        """
        n_rows = n_batch * n_heads * -(-n_queries // block_m)
        used = (kinds != Kind.EMPTY) & (starts < stops)
        if not used.all():
            rows, starts, stops, kinds = rows[used], starts[used], stops[used], kinds[used]
        # A merge sort, since what is given consists of long pieces that are in order.
        order = np.argsort(rows * (-(-n_keys // block_n) + 1) + starts, kind="stable")
        rows, starts, stops = rows.take(order), starts.take(order), stops.take(order)
        kinds = kinds.take(order)
        is_first = np.ones(len(rows), bool)
        is_first[1:] = (rows[1:] != rows[:-1]) | (starts[1:] != stops[:-1])
        is_first[1:] |= kinds[1:] != kinds[:-1]
        first = np.flatnonzero(is_first)
        last = np.append(first[1:], len(rows))[: len(first)] - 1
        return RunTable(
            offsets=_offsets(np.bincount(rows[first], minlength=n_rows)),
            starts=starts[first].astype(np.int32, copy=False),
            stops=stops[last].astype(np.int32, copy=False),
            kinds=kinds[first].astype(np.int8, copy=False),
            n_batch=n_batch,
            n_heads=n_heads,
            n_queries=n_queries,
            n_keys=n_keys,
            block_m=block_m,
            block_n=block_n,
        )

    @staticmethod
    def from_dense(
        dense: NDArray[np.int8], *, n_queries: int, n_keys: int, block_m: int, block_n: int
    ) -> RunTable:
        """Table of ``dense``: (n_batch, n_heads, n_q_blocks, n_kv_blocks), values of ``Kind``."""
        n_batch, n_heads, n_q_blocks, n_kv_blocks = dense.shape
        rows, columns = np.nonzero(dense.reshape(n_batch * n_heads * n_q_blocks, n_kv_blocks))
        return RunTable.from_runs(
            rows,
            columns,
            columns + 1,
            dense[dense != Kind.EMPTY].astype(np.int8),
            n_batch=n_batch,
            n_heads=n_heads,
            n_queries=n_queries,
            n_keys=n_keys,
            block_m=block_m,
            block_n=block_n,
        )

    @staticmethod
    def bit_of(term: int) -> np.int8:
        """The bit of ``kinds`` that says that a term of the mask is true in all tiles of a run."""
        return np.int8(1 << (_KIND_BITS + term))

    @property
    def held(self) -> NDArray[np.int8]:
        """Terms that need no check in tiles of each run, as bits, the first the lowest: (n_runs,)."""
        return self.kinds >> _KIND_BITS

    def run_rows(self) -> Ints:
        """Row number of each run: (n_runs,), int64."""
        return np.repeat(np.arange(self.n_rows), np.diff(self.offsets))

    def to_dense(self) -> NDArray[np.int8]:
        """``Kind`` of every tile: (n_batch, n_heads, n_q_blocks, n_kv_blocks), int8."""
        dense = np.zeros((self.n_rows, self.n_kv_blocks), np.int8)
        run, columns = expanded(self.starts.astype(np.int64), self.stops.astype(np.int64))
        dense[self.run_rows()[run], columns] = self.kinds[run]
        return dense.reshape(self.n_batch, self.n_heads, self.n_q_blocks, self.n_kv_blocks)

    def to_list(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The numbers of the key blocks in each row, as in PyTorch's BlockMask.

        Returns:
            How many there are, (n_batch, n_heads, n_q_blocks); and (..., n_q_blocks, n_kv_blocks),
            their numbers ascending, then those of all other blocks, ascending.
        """
        n_columns = self.n_kv_blocks
        has_runs = np.diff(self.offsets) > 0
        # Intervals of each row: its runs, the gap before each of them, the gap after the last.
        gap_starts = np.zeros_like(self.starts)
        gap_starts[1:] = self.stops[:-1]
        gap_starts[self.offsets[:-1][has_runs]] = 0
        last = np.zeros(self.n_rows, np.int32)
        last[has_runs] = self.stops[self.offsets[1:][has_runs] - 1]
        rows = np.concatenate([run_rows := self.run_rows(), run_rows, np.arange(self.n_rows)])
        is_gap = np.arange(len(rows)) >= len(run_rows)
        order = np.argsort(2 * rows + is_gap, kind="stable")
        starts = np.concatenate([self.starts, gap_starts, last])[order]
        ends = np.full(self.n_rows, n_columns, np.int32)
        lengths = np.concatenate([self.stops, self.starts, ends])[order] - starts
        places = np.cumsum(lengths, dtype=np.int64) - lengths - rows[order] * n_columns
        indices = np.tile(np.arange(n_columns, dtype=np.int32), self.n_rows)
        indices += np.repeat(starts - places.astype(np.int32), lengths)
        n_listed = np.append(0, np.cumsum(self.stops - self.starts, dtype=np.int64))[self.offsets]
        shape = (self.n_batch, self.n_heads, self.n_q_blocks)
        return np.diff(n_listed).astype(np.int32).reshape(shape), indices.reshape(*shape, n_columns)

    def split(self) -> tuple[RunTable, RunTable]:
        """Two tables: only the PARTIAL runs, and only the FULL runs."""
        return self._only(Kind.PARTIAL), self._only(Kind.FULL)

    def refine(self, block_m: int, block_n: int) -> RunTable:
        """The same classes on tiles that divide these: every small tile gets the kind of its tile.

        Raises:
            ValueError: The new block sizes do not divide the old ones.
        """
        if (block_m, block_n) == (self.block_m, self.block_n):
            return self
        if (known := self._refined.get((block_m, block_n))) is not None:
            return known
        if self.block_m % block_m or self.block_n % block_n:
            raise ValueError(
                f"tiles of {block_m}x{block_n} do not divide blocks of "
                f"{self.block_m}x{self.block_n}; choose divisors"
            )
        n_q_blocks = -(-self.n_queries // block_m)
        n_kv_blocks = -(-self.n_keys // block_n)
        factor = self.block_n // block_n
        coarse = np.arange(n_q_blocks) // (self.block_m // block_m)
        groups = np.arange(self.n_batch * self.n_heads)[:, None] * self.n_q_blocks
        rows = (groups + coarse).reshape(-1)
        _, run = expanded(self.offsets[rows], self.offsets[rows + 1])
        refined = RunTable(
            offsets=_offsets(np.diff(self.offsets)[rows]),
            starts=self.starts[run] * np.int32(factor),
            stops=np.minimum(self.stops[run].astype(np.int64) * factor, n_kv_blocks).astype(
                np.int32
            ),
            kinds=self.kinds[run],
            n_batch=self.n_batch,
            n_heads=self.n_heads,
            n_queries=self.n_queries,
            n_keys=self.n_keys,
            block_m=block_m,
            block_n=block_n,
        )
        self._refined[block_m, block_n] = refined
        return refined

    def transpose(self) -> RunTable:
        """Runs of query blocks for each key block: the table of the transposed mask.

        Work and memory are proportional to the runs of both tables, not to the tiles: only where
        a row differs from the row above it does a transposed run start or stop.
        """
        n_q_blocks, width = self.n_q_blocks, self.n_kv_blocks + 1
        group, q_block = np.divmod(self.run_rows(), max(n_q_blocks, 1))
        # Row `line` of a group has n_q_blocks + 1 lines: the last one ends all open runs.
        line = group * (n_q_blocks + 1) + q_block
        kinds = self.kinds.astype(np.int64)
        starts, stops = line * width + self.starts, line * width + self.stops
        # Per event: change of this row's kind, and of the kind of the row above.
        positions = np.concatenate([starts, stops, starts + width, stops + width])
        order = np.argsort(positions, kind="stable")
        positions = positions[order]
        nothing = np.zeros(2 * len(kinds), np.int64)
        here = np.cumsum(np.concatenate([kinds, -kinds, nothing])[order])
        above = np.cumsum(np.concatenate([nothing, kinds, -kinds])[order])
        changed = np.flatnonzero(here[:-1] != above[:-1])
        segment, position = expanded(positions[changed], positions[changed + 1])
        lines, columns = np.divmod(position, width)
        kind = here[changed][segment].astype(np.int8)
        groups, blocks = np.divmod(lines, n_q_blocks + 1)
        rows = groups * self.n_kv_blocks + columns
        order = np.argsort(rows * (n_q_blocks + 1) + blocks)
        rows, blocks, kind = rows[order], blocks[order], kind[order]
        begins = np.flatnonzero(kind != Kind.EMPTY)
        return RunTable(
            offsets=_offsets(
                np.bincount(rows[begins], minlength=self.n_batch * self.n_heads * self.n_kv_blocks)
            ),
            starts=blocks[begins].astype(np.int32),
            # A change to EMPTY or to another kind always follows: it is where the run stops.
            stops=blocks[begins + 1].astype(np.int32),
            kinds=kind[begins],
            n_batch=self.n_batch,
            n_heads=self.n_heads,
            n_queries=self.n_keys,
            n_keys=self.n_queries,
            block_m=self.block_n,
            block_n=self.block_m,
        )

    def _only(self, kind: Kind) -> RunTable:
        used = (self.kinds & _KIND) == kind
        return RunTable(
            _offsets(np.bincount(self.run_rows()[used], minlength=self.n_rows)),
            self.starts[used],
            self.stops[used],
            self.kinds[used],
            *self._geometry(),
        )

    def _n_tiles_of(self, kind: Kind) -> int:
        used = (self.kinds & _KIND) == kind
        return int((self.stops[used] - self.starts[used]).sum(dtype=np.int64))

    def _arrays(self) -> tuple[NDArray[np.generic], ...]:
        return (self.offsets, self.starts, self.stops, self.kinds)

    def _geometry(self) -> tuple[int, int, int, int, int, int]:
        return (
            self.n_batch,
            self.n_heads,
            self.n_queries,
            self.n_keys,
            self.block_m,
            self.block_n,
        )


def expanded(starts: Ints, stops: Ints) -> tuple[Ints, Ints]:
    """All integers of all intervals ``[start, stop)``, and the interval each came from.

    Returns:
        (interval number, integer), both (n_integers,), int64, in order of the intervals.
    """
    lengths = np.maximum(stops - starts, 0)
    interval = np.repeat(np.arange(len(starts)), lengths)
    begins = np.cumsum(lengths) - lengths
    return interval, np.arange(len(interval)) + (starts - begins)[interval]


def _offsets(counts: Ints) -> Ints:
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets
