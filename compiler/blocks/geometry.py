"""Where tiles lie: sizes of a problem, rectangles of tiles, and the truth of a mask on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    def n_q_blocks(self) -> int:
        return -(-self.n_queries // self.block_m)

    @property
    def n_kv_blocks(self) -> int:
        return -(-self.n_keys // self.block_n)


@dataclass(frozen=True)
class Rectangles:
    """Rectangles of tiles of one size: place in units of that size, and (batch, head) number."""

    group: Ints
    row: Ints
    column: Ints

    def __len__(self) -> int:
        return len(self.group)

    def at(self, where: Ints) -> Rectangles:
        return Rectangles(*(x.take(where) for x in (self.group, self.row, self.column)))

    def parts(self, size: int) -> Iterator[Rectangles]:
        for first in range(0, len(self), size):
            part = slice(first, first + size)
            yield Rectangles(self.group[part], self.row[part], self.column[part])


def tokens(block: Ints, size: int, length: int) -> tuple[Ints, Ints]:
    first = block * size
    return first, np.minimum(first + (size - 1), length - 1)


def tokens_of(size: int, length: int) -> tuple[Ints, Ints]:
    """First and last token of every block of ``size`` tokens."""
    return tokens(np.arange(-(-length // size)), size, length)


def truths_on(
    mask: Expr,
    front: Rectangles,
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
        side(groups.repeat(len(axis[0])), [np.tile(end, n_groups) for end in axis], geometry)
        if n_groups * len(axis[0]) <= len(front)
        else None
        for axis in axes
    ]
    truths = []
    for part in front.parts(_MAX_BOXES):
        numbered: list[tuple[Side, Ints | None]] = []
        for known, place, axis in zip(sides, (part.row, part.column), axes, strict=True):
            if known is None:
                own = side(part.group, [end.take(place) for end in axis], geometry)
                numbered.append((own, None))
            elif n_groups == 1:
                numbered.append((known, place))
            else:
                numbered.append((known, part.group * len(axis[0]) + place))
        (rows, row), (columns, column) = numbered
        truths.append(truth_of(mask, Products(rows, columns, row, column), facts))
    return np.concatenate(truths) if truths else np.zeros(0, np.int8)


def side(group: Ints, ends: Sequence[Ints], geometry: Geometry) -> Side:
    """Rows or columns of boxes: first and last token of each, and its (batch, head) number."""
    b, h = _batch_and_head(group, geometry)
    first, last = ends
    return Side(Boxes((b, b), (h, h), (first, last), (first, last)))


def _batch_and_head(group: Ints, geometry: Geometry) -> tuple[Ints, Ints]:
    """Their numbers, (n,) each, or (1,) where there is only one."""
    nothing = np.zeros(1, np.int64)
    if geometry.n_batch == 1:
        return nothing, nothing if geometry.n_heads == 1 else group
    if geometry.n_heads == 1:
        return group, nothing
    b, h = np.divmod(group, geometry.n_heads)
    return b, h
