"""Masks of published systems at the lengths they run at: what ``benchmarks.analysis`` asks about.

Each entry restates the pattern of one paper. A *static* one is known from its numbers alone, small
tables per head or batch included; the others depend on captured data for each token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Mod = Callable[..., Any]


@dataclass(frozen=True)
class Entry:
    """One mask; ``static``: no captured tensor has an element per token."""

    name: str
    n_queries: int
    n_keys: int
    mask: Mod
    static: bool = True


def _square(name: str, length: int, mask: Mod, *, static: bool = True) -> Entry:
    return Entry(name, length, length, mask, static)


def _int32(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def _causal(b: Any, h: Any, q: Any, kv: Any) -> Any:
    return kv <= q


def text_masks() -> list[Entry]:
    """Causal, windowed, strided and mixed patterns over text and audio."""
    spans = _int32(256, 512, 128, 1024)
    growth = torch.tensor([0.5, 0.125, 0.25, 0.0])
    sinks = _int32(1, 4, 64, 16)
    head_windows = _int32(100, 250, 500, 2000)
    or_global = _int32(2, 25, 125, 0)
    prefixes = _int32(1000, 37)
    dilations = _int32(1, 2, 4, 8)
    segments = _int32(512, 1024, 2048, 4096)
    shifts = _int32(3, 5)
    n = 4096

    def clean(i: Any) -> Any:
        return i >= 2048

    def part(i: Any) -> Any:
        return (i % 2048) // 32

    def block_diffusion(b: Any, h: Any, q: Any, kv: Any) -> Any:
        own = (part(q) == part(kv)) & (clean(q) == clean(kv))
        earlier = clean(kv) & ~clean(q) & (part(q) > part(kv))
        return own | earlier | (clean(kv) & clean(q) & (part(q) >= part(kv)))

    def power_of_two(b: Any, h: Any, q: Any, kv: Any) -> Any:
        distance = q // 64 - kv // 64
        is_power = (distance & (distance - 1)) == 0
        return (kv <= q) & ((q - kv < 256) | (kv < 64) | is_power)

    def shards(b: Any, h: Any, q: Any, kv: Any) -> Any:
        is_kept = (kv // 64 + h + 1) % 16 == 0
        return (kv <= q) & ((q // 64 - kv // 64 < 8) | is_kept)

    def window_or_global(b: Any, h: Any, q: Any, kv: Any) -> Any:
        size = or_global[h]
        divisor = torch.maximum(size, torch.ones_like(size))
        return (size == 0) | (q // divisor == kv // divisor)

    def long_net(b: Any, h: Any, q: Any, kv: Any) -> Any:
        same = q // segments[h] == kv // segments[h]
        return same & (q % dilations[h] == kv % dilations[h]) & (kv <= q)

    def template(i: Any) -> Any:
        return (i >= 576) & (i < 1152)

    return [
        _square("causal (FlexAttention)", 8192, _causal),
        _square("no mask but a length", 8000, lambda b, h, q, kv: kv < 7777),
        _square("sliding window", 8192, lambda b, h, q, kv: (kv <= q) & (q - kv < 1000)),
        _square(
            "sinks and window (StreamingLLM)",
            8192,
            lambda b, h, q, kv: (kv <= q) & ((kv < 4) | (q - kv < 1020)),
        ),
        _square("prefix per batch", n, lambda b, h, q, kv: (kv <= q) | (kv < prefixes[b])),
        _square(
            "global and window (Longformer)",
            n,
            lambda b, h, q, kv: (q < 16) | (kv < 16) | ((q - kv).abs() <= 256),
        ),
        _square(
            "dilated window (Longformer)",
            n,
            lambda b, h, q, kv: ((q - kv).abs() <= 768) & ((q - kv) % 3 == 0),
        ),
        _square(
            "sparse transformer, strided",
            n,
            lambda b, h, q, kv: (kv <= q) & ((q - kv < 96) | ((q - kv) % 96 == 0)),
        ),
        _square(
            "sparse transformer, fixed",
            n,
            lambda b, h, q, kv: (kv <= q) & ((q // 96 == kv // 96) | (kv % 96 >= 88)),
        ),
        _square("dilated segments (LongNet)", n, long_net),
        _square(
            "chunks (Llama 4)", 8192, lambda b, h, q, kv: (kv <= q) & (q // 1000 == kv // 1000)
        ),
        _square(
            "one chunk back",
            n,
            lambda b, h, q, kv: (q // 96 - kv // 96 <= 1) & (kv <= q),
        ),
        _square("block causal (EnerVerse)", n, lambda b, h, q, kv: q // 390 >= kv // 390),
        _square(
            "arrow (SeNer)", n, lambda b, h, q, kv: (q == 0) | (kv == 0) | ((q - kv).abs() <= 128)
        ),
        _square("Titans", n, lambda b, h, q, kv: (kv < 16) | ((q >= kv) & (q - kv < 512))),
        _square("MW-MAE", 4000, lambda b, h, q, kv: q // head_windows[h] == kv // head_windows[h]),
        _square("MW-MAE, 0 for global", 4000, window_or_global),
        _square(
            "MoA",
            n,
            lambda b, h, q, kv: (q >= kv) & ((kv < 64) | (q - kv < spans[h] + growth[h] * n)),
        ),
        _square(
            "MoA, sink per head",
            n,
            lambda b, h, q, kv: (kv <= q) & ((kv < sinks[h]) | (q - kv < spans[h])),
        ),
        _square("Fast-dLLM v2", n, block_diffusion),
        _square("PowerAttention", 8192, power_of_two),
        _square("S2-Attention", 8192, shards),
        Entry("Perceiver AR", 1024, 8192, lambda b, h, q, kv: kv <= q + (8192 - 1024)),
        Entry("FaceFormer, alignment", 2000, 4000, lambda b, h, q, kv: kv // 2 == q),
        Entry(
            "Synch-Transformer",
            3000,
            7200,
            lambda b, h, q, kv: (5 * kv - 12 * q <= 400) & (12 * q - 5 * kv <= 400),
        ),
        _square("RPO", 2060, lambda b, h, q, kv: (kv < 2048) | (kv == q)),
        _square("ROMTrack", 2176, lambda b, h, q, kv: ~template(q) | template(kv)),
        _square(
            "Learnable Memory ViT",
            2118,
            lambda b, h, q, kv: (kv < 2048) | ((q >= 2048) & ((q - 2048) // 7 >= (kv - 2048) // 7)),
        ),
        _square(
            "polyphase anchors per image",
            n,
            lambda b, h, q, kv: (q + shifts[b]) // 49 == (kv + shifts[b]) // 49,
        ),
        _square("blocks in Morton order", n, lambda b, h, q, kv: (q ^ kv) < 256),
        _square("bit field", n, lambda b, h, q, kv: (q & 0x3C0) == (kv & 0x3C0)),
        _square("strided congruence", n, lambda b, h, q, kv: (6 * q + 3 * kv) % 9 == 0),
    ]


def grid_masks() -> list[Entry]:
    """Neighbourhoods, windows and axes of images and video."""

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

    kind = _int32(0, 1, 0, 1)

    def frame_major(b: Any, h: Any, q: Any, kv: Any) -> Any:
        spatial = (q - kv).abs() < 2 * 256
        temporal = ((q - 256) % 256 - (kv - 256) % 256).abs() < 32
        return (q < 256) | (kv < 256) | torch.where(kind[h] == 0, spatial, temporal)

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

    cube, window = (16, 16, 16), (8, 8, 8)
    return [
        _square("4Real-Video-V2", 4096, views_and_times),
        _square("CLEAR, raster", 4608, circle(row_column)),
        _square("CLEAR, tiles", 4608, circle(tile_major)),
        _square("Sparse VideoGen, frame-major", 4352, frame_major),
        _square("Sparse VideoGen, token-major", 4352, token_major),
        _square("GNA, raster", 4096, neighbourhood(cube, window, (1, 1, 1), volume)),
        _square("GNA, tiles", 4096, neighbourhood(cube, window, (1, 1, 1), volume_tiles)),
        _square("GNA, tiles, stride", 4096, neighbourhood(cube, window, (4, 4, 8), volume_tiles)),
        _square("FNA, 2-D", 4096, neighbourhood((64, 64), (13, 13), (1, 1), row_column)),
        _square("FNA, 2-D, dilated", 4096, dilated(2, 13, 64)),
        _square("FNA, causal in time", 4096, causal_time),
        _square("HaloNet", 4096, halo),
        _square("Inf-DiT, raster", 4096, upper_left),
        _square("Inf-DiT, block-major", 4096, upper_left_blocks),
        _square("FreeSwim", 6144, inward),
        _square("Swin, shifted", 3136, lambda b, h, q, kv: region(q) == region(kv)),
        _square("windows (DaViT)", 3136, windows),
        _square("HAT, overlapping", 4096, overlapping),
        _square("Audio-MAE", 4096, time_frequency),
        _square("MaskViT, frames", 4096, lambda b, h, q, kv: q // 256 == kv // 256),
        _square("MaskViT, spacetime", 4096, spacetime_windows),
        _square("video-first, same position", 3136, lambda b, h, q, kv: q % 196 == kv % 196),
        _square("axes (ZITS)", 4096, axes),
        _square("Twins, global", 4096, twins),
        _square(
            "block causal over scales (VAR)", 3520, lambda b, h, q, kv: scales(q) >= scales(kv)
        ),
        _square("within scales (M-VAR)", 3520, lambda b, h, q, kv: scales(q) == scales(kv)),
    ]


def data_masks() -> list[Entry]:
    """Patterns that depend on data for each token: documents, groups, flags, choices."""
    generator = torch.Generator().manual_seed(0)
    n = 4096

    def integers(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, high, shape, generator=generator, dtype=torch.int32)

    def flags(share: float, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator) < share

    documents = integers(20, n).sort().values
    by_batch = integers(20, 2, n).sort(dim=1).values
    starts = torch.searchsorted(documents, torch.arange(20, dtype=torch.int32)).int()
    kept = torch.arange(n) < _int32(3000, 2500)[:, None]
    segment = torch.repeat_interleave(torch.arange(8, dtype=torch.int32), n // 8)
    groups = integers(6, n)
    objects = torch.repeat_interleave(integers(4, 2, n // 64), 64, dim=1)
    scenes = integers(16, 2, n)
    condition = torch.repeat_interleave(flags(0.3, 2, n // 32), 32, dim=1)
    chosen = flags(0.3, 2, 4, n // 128, n // 128)
    ends = integers(n, n).sort().values
    bias = torch.randn(2, 4, n, generator=generator)
    threshold = torch.randn(2, 4, n, generator=generator).abs()
    modality = torch.repeat_interleave(flags(0.5, 16), n // 16)
    permutation = torch.randperm(n, generator=generator).int()
    latitude = (torch.arange(64) + 0.5) * (torch.pi / 64)

    def ends_of(i: Any) -> Any:
        return starts[documents[i]]

    def sphere(b: Any, h: Any, q: Any, kv: Any) -> Any:
        a, c = latitude[q // 64], latitude[kv // 64]
        angle = (q % 64 - kv % 64) * (2 * torch.pi / 64)
        return a.cos() * c.cos() + a.sin() * c.sin() * angle.cos() >= 0.9

    def entry(name: str, mask: Mod) -> Entry:
        return _square(name, n, mask, static=False)

    return [
        entry("documents", lambda b, h, q, kv: documents[q] == documents[kv]),
        entry("causal documents", lambda b, h, q, kv: (documents[q] == documents[kv]) & (kv <= q)),
        entry(
            "causal documents per batch",
            lambda b, h, q, kv: (by_batch[b, q] == by_batch[b, kv]) & (kv <= q),
        ),
        entry("first token of a document", lambda b, h, q, kv: (kv <= q) & (kv >= ends_of(q))),
        entry("padding", lambda b, h, q, kv: (kv <= q) & kept[b, kv]),
        entry("monotone ends", lambda b, h, q, kv: kv < ends[q]),
        entry(
            "PINE",
            lambda b, h, q, kv: (
                (q >= kv) | ((segment[q] > 0) & (segment[kv] > 0) & (segment[q] != segment[kv]))
            ),
        ),
        entry(
            "parallel contexts",
            lambda b, h, q, kv: (
                (kv <= q) & ((segment[kv] == 0) | (segment[q] == segment[kv]) | (segment[q] == 7))
            ),
        ),
        entry(
            "IR-Diffusion",
            lambda b, h, q, kv: (
                (objects[b, q] == 0) | (objects[b, kv] == 0) | (objects[b, q] == objects[b, kv])
            ),
        ),
        entry("BAMM", lambda b, h, q, kv: condition[b, kv] | ((kv <= q) & ~condition[b, q])),
        entry("M2T, random groups", lambda b, h, q, kv: groups[kv] <= groups[q]),
        entry("SASA", lambda b, h, q, kv: (h != 2) | ((scenes[b, q] & scenes[b, kv]) != 0)),
        entry("MoBA", lambda b, h, q, kv: (q >= kv) & chosen[b, h, q // 128, kv // 128]),
        entry("DMA", lambda b, h, q, kv: (q >= kv) & (bias[b, h, kv] >= threshold[b, h, q])),
        entry("Croc", lambda b, h, q, kv: (kv <= q) | (modality[q] & modality[kv])),
        entry("REOrder", lambda b, h, q, kv: permutation[kv] <= permutation[q]),
        entry("attention on the sphere", sphere),
    ]


def all_masks() -> list[Entry]:
    return [*text_masks(), *grid_masks(), *data_masks()]
