"""Orders of the tokens of a grid, and of tokens with captured numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch

from attnc import checks
from attnc.errors import LayoutArgumentError
from attnc.layout.order import Layout, ShiftedLayout, TableLayout, from_order, shown, strided

Sizes = int | Sequence[int]


def raster(grid: Sizes) -> Layout:
    """The tokens' own order: row-major, as they are.

    Args:
        grid: Sizes of the axes, slowest first; or the number of tokens.
    """
    axes = _axes(grid)
    return strided("raster", [(math.prod(axes), 1)])


def tiled(
    grid: Sizes, tile: Sizes, axes: Sequence[int] | None = None, *, shift: Sizes = 0
) -> Layout:
    """Tile after tile; inside of each row-major.

    Args:
        grid: Sizes of the axes, slowest first.
        tile: Cells of a tile along each axis; one for all, or one per axis. Where it does not
            divide an axis the last tiles are smaller.
        axes: Order of the axes, slowest first, among the tiles and inside of them.
        shift: Cells by which tiles move towards the end of each axis, as shifted windows do; the
            last ones go around. One for all, or one per axis; where tiles divide the axes.
    """
    sizes = _axes(grid)
    tiles = _per_axis("tile", tile, sizes)
    order = _order_of_axes(axes, len(sizes))
    name = f"tiles of {' x '.join(map(str, tiles))}"
    if order != sorted(order):
        name += f", axes {', '.join(map(str, order))}"
    strides = [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
    given = checks.items(shift)
    moves = [
        checks.whole_number(move) for move in ([shift] * len(sizes) if given is None else given)
    ]
    if len(moves) != len(sizes) or None in moves:
        problem = f"give an int for each of the {len(sizes)} axes, or one for all"
        raise LayoutArgumentError(argument="shift", value=shown(shift), problem=problem)
    shifts = [(move or 0) % size for move, size in zip(moves, sizes, strict=True)]
    divides = all(size % cells == 0 for size, cells in zip(sizes, tiles, strict=True))
    if any(shifts):
        name += f", shifted by {' x '.join(map(str, shifts))}"
        if not divides:
            problem = f"tiles of {tiles} do not divide the axes {sizes}, so they cannot go around"
            raise LayoutArgumentError(argument="shift", value=shift, problem=problem)
    if divides:
        outer = [(sizes[a] // tiles[a], strides[a] * tiles[a]) for a in order]
        inner = strided(name, outer + [(tiles[a], strides[a]) for a in order])
        if not any(shifts):
            return inner
        return ShiftedLayout(name, inner.n_tokens, inner, tuple(zip(sizes, shifts, strict=True)))
    places = torch.arange(math.prod(sizes)).reshape(sizes)
    corners = (range(0, sizes[a], tiles[a]) for a in order)
    parts = []
    for corner in itertools.product(*corners):
        cut = dict(zip(order, corner, strict=True))
        window = tuple(slice(cut[a], cut[a] + tiles[a]) for a in range(len(sizes)))
        parts.append(places[window].permute(order).flatten())
    return TableLayout(name, places.numel(), torch.cat(parts).to(torch.int32))


def transposed(grid: Sizes, axes: Sequence[int]) -> Layout:
    """Row-major after a change of axes: (2, 0, 1) has the last axis slowest.

    Args:
        grid: Sizes of the axes, slowest first.
        axes: Which axis is slowest, next, ..., fastest.
    """
    order = _order_of_axes(axes, len(_axes(grid)))
    layout = tiled(grid, 1, order)
    return strided(f"axes {', '.join(map(str, order))}", layout.modes)  # type: ignore[attr-defined]


def dilated(grid: Sizes, dilation: Sizes) -> Layout:
    """Cells of one remainder along every axis together: neighbours of dilated windows.

    Args:
        grid: Sizes of the axes, slowest first.
        dilation: Distance along each axis of cells that come together; one for all, or one per
            axis.
    """
    sizes = _axes(grid)
    steps = _per_axis("dilation", dilation, sizes)
    name = f"groups of dilation {' x '.join(map(str, steps))}"
    strides = [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
    if all(size % step == 0 for size, step in zip(sizes, steps, strict=True)):
        groups = list(zip(steps, strides, strict=True))
        inside = [
            (size // step, stride * step)
            for size, step, stride in zip(sizes, steps, strides, strict=True)
        ]
        return strided(name, groups + inside)
    places = torch.arange(math.prod(sizes)).reshape(sizes)
    parts = [
        places[tuple(slice(first, None, step) for first, step in zip(group, steps, strict=True))]
        for group in itertools.product(*(range(step) for step in steps))
    ]
    return TableLayout(
        name, places.numel(), torch.cat([part.flatten() for part in parts]).to(torch.int32)
    )


def morton(grid: Sizes) -> Layout:
    """Along a Z-order curve: the bits of the coordinates by turns.

    Args:
        grid: Sizes of the axes, slowest first, each a power of two.

    Source: Morton 1966.
    """
    sizes = _axes(grid)
    for size in sizes:
        if size & (size - 1):
            problem = "every axis must be a power of two"
            raise LayoutArgumentError(argument="grid", value=tuple(sizes), problem=problem)
    modes = []
    for bit in reversed(range(max(sizes).bit_length() - 1)):
        for axis, size in enumerate(sizes):
            if 1 << bit < size:
                modes.append((2, math.prod(sizes[axis + 1 :]) << bit))
    return strided("Morton order", modes or [(1, 1)])


def sorted_by(ids: torch.Tensor, name: str = "sorted") -> Layout:
    """Tokens of one id together, in the order of the ids.

    Args:
        ids: (n,), integers or real numbers.
        name: For people.
    """
    if not isinstance(ids, torch.Tensor) or not checks.is_readable(ids) or ids.dim() != 1:
        raise LayoutArgumentError(argument="ids", value=shown(ids), problem="give a tensor (n,)")
    if ids.dtype not in checks.REALS:
        problem = "give integers or real numbers"
        raise LayoutArgumentError(argument="ids", value=shown(ids), problem=problem)
    return from_order(torch.argsort(ids, stable=True), name)


def _axes(grid: Sizes) -> list[int]:
    given = checks.items(grid)
    sizes = [checks.size(size, least=1) for size in ([grid] if given is None else given)]
    found = [size for size in sizes if size is not None]
    if not sizes or len(found) < len(sizes):
        problem = "give the sizes of its axes, slowest first, ints of 1 or more"
        raise LayoutArgumentError(argument="grid", value=shown(grid), problem=problem)
    if math.prod(found) > checks.LONGEST:
        problem = f"it has more than {checks.LONGEST} tokens"
        raise LayoutArgumentError(argument="grid", value=shown(grid), problem=problem)
    return found


def _order_of_axes(axes: Any, n: int) -> list[int]:
    """Each of ``n`` axes once; in their own order if None."""
    if axes is None:
        return list(range(n))
    order = [checks.whole_number(axis) for axis in checks.items(axes) or ()]
    found = [axis for axis in order if axis is not None]
    if sorted(found) != list(range(n)) or len(order) != n:
        problem = f"give each of the axes 0 to {n - 1} once"
        raise LayoutArgumentError(argument="axes", value=shown(axes), problem=problem)
    return found


def _per_axis(argument: str, value: Sizes, axes: list[int]) -> list[int]:
    sizes = checks.sizes(value, len(axes), least=1)
    if sizes is None:
        problem = f"give an int of 1 or more for each of the {len(axes)} axes, or one for all"
        raise LayoutArgumentError(argument=argument, value=shown(value), problem=problem)
    return [min(size, length) for size, length in zip(sizes, axes, strict=True)]
