"""The visible positions of each line of a mask as intervals, at the cost of its boundary.

A line is a query, and the intervals are of keys; of a transposed mask a key, and of queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from attnc.blocks import Geometry, classify
from attnc.blocks.geometry import Rectangles
from attnc.blocks.values import evaluated, positions
from attnc.interchange.subject import Subject
from attnc.run_table import Kind, RunTable, expanded

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

_BLOCK = 16
_MAX_ELEMENTS = 1 << 22
_MAX_SAMPLED = 8


@dataclass(frozen=True, eq=False)
class Runs:
    """Maximal intervals ``[start, stop)`` of positions, in order of their lines.

    ``lines, starts, stops``: (n_runs,), int64. Line ``group * n_lines + i`` is line i of a batch and
    head, of which there are ``n_groups``; positions are below ``n_across``.
    """

    lines: Ints
    starts: Ints
    stops: Ints
    n_groups: int
    n_lines: int
    n_across: int

    @cached_property
    def counts(self) -> Ints:
        """Intervals of each line: (n_groups * n_lines,)."""
        return np.bincount(self.lines, minlength=self.n_groups * self.n_lines)

    def of(self, line: int) -> list[tuple[int, int]]:
        """The intervals of one line."""
        first, last = np.searchsorted(self.lines, [line, line + 1])
        return list(
            zip(self.starts[first:last].tolist(), self.stops[first:last].tolist(), strict=True)
        )

    def complement(self) -> Runs:
        """The intervals between them."""
        every = np.arange(self.n_groups * self.n_lines)
        lines = np.concatenate([every, self.lines])
        order = np.argsort(lines, kind="stable")
        starts = np.concatenate([np.zeros_like(every), self.stops])[order]
        ends = np.argsort(np.concatenate([self.lines, every]), kind="stable")
        stops = np.concatenate([self.starts, np.full_like(every, self.n_across)])[ends]
        return self.kept(lines[order], starts, stops)

    def kept(self, lines: Ints, starts: Ints, stops: Ints) -> Runs:
        """Other intervals of the same lines, those that are empty left out."""
        used = starts < stops
        sizes = (self.n_groups, self.n_lines, self.n_across)
        return Runs(lines[used], starts[used], stops[used], *sizes)

    def difference(self, other: Runs) -> tuple[int, int] | None:
        """The first line, and its first position, that only one of the two has; None if equal."""
        n = min(len(self.lines), len(other.lines))
        mine, theirs = (
            np.stack([runs.lines, runs.starts, runs.stops])[:, :n] for runs in (self, other)
        )
        changed = np.flatnonzero((mine != theirs).any(0))
        if not len(changed) and len(self.lines) == len(other.lines):
            return None
        at = int(changed[0]) if len(changed) else n
        line = min(int(runs.lines[at]) for runs in (self, other) if at < len(runs.lines))
        ends = {end for run in self.of(line) for end in run}
        ends ^= {end for run in other.of(line) for end in run}
        return line, min(ends)


def visible_runs(subject: Subject) -> Runs:
    """The visible keys of every query."""
    result = classify(
        subject.expr,
        subject.tensors,
        n_batch=subject.n_batch,
        n_heads=subject.n_heads,
        n_queries=subject.n_queries,
        n_keys=subject.n_keys,
        block_m=_BLOCK,
        block_n=_BLOCK,
        facts=subject.facts,
    )
    table = result.table
    parts = [_of_full_tiles(table), *_of_partial_tiles(subject, table)]
    lines, starts, stops = (np.concatenate(part) for part in zip(*parts, strict=True))
    n_groups = table.n_batch * table.n_heads
    return _joined(lines, starts, stops, n_groups, subject.n_queries, subject.n_keys)


def sampled_runs(subject: Subject) -> Runs:
    """The visible keys of a few queries; the other lines have none."""
    geometry = Geometry(
        subject.n_batch, subject.n_heads, subject.n_queries, subject.n_keys, _BLOCK, _BLOCK
    )
    n_lines = geometry.n_groups * subject.n_queries
    n_drawn = min(_MAX_SAMPLED, max(_MAX_ELEMENTS // max(subject.n_keys, 1), 2), n_lines)
    drawn = np.unique(np.linspace(0, max(n_lines - 1, 0), n_drawn).astype(np.int64))
    group, q_idx = np.divmod(drawn, max(subject.n_queries, 1))
    keys = np.arange(subject.n_keys)[None]
    seen = evaluated(subject.expr, group, q_idx[:, None], keys, geometry, subject.facts).numpy()
    line, starts, stops = runs_of_flags(np.broadcast_to(seen, (len(drawn), subject.n_keys)))
    return Runs(drawn[line], starts, stops, geometry.n_groups, subject.n_queries, subject.n_keys)


def runs_of_flags(flags: Flags) -> tuple[Ints, Ints, Ints]:
    """Row, start and stop of each interval of true elements: of ``flags`` (n_rows, n)."""
    edges = edges_of_flags(flags)
    rows, places = np.divmod(np.flatnonzero(edges), edges.shape[1])
    return rows[::2], places[::2], places[1::2]


def edges_of_flags(flags: Flags) -> Flags:
    """Where an interval starts or has stopped: (n_rows, n + 1)."""
    edges = np.zeros((len(flags), flags.shape[1] + 1), bool)
    if flags.shape[1]:
        np.not_equal(flags[:, 1:], flags[:, :-1], out=edges[:, 1:-1])
        edges[:, 0], edges[:, -1] = flags[:, 0], flags[:, -1]
    return edges


def _of_full_tiles(table: RunTable) -> tuple[Ints, Ints, Ints]:
    full = table.kinds == Kind.FULL
    group, row = np.divmod(table.run_rows()[full], max(table.n_q_blocks, 1))
    first = row * table.block_m
    last = np.minimum(first + table.block_m, table.n_queries)
    run, query = expanded(first, last)
    starts = table.starts[full].astype(np.int64) * table.block_n
    stops = np.minimum(table.stops[full].astype(np.int64) * table.block_n, table.n_keys)
    return group[run] * table.n_queries + query, starts[run], stops[run]


def _of_partial_tiles(subject: Subject, table: RunTable) -> Iterator[tuple[Ints, Ints, Ints]]:
    partial = table.kinds == Kind.PARTIAL
    run, column = expanded(
        table.starts[partial].astype(np.int64), table.stops[partial].astype(np.int64)
    )
    group, row = np.divmod(table.run_rows()[partial][run], max(table.n_q_blocks, 1))
    geometry = Geometry(
        table.n_batch, table.n_heads, table.n_queries, table.n_keys, table.block_m, table.block_n
    )
    for tiles in Rectangles(group, row, column).parts(_MAX_ELEMENTS // _BLOCK**2):
        q_idx, kv_idx = positions(tiles, geometry)
        places = q_idx[:, :, None], kv_idx[:, None, :]
        flags = evaluated(subject.expr, tiles.group, *places, geometry, subject.facts).numpy()
        inside_q, inside_kv = (
            first[:, None] * _BLOCK + np.arange(_BLOCK) < length
            for first, length in ((tiles.row, table.n_queries), (tiles.column, table.n_keys))
        )
        flags = flags & inside_q[:, :, None] & inside_kv[:, None, :]
        line, starts, stops = runs_of_flags(flags.reshape(-1, _BLOCK))
        tile, row_of_tile = np.divmod(line, _BLOCK)
        query = tiles.row[tile] * _BLOCK + row_of_tile
        first = tiles.column[tile] * _BLOCK
        yield tiles.group[tile] * table.n_queries + query, first + starts, first + stops


def _joined(lines: Ints, starts: Ints, stops: Ints, *sizes: int) -> Runs:
    """Disjoint intervals in any order, put in order; those that touch become one."""
    order = np.argsort(lines * (sizes[2] + 1) + starts, kind="stable")
    lines, starts, stops = lines[order], starts[order], stops[order]
    touches = (lines[1:] == lines[:-1]) & (starts[1:] == stops[:-1])
    is_first, is_last = np.ones(len(lines), bool), np.ones(len(lines), bool)
    is_first[1:], is_last[:-1] = ~touches, ~touches
    return Runs(lines[is_first], starts[is_first], stops[is_last], *sizes)
