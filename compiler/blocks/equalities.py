"""Kinds of tiles of masks that compare rows with columns for equality, by the sets of their values.

``window(q_idx) == window(kv_idx)`` is visible in a tile where a value of its rows is one of its
columns. Intervals do not see that where values of a tile lie around those of another; sets take
one look at each row and column, not at their pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnc.blocks.geometry import Geometry, Ints, Rectangles
from attnc.blocks.values import evaluated
from attnc.conjunction import conjuncts
from attnc.intervals import Facts
from attnc.ir import Compare, CompareOp, Expr, Level

Flags = NDArray[np.bool_]

_MAX_MEMBERS = 1 << 24  # of all sets, were each to hold all values
_MAX_BYTES = 1 << 22
_MAX_CONDITIONS = 8


@dataclass(frozen=True)
class Compared:
    """Of each tile, whether a visible and whether a hidden pair was found, and if that is all."""

    visible: Flags
    hidden: Flags
    decided: Flags


def compared(mask: Expr, tiles: Rectangles, geometry: Geometry, facts: Facts) -> Compared | None:
    """What the values of rows and columns tell of tiles; None if the mask compares none.

    If it has other conditions too, only tiles without an equal pair, which are EMPTY, are decided.
    """
    levels = dict(facts.levels_of(mask))
    rows, columns, others = [], [], False
    for condition in conjuncts(mask):
        match condition:
            case Compare(CompareOp.EQ, x, y) if not x.dtype.is_float:
                sides = {levels[x]: x, levels[y]: y}
                if sides.keys() == {Level.ROW, Level.COLUMN}:
                    rows.append(sides[Level.ROW])
                    columns.append(sides[Level.COLUMN])
                    continue
        others = True
    if not rows or len(rows) > _MAX_CONDITIONS or not len(tiles):
        return None
    group, _ = np.broadcast_arrays(tiles.group, tiles.row)
    height, width = geometry.block_m, geometry.block_n
    row = _Lines.of(group, tiles.row, height, geometry.n_queries)
    column = _Lines.of(group, tiles.column, width, geometry.n_keys)
    n_rows = row.places.size
    numbers: Ints = np.zeros(n_rows + column.places.size, np.int64)
    for x, y in zip(rows, columns, strict=True):
        values = [line.values_of(e, geometry, facts) for line, e in ((row, x), (column, y))]
        _, found = np.unique(np.concatenate(values), return_inverse=True)
        _, numbers = np.unique(numbers * len(found) + found.ravel(), return_inverse=True)
        numbers = numbers.ravel()
    n_values = int(numbers.max()) + 1
    if n_values * (len(row.places) + len(column.places)) > _MAX_MEMBERS:
        return None
    of_rows = numbers[:n_rows].reshape(row.places.shape)
    of_columns = numbers[n_rows:].reshape(column.places.shape)
    meets = np.empty(len(tiles), bool)
    row_sets, column_sets = _sets(of_rows, n_values), _sets(of_columns, n_values)
    for part in _slices(len(tiles), max(_MAX_BYTES // row_sets.shape[1], 1)):
        both = row_sets[row.number[part]] & column_sets[column.number[part]]
        meets[part] = both.any(1)
    same = np.ones(len(tiles), bool)
    for numbers_of, line in ((of_rows, row), (of_columns, column)):
        same &= (numbers_of == numbers_of[:, :1]).all(1)[line.number]
    hidden = ~(meets & same)
    if others:
        return Compared(np.zeros(len(tiles), bool), hidden, ~meets)
    return Compared(meets, hidden, np.ones(len(tiles), bool))


@dataclass(frozen=True)
class _Lines:
    """The rows (or columns) of tokens of tiles, each once; ``number``: that of each tile."""

    group: Ints
    places: Ints
    number: Ints

    @staticmethod
    def of(group: Ints, block: Ints, size: int, length: int) -> _Lines:
        """``places``: (n_lines, size), beyond ``length`` its last token."""
        n_blocks = -(-length // size)
        keys, number = np.unique(group * n_blocks + block, return_inverse=True)
        groups, blocks = np.divmod(keys, n_blocks)
        places = np.minimum(blocks[:, None] * size + np.arange(size), length - 1)
        return _Lines(groups, places, number.ravel())

    def values_of(self, expr: Expr, geometry: Geometry, facts: Facts) -> Ints:
        values = evaluated(expr, self.group, self.places, self.places, geometry, facts)
        return np.asarray(values.numpy().astype(np.int64).ravel())


def _sets(values: Ints, n_values: int) -> NDArray[np.uint8]:
    """The values of each line (n_lines, size) as bits."""
    members = np.zeros((len(values), n_values), bool)
    members[np.arange(len(values))[:, None], values] = True
    return np.packbits(members, axis=1)


def _slices(n: int, size: int) -> Iterator[slice]:
    for first in range(0, n, size):
        yield slice(first, first + size)
