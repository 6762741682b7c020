"""Masks of images and videos: tokens of a grid in row-major order, 1 to 3 axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from attnc import checks
from attnc.errors import LibraryArgumentError
from attnc.library.entry import argument_error, entry, require_flag, require_sizes
from attnc.mods import Mod

_FAMILY = "grids"
_MAX_AXES = 3

Sizes = int | Sequence[int]


@entry(
    _FAMILY,
    example="neighborhood((8, 8), 3)",
    shape=(1, 1, 64, 64),
    source="Hassani et al. (NATTEN), arXiv:2204.07143, dilated arXiv:2209.15001; strides: GNA, "
    "arXiv:2504.16922",
)
def neighborhood(
    grid: Sequence[int],
    kernel_size: Sizes,
    *,
    dilation: Sizes = 1,
    stride: Sizes = 1,
    is_causal: bool | Sequence[bool] = False,
) -> Mod:
    """Each cell sees the ``kernel_size`` cells around it along every axis, and all between axes.

    The window keeps its size: at a border it moves inwards. On a causal axis it ends at the cell
    and is cut off at the border instead.

    Args:
        grid: Sizes of the axes, slowest first: 1 to 3 of them.
        kernel_size: Cells seen along each axis; one for all, or one per axis.
        dilation: Distance of the cells seen; ``dilation * kernel_size`` must fit into the axis.
        stride: Cells that share one window, that of their leader, the one in their middle.
        is_causal: Axes along which no later cell is seen.
    """
    name = "neighborhood"
    axes = _grid(name, grid)
    sizes = _per_axis(name, "kernel_size", kernel_size, axes)
    dilations = _per_axis(name, "dilation", dilation, axes)
    strides = _per_axis(name, "stride", stride, axes)
    given = checks.items(is_causal)
    causals: list[Any] = [is_causal] * len(axes) if given is None else given
    for each in causals:
        require_flag(name, "is_causal", each)
    if len(causals) != len(axes):
        raise _one_per_axis(name, "is_causal", is_causal, axes)
    for length, size, step, jump in zip(axes, sizes, dilations, strides, strict=True):
        if size * step > length:
            problem = f"{size} cells {step} apart do not fit into an axis of {length}"
            raise argument_error(name, "kernel_size", kernel_size, problem)
        if jump > size:
            problem = f"{jump} cells would share a window of {size}; use at most kernel_size"
            raise argument_error(name, "stride", stride, problem)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        seen = True
        for number, length in enumerate(axes):
            q, kv = _along(axes, number, q_idx), _along(axes, number, kv_idx)
            seen = seen & _is_neighbor(
                *(q, kv, length, sizes[number], dilations[number]),
                *(strides[number], causals[number]),
            )
        return seen

    return mask


@entry(
    _FAMILY,
    example="windows((8, 8), 4, shift=2)",
    shape=(1, 1, 64, 64),
    source="Liu et al. 2021 (Swin), arXiv:2103.14030, section 3.2",
)
def windows(grid: Sequence[int], size: Sizes, *, shift: Sizes = 0) -> Mod:
    """Each cell sees its own window; the grid is cut into windows of ``size`` cells.

    Args:
        grid: Sizes of the axes, slowest first: 1 to 3 of them.
        size: Cells of a window along each axis; one for all, or one per axis.
        shift: Cells by which windows move towards the end of each axis. Those that the shift cuts
            apart stay apart, as cyclic shifts with a mask do it.
    """
    axes = _grid("windows", grid)
    sizes = _per_axis("windows", "size", size, axes)
    shifts = _per_axis("windows", "shift", shift, axes, least=0)
    starts = [move % length for move, length in zip(shifts, sizes, strict=True)]

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        seen = True
        for number in range(len(axes)):
            q, kv = _along(axes, number, q_idx), _along(axes, number, kv_idx)
            ahead = (sizes[number] - starts[number]) % sizes[number]
            seen = seen & ((q + ahead) // sizes[number] == (kv + ahead) // sizes[number])
        return seen

    return mask


@entry(
    _FAMILY,
    example="sliding_tiles((8, 8), 2, 3)",
    shape=(1, 1, 64, 64),
    source="Zhang et al. 2025 (sliding tile attention), arXiv:2502.04507",
)
def sliding_tiles(grid: Sequence[int], tile: Sizes, n_tiles: Sizes) -> Mod:
    """Each tile of cells sees the ``n_tiles`` tiles around it along every axis.

    The window moves by whole tiles and keeps its size: at a border it moves inwards.

    Args:
        grid: Sizes of the axes, slowest first: multiples of ``tile``.
        tile: Cells of a tile along each axis; one for all, or one per axis.
        n_tiles: Tiles of the window along each axis; one for all, or one per axis.
    """
    name = "sliding_tiles"
    axes = _grid(name, grid)
    tiles = _per_axis(name, "tile", tile, axes)
    numbers = _per_axis(name, "n_tiles", n_tiles, axes)
    for length, cells, seen_tiles in zip(axes, tiles, numbers, strict=True):
        if length % cells:
            raise argument_error(
                name, "tile", tile, f"an axis of {length} is no whole number of tiles"
            )
        if cells * seen_tiles > length:
            problem = f"{seen_tiles} tiles of {cells} do not fit into an axis of {length}"
            raise argument_error(name, "n_tiles", n_tiles, problem)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        seen = True
        for number, length in enumerate(axes):
            cells = tiles[number]
            q = _along(axes, number, q_idx) // cells
            kv = _along(axes, number, kv_idx) // cells
            seen = seen & _is_neighbor(q, kv, length // cells, numbers[number], 1, 1, False)
        return seen

    return mask


@entry(
    _FAMILY,
    example="axial((8, 8), 1)",
    shape=(1, 1, 64, 64),
    source="Ho et al. 2019 (axial transformers), arXiv:1912.12180",
)
def axial(grid: Sequence[int], axis: int) -> Mod:
    """Each cell sees the cells that differ from it along one axis only.

    Args:
        grid: Sizes of the axes, slowest first: 1 to 3 of them.
        axis: The one along which is seen: ``axial((H, W), 1)`` is a cell's own row.
    """
    axes = _grid("axial", grid)
    if isinstance(axis, bool) or not isinstance(axis, int) or not 0 <= axis < len(axes):
        raise argument_error("axial", "axis", axis, f"the grid has the axes 0 to {len(axes) - 1}")

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        seen = True
        for number in range(len(axes)):
            if number != axis:
                seen = seen & (_along(axes, number, q_idx) == _along(axes, number, kv_idx))
        return seen

    return mask


def _is_neighbor(
    q: Any, kv: Any, length: int, size: int, dilation: int, stride: int, is_causal: bool
) -> Any:
    """Whether one axis lets q see kv; see ``neighborhood``."""
    if dilation == 1:
        q_place, kv_place, n_places, same_group = q, kv, length, True
    else:  # cells of one remainder form an axis of their own
        group = q % dilation
        q_place, kv_place = q // dilation, kv // dilation
        n_places = (length - group + dilation - 1) // dilation
        same_group = kv % dilation == group
    if is_causal:
        last = q_place if stride == 1 else _clamp(_leader_end(q_place, stride), n_places - 1)
        return same_group & (kv_place <= last) & (last - kv_place < size) & (kv_place <= q_place)
    leader = q_place if stride == 1 else _clamp(_leader(q_place, stride), n_places - 1)
    first = torch.clamp(leader - size // 2, min=0)
    first = _clamp(first, n_places - size)
    return same_group & (kv_place >= first) & (kv_place < first + size)


def _leader(place: Any, stride: int) -> Any:
    return place // stride * stride + stride // 2


def _leader_end(place: Any, stride: int) -> Any:
    return place // stride * stride + stride - 1


def _clamp(value: Any, largest: Any) -> Any:
    if isinstance(largest, int):
        return torch.clamp(value, max=largest)
    return torch.minimum(value, largest)


def _along(axes: Sequence[int], number: int, index: Any) -> Any:
    """Coordinate of a token along one axis."""
    below = math.prod(axes[number + 1 :])
    place = index if below == 1 else index // below
    return place if number == 0 else place % axes[number]


def _grid(name: str, grid: Any) -> list[int]:
    sizes = checks.items(grid) or [grid]
    if not 1 <= len(sizes) <= _MAX_AXES:
        raise argument_error(name, "grid", grid, f"give the sizes of 1 to {_MAX_AXES} axes")
    for size in sizes:
        require_sizes(name, grid=size)
    if math.prod(sizes) > checks.LONGEST:
        raise argument_error(name, "grid", grid, f"it has more than {checks.LONGEST} cells")
    return sizes


def _per_axis(name: str, argument: str, value: Any, axes: list[int], least: int = 1) -> list[int]:
    given = checks.items(value)
    values = [value] * len(axes) if given is None else given
    if len(values) != len(axes):
        raise _one_per_axis(name, argument, value, axes)
    for each in values:
        require_sizes(name, least, **{argument: each})
    return values


def _one_per_axis(name: str, argument: str, value: Any, axes: list[int]) -> LibraryArgumentError:
    return argument_error(
        name, argument, value, f"give one for each of the {len(axes)} axes, or one"
    )
