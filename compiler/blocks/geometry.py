"""Where tiles lie: sizes of a problem, rectangles of tiles, and the truth of a mask on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from attnc.intervals import Boxes, Facts, Products, Side, truth_of
from attnc.intervals.boxes import Truths
from attnc.ir import Expr

Ints = NDArray[np.int64]

_MAX_BOXES = 1 << 17


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
    def n_groups(self) -> int:
        """Pairs of a batch and a head."""
        return self.n_batch * self.n_heads

    @property
    def n_q_blocks(self) -> int:
        return -(-self.n_queries // self.block_m)

    @property
    def n_kv_blocks(self) -> int:
        return -(-self.n_keys // self.block_n)


@dataclass(frozen=True)
class Rectangles:
    """Rectangles of tiles of one size: place in units of that size, and (batch, head) number.

    ``row, column``: (n,); ``group``: (n,), or (1,) where there is one for all.
    """

    group: Ints
    row: Ints
    column: Ints

    def __len__(self) -> int:
        return len(self.row)

    def at(self, where: Ints) -> Rectangles:
        group = self.group if len(self.group) == 1 else self.group.take(where)
        return Rectangles(group, self.row.take(where), self.column.take(where))

    def parts(self, size: int) -> Iterator[Rectangles]:
        for first in range(0, len(self), size):
            part = slice(first, first + size)
            group = self.group if len(self.group) == 1 else self.group[part]
            yield Rectangles(group, self.row[part], self.column[part])


@dataclass(frozen=True, eq=False)
class Axis:
    """Intervals of tokens by number, both ends inclusive: those of rows or of columns."""

    first: Ints
    last: Ints
    geometry: Geometry

    def __len__(self) -> int:
        return len(self.first)

    @staticmethod
    def of(size: int, length: int, geometry: Geometry) -> Axis:
        """All blocks of ``size`` tokens."""
        return Axis(*tokens(np.arange(-(-length // size)), size, length), geometry)

    @property
    def firsts(self) -> Axis:
        return Axis(self.first, self.first, self.geometry)

    @property
    def lasts(self) -> Axis:
        return Axis(self.last, self.last, self.geometry)

    @cached_property
    def side(self) -> Side:
        """All intervals, those of the next (batch, head) after those of the last."""
        n_groups = self.geometry.n_groups
        group = np.arange(n_groups).repeat(len(self))
        return side(
            group, (np.tile(self.first, n_groups), np.tile(self.last, n_groups)), self.geometry
        )

    def numbered(self, front: Rectangles, places: Ints) -> tuple[Side, Ints]:
        """``side`` and the numbers in it of these places of ``front``."""
        if self.geometry.n_groups == 1:
            return self.side, places
        return self.side, front.group * len(self) + places

    def alone(self, front: Rectangles, places: Ints) -> tuple[Side, None]:
        """A side of these places of ``front`` only."""
        return side(
            front.group, (self.first.take(places), self.last.take(places)), self.geometry
        ), None


def axes_of(height: int, width: int, geometry: Geometry) -> tuple[Axis, Axis]:
    """Rows of ``height`` and columns of ``width`` tokens; one object where they are equal."""
    rows = Axis.of(height, geometry.n_queries, geometry)
    if (height, geometry.n_queries) == (width, geometry.n_keys):
        return rows, rows
    return rows, Axis.of(width, geometry.n_keys, geometry)


def truths_on(mask: Expr, front: Rectangles, axes: tuple[Axis, Axis], facts: Facts) -> Truths:
    """Truth of ``mask`` on products of numbered rows and columns of ``axes``."""
    truths = []
    for part in front.parts(_MAX_BOXES):
        (rows, row), (columns, column) = (
            axis.numbered(part, places)
            if len(axis) * axis.geometry.n_groups <= len(front)
            else axis.alone(part, places)
            for axis, places in zip(axes, (part.row, part.column), strict=True)
        )
        truths.append(truth_of(mask, Products(rows, columns, row, column), facts))
    return np.concatenate(truths) if truths else np.zeros(0, np.int8)


def tokens(block: Ints, size: int, length: int) -> tuple[Ints, Ints]:
    """First and last token of blocks of ``size`` tokens."""
    first = block * size
    return first, np.minimum(first + (size - 1), length - 1)


def side(group: Ints, ends: tuple[Ints, Ints], geometry: Geometry) -> Side:
    """Rows or columns of boxes: first and last token of each, and its (batch, head) number."""
    b = h = np.zeros(1, np.int64)
    if geometry.n_heads == 1:
        b = group if geometry.n_batch > 1 else b
    elif geometry.n_batch == 1:
        h = group
    else:
        b, h = np.divmod(group, geometry.n_heads)
    return Side(Boxes((b, b), (h, h), ends, ends))
