"""Masks of published systems over text and audio."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.mask_catalogue.entry import Entry, int32, square


def _causal(b: Any, h: Any, q: Any, kv: Any) -> Any:
    return kv <= q


def text_masks() -> list[Entry]:
    """Causal, windowed, strided and mixed patterns over text and audio."""
    spans = int32(256, 512, 128, 1024)
    growth = torch.tensor([0.5, 0.125, 0.25, 0.0])
    sinks = int32(1, 4, 64, 16)
    head_windows = int32(100, 250, 500, 2000)
    or_global = int32(2, 25, 125, 0)
    prefixes = int32(1000, 37)
    dilations = int32(1, 2, 4, 8)
    segments = int32(512, 1024, 2048, 4096)
    shifts = int32(3, 5)
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
        square("causal (FlexAttention)", 8192, _causal),
        square("no mask but a length", 8000, lambda b, h, q, kv: kv < 7777),
        square("sliding window", 8192, lambda b, h, q, kv: (kv <= q) & (q - kv < 1000)),
        square(
            "sinks and window (StreamingLLM)",
            8192,
            lambda b, h, q, kv: (kv <= q) & ((kv < 4) | (q - kv < 1020)),
        ),
        square("prefix per batch", n, lambda b, h, q, kv: (kv <= q) | (kv < prefixes[b])),
        square(
            "global and window (Longformer)",
            n,
            lambda b, h, q, kv: (q < 16) | (kv < 16) | ((q - kv).abs() <= 256),
        ),
        square(
            "dilated window (Longformer)",
            n,
            lambda b, h, q, kv: ((q - kv).abs() <= 768) & ((q - kv) % 3 == 0),
        ),
        square(
            "sparse transformer, strided",
            n,
            lambda b, h, q, kv: (kv <= q) & ((q - kv < 96) | ((q - kv) % 96 == 0)),
        ),
        square(
            "sparse transformer, fixed",
            n,
            lambda b, h, q, kv: (kv <= q) & ((q // 96 == kv // 96) | (kv % 96 >= 88)),
        ),
        square("dilated segments (LongNet)", n, long_net),
        square("chunks (Llama 4)", 8192, lambda b, h, q, kv: (kv <= q) & (q // 1000 == kv // 1000)),
        square(
            "one chunk back",
            n,
            lambda b, h, q, kv: (q // 96 - kv // 96 <= 1) & (kv <= q),
        ),
        square("block causal (EnerVerse)", n, lambda b, h, q, kv: q // 390 >= kv // 390),
        square(
            "arrow (SeNer)", n, lambda b, h, q, kv: (q == 0) | (kv == 0) | ((q - kv).abs() <= 128)
        ),
        square("Titans", n, lambda b, h, q, kv: (kv < 16) | ((q >= kv) & (q - kv < 512))),
        square("MW-MAE", 4000, lambda b, h, q, kv: q // head_windows[h] == kv // head_windows[h]),
        square("MW-MAE, 0 for global", 4000, window_or_global),
        square(
            "MoA",
            n,
            lambda b, h, q, kv: (q >= kv) & ((kv < 64) | (q - kv < spans[h] + growth[h] * n)),
        ),
        square(
            "MoA, sink per head",
            n,
            lambda b, h, q, kv: (kv <= q) & ((kv < sinks[h]) | (q - kv < spans[h])),
        ),
        square("Fast-dLLM v2", n, block_diffusion),
        square("PowerAttention", 8192, power_of_two),
        square("S2-Attention", 8192, shards),
        Entry("Perceiver AR", 1024, 8192, lambda b, h, q, kv: kv <= q + (8192 - 1024)),
        Entry("FaceFormer, alignment", 2000, 4000, lambda b, h, q, kv: kv // 2 == q),
        Entry(
            "Synch-Transformer",
            3000,
            7200,
            lambda b, h, q, kv: (5 * kv - 12 * q <= 400) & (12 * q - 5 * kv <= 400),
        ),
        square("RPO", 2060, lambda b, h, q, kv: (kv < 2048) | (kv == q)),
        square("ROMTrack", 2176, lambda b, h, q, kv: ~template(q) | template(kv)),
        square(
            "Learnable Memory ViT",
            2118,
            lambda b, h, q, kv: (kv < 2048) | ((q >= 2048) & ((q - 2048) // 7 >= (kv - 2048) // 7)),
        ),
        square(
            "polyphase anchors per image",
            n,
            lambda b, h, q, kv: (q + shifts[b]) // 49 == (kv + shifts[b]) // 49,
        ),
        square("blocks in Morton order", n, lambda b, h, q, kv: (q ^ kv) < 256),
        square("bit field", n, lambda b, h, q, kv: (q & 0x3C0) == (kv & 0x3C0)),
        square("strided congruence", n, lambda b, h, q, kv: (6 * q + 3 * kv) % 9 == 0),
    ]
