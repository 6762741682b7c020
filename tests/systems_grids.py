"""Masks and scores of published systems for images, video and space: see ``systems_masks``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from systems_masks import System, int32, integers, normal


def block_diffusion() -> System:
    half, block = 64, 16  # noised tokens first, then the clean ones

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        q_clean, kv_clean = q >= half, kv >= half
        q_part, kv_part = (q % half) // block, (kv % half) // block
        own = (q_part == kv_part) & (q_clean == kv_clean)
        earlier = kv_clean & ~q_clean & (q_part > kv_part)
        return own | earlier | (kv_clean & q_clean & (q_part >= kv_part))

    return System("Fast-dLLM v2", (1, 2, 128, 128), mask)


def views_and_times() -> System:
    times, tokens = 3, 16  # frame = view * times + time

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        a, c = q // tokens, kv // tokens
        return (a // times == c // times) | (a % times == c % times)

    return System("4Real-Video-V2", (1, 2, 144, 144), mask)


def round_neighbourhood() -> System:
    n_text, width, radius = 16, 12, 4

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        dy = (q - n_text) // width - (kv - n_text) // width
        dx = (q - n_text) % width - (kv - n_text) % width
        return (q < n_text) | (kv < n_text) | (dy * dy + dx * dx < radius * radius)

    return System("CLEAR", (1, 2, 160, 160), mask)


def spatial_or_temporal_heads() -> System:
    n_text, tokens, frames, width = 16, 24, 6, 2
    kind = int32(0, 1)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        spatial = (q - kv).abs() < width * tokens
        temporal = ((q - n_text) % tokens - (kv - n_text) % tokens).abs()
        near = torch.where(kind[h] == 0, spatial, temporal < width * tokens // frames)
        return (q < n_text) | (kv < n_text) | near

    return System("Sparse VideoGen", (1, 2, 160, 160), mask)


def strided_neighbourhood() -> System:
    (t, y, x), windows, strides = (4, 6, 6), (3, 4, 3), (1, 2, 1)

    def axis(q: Any, kv: Any, size: int, window: int, stride: int) -> Any:
        before, after = window // 2, (window - 1) // 2
        leader = ((q // stride) * stride + stride // 2).clamp(max=size - 1)
        centre = leader.clamp(before, size - 1 - after)
        return (centre - kv <= before) & (kv - centre <= after)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (
            axis(q // (y * x), kv // (y * x), t, windows[0], strides[0])
            & axis(q // x % y, kv // x % y, y, windows[1], strides[1])
            & axis(q % x, kv % x, x, windows[2], strides[2])
        )

    return System("GNA, three axes", (1, 2, 144, 144), mask)


def halo() -> System:
    side, block, width = 12, 4, 1

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        top, left = q // side // block * block, q % side // block * block
        row, column = kv // side, kv % side
        inside_rows = (row >= top - width) & (row < top + block + width)
        return inside_rows & (column >= left - width) & (column < left + block + width)

    return System("HaloNet", (1, 2, 144, 144), mask)


def upper_left_blocks() -> System:
    side, block = 12, 4

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        dy = q // side // block - kv // side // block
        dx = q % side // block - kv % side // block
        return (dy >= 0) & (dy <= 1) & (dx >= 0) & (dx <= 1)

    return System("Inf-DiT", (1, 2, 144, 144), mask)


def dilated_neighbourhood() -> System:
    rows, columns, window, dilation, stride = 8, 12, 3, 2, 1

    def axis(q: Any, kv: Any, size: int) -> Any:
        group, place = q % dilation, q // dilation
        n_places = (size - group + dilation - 1) // dilation
        leader = torch.minimum((place // stride) * stride + stride // 2, n_places - 1)
        first = torch.minimum((leader - window // 2).clamp(min=0), n_places - window)
        in_window = (kv // dilation >= first) & (kv // dilation < first + window)
        return (kv % dilation == group) & in_window

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return axis(q // columns, kv // columns, rows) & axis(q % columns, kv % columns, columns)

    return System("FNA with dilation", (1, 2, 96, 96), mask)


def inward_window() -> System:
    rows, columns, half_rows, half_columns = 6, 8, 1, 2

    def axis(q: Any, kv: Any, size: int, half: int) -> Any:
        upper = q + half + (half - q).clamp(min=0)
        lower = q - half - (half + q - size + 1).clamp(min=0)
        return (kv <= upper) & (kv >= lower)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        i, j = q % (rows * columns), kv % (rows * columns)
        in_columns = axis(i % columns, j % columns, columns, half_columns)
        return axis(i // columns, j // columns, rows, half_rows) & in_columns

    return System("FreeSwim", (1, 2, 96, 96), mask)


def shifted_windows() -> System:
    side, window, shift = 8, 4, 2
    bias = normal(2, (2 * window - 1) ** 2, seed=3)

    def rolled(i: Any) -> tuple[Any, Any]:
        return (i // side + side - shift) % side, (i % side + side - shift) % side

    def region(i: Any) -> Any:
        row, column = rolled(i)
        seam = (row >= side - shift).int() * 2 + (column >= side - shift).int()
        return (row // window) * 64 + (column // window) * 8 + seam

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return region(q) == region(kv)

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        (q_row, q_column), (kv_row, kv_column) = rolled(q), rolled(kv)
        dy = q_row % window - kv_row % window + window - 1
        dx = q_column % window - kv_column % window + window - 1
        return s + bias[h, dy * (2 * window - 1) + dx]

    return System("Swin", (1, 2, 64, 64), mask, score)


def epipolar_lines() -> System:
    tokens, width, tolerance = 48, 8, 1.2345
    fundamental = normal(2, 3, 3, 3, 3, seed=15)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        view, other = q // tokens, kv // tokens
        x, y = q % width, q % tokens // width
        other_x, other_y = kv % width, kv % tokens // width
        matrix = fundamental[b, view, other]
        line = [matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] for i in range(3)]
        distance = (line[0] * other_x + line[1] * other_y + line[2]) ** 2
        return (view == other) | (distance <= tolerance**2 * (line[0] ** 2 + line[1] ** 2))

    return System("SPAD", (2, 1, 144, 144), mask)


def sphere() -> System:
    n_latitudes, n_longitudes = 8, 16
    colatitude = (torch.arange(n_latitudes) + 0.5) * (math.pi / n_latitudes)
    log_weight = colatitude.sin().log()
    cos_radius = math.cos(0.713)

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return s + log_weight[kv // n_longitudes]

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        a, c = colatitude[q // n_longitudes], colatitude[kv // n_longitudes]
        angle = (q % n_longitudes - kv % n_longitudes) * (2 * math.pi / n_longitudes)
        return a.cos() * c.cos() + a.sin() * c.sin() * angle.cos() >= cos_radius

    return System("Attention on the Sphere", (1, 2, 128, 128), mask, score)


def positional_heads() -> System:
    side = 12
    weight, offset = normal(2, 3, seed=18) * 0.1, normal(2, seed=19)

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        dx, dy = kv % side - q % side, kv // side - q // side
        squared = dx * dx + dy * dy
        return weight[h, 0] * dx + weight[h, 1] * dy + weight[h, 2] * squared + offset[h]

    return System("ConViT", (1, 2, 144, 144), score=score)


def relative_tables() -> System:
    n_queries, n_keys, n_bins = 24, 40, 5
    from_queries = normal(1, 2, n_queries, 3, n_bins, seed=20)
    from_keys = normal(1, 2, n_keys, 3, n_bins, seed=21)
    relative = integers(0, n_bins, 1, 3, n_queries, n_keys, seed=22)

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        for axis in range(3):
            offset = relative[b, axis, q, kv]
            s = s + from_queries[b, h, q, axis, offset] + from_keys[b, h, kv, axis, offset]
        return s

    return System("Mask-Attention-Free Transformer", (1, 2, n_queries, n_keys), score=score)


GRID_SYSTEMS: tuple[Callable[[], System], ...] = (
    block_diffusion,
    views_and_times,
    round_neighbourhood,
    spatial_or_temporal_heads,
    strided_neighbourhood,
    halo,
    upper_left_blocks,
    epipolar_lines,
    sphere,
    positional_heads,
    dilated_neighbourhood,
    inward_window,
    shifted_windows,
    relative_tables,
)
