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

from attnc.blocks.geometry import Geometry, Ints, Rectangles, batch_and_head, tokens
from attnc.blocks.values import evaluated, positions
from attnc.intervals import Boxes, Facts, Truth, truth_of
from attnc.ir import Expr, Index, Level

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

_MIN_BOXES, _ELEMENTS_PER_BOX = 64, 16  # how much a tile may take: fewer than its elements
_FIRST_TILES, _MAX_TILES = 1 << 5, 1 << 10
_MAX_SCORES = 1 << 22


@dataclass(frozen=True)
class Refined:
    """Of each tile, whether a visible and whether a hidden pair exists, unless it is ``open``."""

    visible: Flags
    hidden: Flags
    open: Flags


@dataclass(frozen=True)
class _Pieces:
    """Boxes, each a piece of the tile ``owner``; both ends inclusive, in tokens."""

    owner: Ints
    q_first: Ints
    q_last: Ints
    kv_first: Ints
    kv_last: Ints

    def __len__(self) -> int:
        return len(self.owner)

    def at(self, where: Ints) -> _Pieces:
        ends = (self.q_first, self.q_last, self.kv_first, self.kv_last)
        return _Pieces(self.owner.take(where), *(end.take(where) for end in ends))


def refine(mask: Expr, tiles: Rectangles, geometry: Geometry, facts: Facts) -> Refined:
    """What cutting ``tiles`` tells about each of them; those that would take too long are open."""
    n = len(tiles)
    result = Refined(np.zeros(n, bool), np.zeros(n, bool), np.ones(n, bool))
    first, size = 0, _FIRST_TILES
    while first < n:
        part = slice(first, first + size)
        some = _refined(mask, tiles.at(np.arange(n)[part]), geometry, facts)
        result.visible[part], result.hidden[part] = some.visible, some.hidden
        result.open[part] = some.open
        if 2 * np.count_nonzero(some.open) > len(some.open):
            break  # a mask that intervals do not understand: the others would only take longer
        first, size = first + size, _MAX_TILES
    return result


def _refined(mask: Expr, tiles: Rectangles, geometry: Geometry, facts: Facts) -> Refined:
    q_idx = tokens(tiles.row, geometry.block_m, geometry.n_queries)
    kv_idx = tokens(tiles.column, geometry.block_n, geometry.n_keys)
    b, h = batch_and_head(tiles.group, geometry)
    n = len(tiles)
    visible, hidden, is_open = np.zeros(n, bool), np.zeros(n, bool), np.zeros(n, bool)
    n_boxes = np.zeros(n, np.int64)
    most = max(geometry.block_m * geometry.block_n // _ELEMENTS_PER_BOX, _MIN_BOXES)
    jumps = None
    pieces = _Pieces(np.arange(n), *q_idx, *kv_idx)

    def truths_at(q: tuple[Ints, Ints], kv: tuple[Ints, Ints]) -> NDArray[np.int8]:
        groups = [x if len(x) == 1 else x.take(pieces.owner) for x in (b, h)]
        return truth_of(mask, Boxes(*((x, x) for x in groups), q, kv), facts)

    while len(pieces):
        n_boxes += np.bincount(pieces.owner, minlength=n)
        truths = truths_at((pieces.q_first, pieces.q_last), (pieces.kv_first, pieces.kv_last))
        visible[pieces.owner[truths == Truth.ALWAYS]] = True
        hidden[pieces.owner[truths == Truth.NEVER]] = True
        is_point = (pieces.q_first == pieces.q_last) & (pieces.kv_first == pieces.kv_last)
        is_open[pieces.owner[(truths == Truth.MAYBE) & is_point]] = True
        pieces = pieces.at(np.flatnonzero(truths == Truth.MAYBE))
        for q, kv in ((pieces.q_last, pieces.kv_first), (pieces.q_first, pieces.kv_last)):
            if len(pieces):
                truths = truths_at((q, q), (kv, kv))
                visible[pieces.owner[truths == Truth.ALWAYS]] = True
                hidden[pieces.owner[truths == Truth.NEVER]] = True
        is_open |= n_boxes > most
        is_decided = visible & hidden
        pieces = pieces.at(np.flatnonzero(~(is_decided | is_open)[pieces.owner]))
        if len(pieces) and jumps is None:
            jumps = _jumps(mask, tiles, geometry, facts)
        if jumps is not None:
            pieces = _cut(pieces, q_idx[0], kv_idx[0], jumps)
    return Refined(visible, hidden, is_open & ~(visible & hidden))


def _jumps(
    mask: Expr, tiles: Rectangles, geometry: Geometry, facts: Facts
) -> tuple[Floats, Floats]:
    """How much jumps between each row of a tile and the one before it, and likewise columns.

    (n_tiles, block_m) and (n_tiles, block_n): sums over the greatest expressions that depend on
    the row (or column) alone, each with its largest jump in the tile as 1.
    """
    q_idx, kv_idx = positions(tiles, geometry)
    rows, columns = np.zeros(q_idx.shape, np.float32), np.zeros(kv_idx.shape, np.float32)
    for atom, level in _atoms(mask, facts):
        side, places = (rows, q_idx) if level is Level.ROW else (columns, kv_idx)
        values = evaluated(atom, tiles, places, places, geometry, facts)
        side += _relative_jumps(values.to(torch.float64).numpy())
    return rows, columns


def _atoms(mask: Expr, facts: Facts) -> Iterator[tuple[Expr, Level]]:
    """The greatest parts of ``mask`` that depend on its row alone or on its column alone."""
    levels = dict(facts.levels_of(mask))
    one_sided = (Level.ROW, Level.COLUMN)
    found = {
        child: levels[child]
        for node, level in levels.items()
        if level is Level.ELEMENT
        for child in node.children
        if levels[child] in one_sided and not isinstance(child, Index)
    }
    if levels[mask] in one_sided:
        found[mask] = levels[mask]
    yield from found.items()


def _relative_jumps(values: NDArray[np.float64]) -> Floats:
    """Of lines (n_lines, n), how far each step is from the usual one; the largest in a line is 1."""
    steps = np.diff(np.nan_to_num(values), axis=1)
    jumps = np.abs(steps - np.median(steps, axis=1, keepdims=True)) if steps.size else steps
    largest = jumps.max(axis=1, keepdims=True, initial=0)
    result = np.zeros(values.shape, np.float32)
    result[:, 1:] = jumps / np.where(largest > 0, largest, 1)
    return result


def _cut(
    pieces: _Pieces, first_row: Ints, first_column: Ints, jumps: tuple[Floats, Floats]
) -> _Pieces:
    """Pieces cut in each axis where most jumps."""
    q_cut = _cuts(pieces.owner, pieces.q_first, pieces.q_last, first_row, jumps[0])
    kv_cut = _cuts(pieces.owner, pieces.kv_first, pieces.kv_last, first_column, jumps[1])
    parts = [
        _Pieces(pieces.owner, *q, *kv)
        for q in ((pieces.q_first, q_cut - 1), (q_cut, pieces.q_last))
        for kv in ((pieces.kv_first, kv_cut - 1), (kv_cut, pieces.kv_last))
    ]
    joined = _Pieces(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("owner", "q_first", "q_last", "kv_first", "kv_last")
        )
    )
    # The cut of a single row lies at its own place: nothing is before it.
    holds = (joined.q_first <= joined.q_last) & (joined.kv_first <= joined.kv_last)
    return joined.at(np.flatnonzero(holds))


def _cuts(owner: Ints, first: Ints, last: Ints, start: Ints, jumps: Floats) -> Ints:
    """Where to cut each interval: the first token of its second part."""
    cuts = np.empty_like(first)
    n = jumps.shape[1]
    places = np.arange(n)
    for begin in range(0, len(owner), max(_MAX_SCORES // n, 1)):
        part = slice(begin, begin + max(_MAX_SCORES // n, 1))
        base = start[owner[part]]
        low, high = (first[part] - base)[:, None], (last[part] - base)[:, None]
        # Among equal jumps the most central.
        central = np.abs(2 * places - low - high - 1) / np.float32(1e4 * n)
        scores = np.where((places > low) & (places <= high), jumps[owner[part]] - central, -np.inf)
        best = np.argmax(scores, axis=1)
        cuts[part] = np.where(low[:, 0] == high[:, 0], low[:, 0], best) + base
    return cuts
