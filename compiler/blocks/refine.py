"""Kinds of tiles by cutting them into boxes on which the mask is decided.

A box is cut where an expression of its row or of its column alone jumps: where ``q_idx // 56``
takes the next value, ``q_idx % 56`` starts again or a document ends. Between jumps intervals are
exact, so a tile that crosses rows of a grid takes a few boxes and not all its pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from attnc.blocks.geometry import Geometry, Ints, Rectangles, side
from attnc.blocks.values import evaluated
from attnc.intervals import Facts, Products, Side, Truth, truth_of
from attnc.intervals.boxes import Truths
from attnc.ir import Expr, Index, Level

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

_MIN_BOXES, _MAX_BOXES = 1 << 6, 1 << 12
_ELEMENTS_PER_BOX = 16  # how much a tile may take: fewer boxes than it has elements
_FIRST_TILES, _MAX_TILES = 1 << 5, 1 << 11
_MAX_SCORES = _MAX_TOKENS = 1 << 20


@dataclass(frozen=True)
class Refined:
    """Of each tile, whether a visible and whether a hidden pair exists, unless it is ``open``."""

    visible: Flags
    hidden: Flags
    open: Flags


def refine(mask: Expr, tiles: Rectangles, geometry: Geometry, facts: Facts) -> Refined:
    """What cutting ``tiles`` tells about each of them; those that would take too long are open."""
    n = len(tiles)
    result = Refined(np.zeros(n, bool), np.zeros(n, bool), np.ones(n, bool))
    first, size = 0, _FIRST_TILES
    most = max(_MAX_TOKENS // max(geometry.block_m, geometry.block_n), 1)
    while first < n:
        part = np.arange(first, min(first + size, n))
        some = _refined(mask, tiles.at(part), geometry, facts)
        result.visible[part], result.hidden[part] = some.visible, some.hidden
        result.open[part] = some.open
        if 2 * np.count_nonzero(some.open) > len(part):
            break  # a mask that intervals do not understand: the others would only take longer
        first, size = first + len(part), min(_MAX_TILES, most)
    return result


def _refined(mask: Expr, tiles: Rectangles, geometry: Geometry, facts: Facts) -> Refined:
    n = len(tiles)
    visible, hidden, is_open = np.zeros(n, bool), np.zeros(n, bool), np.zeros(n, bool)
    n_boxes = np.zeros(n, np.int64)
    n_elements = geometry.block_m * geometry.block_n
    most = min(max(n_elements // _ELEMENTS_PER_BOX, _MIN_BOXES), _MAX_BOXES)
    rows, row = _lines(Level.ROW, tiles.group, tiles.row, mask, geometry, facts)
    columns, column = _lines(Level.COLUMN, tiles.group, tiles.column, mask, geometry, facts)
    # Boxes: the tile that each is a piece of, and its numbers among ``rows`` and ``columns``.
    owner = np.arange(n)

    def note(truths: Truths) -> None:
        visible[owner[truths == Truth.ALWAYS]] = True
        hidden[owner[truths == Truth.NEVER]] = True

    while len(owner):
        n_boxes += np.bincount(owner, minlength=n)
        truths = truth_of(mask, Products(rows.side(), columns.side(), row, column), facts)
        note(truths)
        maybe = np.flatnonzero(truths == Truth.MAYBE)
        owner, row, column = owner.take(maybe), row.take(maybe), column.take(maybe)
        is_point = rows.is_point.take(row) & columns.is_point.take(column)
        is_open[owner[is_point]] = True
        for last_row in (True, False):
            corners = rows.side(last_row), columns.side(not last_row)
            note(truth_of(mask, Products(*corners, row, column), facts))
        is_open |= n_boxes > most
        left = np.flatnonzero(~((visible & hidden) | is_open)[owner])
        owner, row, column = owner.take(left), row.take(left), column.take(left)
        rows, row = rows.only(row)
        columns, column = columns.only(column)
        rows, columns = rows.cut(), columns.cut()
        owner = np.concatenate([owner] * 4)
        row = np.concatenate([2 * row, 2 * row, 2 * row + 1, 2 * row + 1])
        column = np.concatenate([2 * column, 2 * column + 1, 2 * column, 2 * column + 1])
        holds = np.flatnonzero(rows.holds.take(row) & columns.holds.take(column))
        owner, row, column = owner.take(holds), row.take(holds), column.take(holds)
    return Refined(visible, hidden, is_open & ~(visible & hidden))


@dataclass(frozen=True)
class _Lines:
    """The rows (or columns) of tokens of several tiles, cut into intervals.

    ``jumps``: (n_lines, block), see ``_jumps``. ``starts, group``: (n_lines,), first token and
    (batch, head) number. ``line, first, last``: (n_intervals,), the line that each interval is of
    and its ends in it, both inclusive.
    """

    jumps: Floats
    starts: Ints
    group: Ints
    line: Ints
    first: Ints
    last: Ints
    geometry: Geometry

    @property
    def is_point(self) -> Flags:
        return np.asarray(self.first == self.last)

    @property
    def holds(self) -> Flags:
        """Whether an interval holds anything."""
        return np.asarray(self.first <= self.last)

    def side(self, at_last: bool | None = None) -> Side:
        """The intervals as sides of boxes; only their last or first tokens if that is given."""
        start = self.starts.take(self.line)
        first = start + (self.last if at_last else self.first)
        last = start + (self.first if at_last is False else self.last)
        return side(self.group.take(self.line), (first, last), self.geometry)

    def only(self, used: Ints) -> tuple[_Lines, Ints]:
        """The intervals with these numbers, each once, and the new numbers."""
        is_used = np.zeros(len(self.line), bool)
        is_used[used] = True
        kept = np.flatnonzero(is_used)
        number = np.cumsum(is_used) - 1
        return self._with(*(x.take(kept) for x in (self.line, self.first, self.last))), number[used]

    def cut(self) -> _Lines:
        """Interval ``i`` in two, ``2 i`` and ``2 i + 1``, where most jumps.

        The first part of a single token is empty.
        """
        cuts = np.empty_like(self.first)
        n = self.jumps.shape[1]
        places = np.arange(n, dtype=np.int32)
        step = max(_MAX_SCORES // n, 1)
        for begin in range(0, len(cuts), step):
            part = slice(begin, begin + step)
            low, high = self.first[part, None], self.last[part, None]
            # Among equal jumps the most central.
            distance = np.abs(2 * places - (low + high + 1).astype(np.float32))
            scores = self.jumps[self.line[part]] - distance / np.float32(1e4 * n)
            scores[(places <= low) | (places > high)] = -np.inf
            best = np.argmax(scores, axis=1)
            cuts[part] = np.where(low == high, low, best[:, None])[:, 0]
        first, last = (np.repeat(x, 2) for x in (self.first, self.last))
        last[::2], first[1::2] = cuts - 1, cuts
        return self._with(np.repeat(self.line, 2), first, last)

    def _with(self, line: Ints, first: Ints, last: Ints) -> _Lines:
        return _Lines(self.jumps, self.starts, self.group, line, first, last, self.geometry)


def _lines(
    level: Level, group: Ints, block: Ints, mask: Expr, geometry: Geometry, facts: Facts
) -> tuple[_Lines, Ints]:
    """The rows (or columns) of tiles, each once, whole; and the number of that of each tile."""
    is_row = level is Level.ROW
    size, length, n_blocks = (
        (geometry.block_m, geometry.n_queries, geometry.n_q_blocks)
        if is_row
        else (geometry.block_n, geometry.n_keys, geometry.n_kv_blocks)
    )
    keys, number = np.unique(group * n_blocks + block, return_inverse=True)
    groups, blocks = np.divmod(keys, n_blocks)
    starts = blocks * size
    places = np.minimum(starts[:, None] + np.arange(size), length - 1)
    jumps = np.zeros(places.shape, np.float32)
    for atom in _atoms(mask, level, facts):
        values = evaluated(atom, groups, places, places, geometry, facts)
        jumps += _relative_jumps(values.to(torch.float64).numpy())
    line = np.arange(len(keys))
    last = np.minimum(size, length - starts) - 1
    return _Lines(jumps, starts, groups, line, np.zeros_like(line), last, geometry), number


def _atoms(mask: Expr, level: Level, facts: Facts) -> Iterator[Expr]:
    """The greatest parts of ``mask`` that depend on its row alone (or on its column alone)."""
    levels = dict(facts.levels_of(mask))
    found = {
        child
        for node in levels
        if levels[node] is Level.ELEMENT
        for child in node.children
        if levels[child] is level and not isinstance(child, Index)
    }
    if levels[mask] is level:
        found.add(mask)
    return (node for node in levels if node in found)


def _relative_jumps(values: NDArray[np.float64]) -> Floats:
    """Of lines (n_lines, n), how far each step is from the usual one; the largest in a line is 1."""
    steps = np.diff(np.nan_to_num(values), axis=1)
    jumps = np.abs(steps - np.median(steps, axis=1, keepdims=True)) if steps.size else steps
    largest = jumps.max(axis=1, keepdims=True, initial=0)
    result = np.zeros(values.shape, np.float32)
    result[:, 1:] = jumps / np.where(largest > 0, largest, 1)
    return result
