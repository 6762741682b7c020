"""Masks of published systems over images and video."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.mask_catalogue.entry import Entry, Mod, int32, square

_KINDS = int32(0, 1, 0, 1)  # of heads: in space, in time


def row_column(i: Any, width: int = 64) -> tuple[Any, Any]:
    return i // width, i % width


def views_and_times(b: Any, h: Any, q: Any, kv: Any) -> Any:
    a, c = q // 64, kv // 64
    return (a // 8 == c // 8) | (a % 8 == c % 8)


def tile_major(i: Any) -> tuple[Any, Any]:
    """Row and column in a 64x64 image stored in tiles of 8 x 16."""
    tile, place = i // 128, i % 128
    return tile // 4 * 8 + place // 16, tile % 4 * 16 + place % 16


def circle(order: Callable[[Any], tuple[Any, Any]]) -> Mod:
    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        (q_row, q_column), (kv_row, kv_column) = order(q - 512), order(kv - 512)
        dy, dx = q_row - kv_row, q_column - kv_column
        return (q < 512) | (kv < 512) | (dy * dy + dx * dx < 64)

    return mask


def frame_major(b: Any, h: Any, q: Any, kv: Any) -> Any:
    spatial = (q - kv).abs() < 2 * 256
    temporal = ((q - 256) % 256 - (kv - 256) % 256).abs() < 32
    return (q < 256) | (kv < 256) | torch.where(_KINDS[h] == 0, spatial, temporal)


def token_major(b: Any, h: Any, q: Any, kv: Any) -> Any:
    return (q < 256) | (kv < 256) | (((q - 256) // 16 - (kv - 256) // 16).abs() < 32)


def neighbourhood(
    sizes: tuple[int, ...],
    windows: tuple[int, ...],
    strides: tuple[int, ...],
    order: Callable[[Any], tuple[Any, ...]],
) -> Mod:
    def axis(q: Any, kv: Any, size: int, window: int, stride: int) -> Any:
        before, after = window // 2, (window - 1) // 2
        leader = ((q // stride) * stride + stride // 2).clamp(max=size - 1)
        centre = leader.clamp(before, size - 1 - after)
        return (centre - kv <= before) & (kv - centre <= after)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        parts = zip(order(q), order(kv), sizes, windows, strides, strict=True)
        result = None
        for part in parts:
            inside = axis(*part)
            result = inside if result is None else result & inside
        return result

    return mask


def volume(i: Any) -> tuple[Any, Any, Any]:
    return i // 256, i // 16 % 16, i % 16


def volume_tiles(i: Any) -> tuple[Any, Any, Any]:
    """Places in 16^3 stored in tiles of 4 x 4 x 8."""
    tile, place = i // 128, i % 128
    return (
        tile // 8 * 4 + place // 32,
        tile // 2 % 4 * 4 + place // 8 % 4,
        tile % 2 * 8 + place % 8,
    )


def halo(b: Any, h: Any, q: Any, kv: Any) -> Any:
    (row, column), (kv_row, kv_column) = row_column(q), row_column(kv)
    top, left = row // 8 * 8, column // 8 * 8
    inside_rows = (kv_row >= top - 3) & (kv_row < top + 11)
    return inside_rows & (kv_column >= left - 3) & (kv_column < left + 11)


def upper_left(b: Any, h: Any, q: Any, kv: Any) -> Any:
    dy = q // 64 // 16 - kv // 64 // 16
    dx = q % 64 // 16 - kv % 64 // 16
    return (dy >= 0) & (dy <= 1) & (dx >= 0) & (dx <= 1)


def upper_left_blocks(b: Any, h: Any, q: Any, kv: Any) -> Any:
    a, c = q // 256, kv // 256
    dy, dx = a // 4 - c // 4, a % 4 - c % 4
    return (dy >= 0) & (dy <= 1) & (dx >= 0) & (dx <= 1)


def dilated(dilation: int, window: int, size: int) -> Mod:
    def axis(q: Any, kv: Any) -> Any:
        group, place = q % dilation, q // dilation
        n_places = (size - group + dilation - 1) // dilation
        first = torch.minimum((place - window // 2).clamp(min=0), n_places - window)
        in_window = (kv // dilation >= first) & (kv // dilation < first + window)
        return (kv % dilation == group) & in_window

    return lambda b, h, q, kv: axis(q // size, kv // size) & axis(q % size, kv % size)


def causal_time(b: Any, h: Any, q: Any, kv: Any) -> Any:
    (t, y, x), (kv_t, kv_y, kv_x) = volume(q), volume(kv)
    return (kv_t <= t) & (t - kv_t < 4) & ((y - kv_y).abs() <= 3) & ((x - kv_x).abs() <= 3)


def inward(b: Any, h: Any, q: Any, kv: Any) -> Any:
    def axis(i: Any, j: Any, size: int, half: int) -> Any:
        upper = i + half + (half - i).clamp(min=0)
        lower = i - half - (half + i - size + 1).clamp(min=0)
        return (j <= upper) & (j >= lower)

    i, j = q % 2048, kv % 2048
    return axis(i // 64, j // 64, 32, 6) & axis(i % 64, j % 64, 64, 10)


def region(i: Any) -> Any:
    row, column = (i // 56 + 56 - 3) % 56, (i % 56 + 56 - 3) % 56
    seam = (row >= 53).int() * 2 + (column >= 53).int()
    return (row // 7) * 64 + (column // 7) * 8 + seam


def windows(b: Any, h: Any, q: Any, kv: Any) -> Any:
    (row, column), (kv_row, kv_column) = row_column(q, 56), row_column(kv, 56)
    return (row // 7 == kv_row // 7) & (column // 7 == kv_column // 7)


def overlapping(b: Any, h: Any, q: Any, kv: Any) -> Any:
    (row, column), (kv_row, kv_column) = row_column(q), row_column(kv)
    top, left = row // 16 * 16 - 4, column // 16 * 16 - 4
    rows = (kv_row >= top) & (kv_row < top + 24)
    return rows & (kv_column >= left) & (kv_column < left + 24)


def time_frequency(b: Any, h: Any, q: Any, kv: Any) -> Any:
    time, band = (q // 8 + 2) // 4, (q % 8 + 2) // 4
    return (time == (kv // 8 + 2) // 4) & (band == (kv % 8 + 2) // 4)


def spacetime_windows(b: Any, h: Any, q: Any, kv: Any) -> Any:
    (_, y, x), (_, kv_y, kv_x) = volume(q), volume(kv)
    return (y // 4 == kv_y // 4) & (x // 4 == kv_x // 4)


def axes(b: Any, h: Any, q: Any, kv: Any) -> Any:
    return (q // 64 == kv // 64) | (q % 64 == kv % 64)


def twins(b: Any, h: Any, q: Any, kv: Any) -> Any:
    return (kv // 64 % 8 == 0) & (kv % 64 % 8 == 0)


def scales(i: Any) -> Any:
    """Which of five square scales of an image a token belongs to."""
    return (i >= 64).int() + (i >= 320).int() + (i >= 896).int() + (i >= 1920).int()


def grid_masks() -> list[Entry]:
    """Neighbourhoods, windows and axes of images and video."""
    cube, window = (16, 16, 16), (8, 8, 8)
    return [
        square("4Real-Video-V2", 4096, views_and_times),
        square("CLEAR, raster", 4608, circle(row_column)),
        square("CLEAR, tiles", 4608, circle(tile_major)),
        square("Sparse VideoGen, frame-major", 4352, frame_major),
        square("Sparse VideoGen, token-major", 4352, token_major),
        square("GNA, raster", 4096, neighbourhood(cube, window, (1, 1, 1), volume)),
        square("GNA, tiles", 4096, neighbourhood(cube, window, (1, 1, 1), volume_tiles)),
        square("GNA, tiles, stride", 4096, neighbourhood(cube, window, (4, 4, 8), volume_tiles)),
        square("FNA, 2-D", 4096, neighbourhood((64, 64), (13, 13), (1, 1), row_column)),
        square("FNA, 2-D, dilated", 4096, dilated(2, 13, 64)),
        square("FNA, causal in time", 4096, causal_time),
        square("HaloNet", 4096, halo),
        square("Inf-DiT, raster", 4096, upper_left),
        square("Inf-DiT, block-major", 4096, upper_left_blocks),
        square("FreeSwim", 6144, inward),
        square("Swin, shifted", 3136, lambda b, h, q, kv: region(q) == region(kv)),
        square("windows (DaViT)", 3136, windows),
        square("HAT, overlapping", 4096, overlapping),
        square("Audio-MAE", 4096, time_frequency),
        square("MaskViT, frames", 4096, lambda b, h, q, kv: q // 256 == kv // 256),
        square("MaskViT, spacetime", 4096, spacetime_windows),
        square("video-first, same position", 3136, lambda b, h, q, kv: q % 196 == kv % 196),
        square("axes (ZITS)", 4096, axes),
        square("Twins, global", 4096, twins),
        square("block causal over scales (VAR)", 3520, lambda b, h, q, kv: scales(q) >= scales(kv)),
        square("within scales (M-VAR)", 3520, lambda b, h, q, kv: scales(q) == scales(kv)),
    ]
