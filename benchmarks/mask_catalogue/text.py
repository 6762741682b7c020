"""Masks of published systems over text and audio."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.mask_catalogue.entry import Entry, int32, square

_N = 4096
# Sizes by head; those of two numbers by batch.
_SPANS = int32(256, 512, 128, 1024)
_GROWTH = torch.tensor([0.5, 0.125, 0.25, 0.0])
_SINKS = int32(1, 4, 64, 16)
_HEAD_WINDOWS = int32(100, 250, 500, 2000)
_OR_GLOBAL = int32(2, 25, 125, 0)
_PREFIXES = int32(1000, 37)
_DILATIONS = int32(1, 2, 4, 8)
_SEGMENTS = int32(512, 1024, 2048, 4096)
_SHIFTS = int32(3, 5)


def _causal(b: Any, h: Any, q: Any, kv: Any) -> Any:
    return kv <= q


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
    size = _OR_GLOBAL[h]
    divisor = torch.maximum(size, torch.ones_like(size))
    return (size == 0) | (q // divisor == kv // divisor)


def long_net(b: Any, h: Any, q: Any, kv: Any) -> Any:
    same = q // _SEGMENTS[h] == kv // _SEGMENTS[h]
    return same & (q % _DILATIONS[h] == kv % _DILATIONS[h]) & (kv <= q)


def template(i: Any) -> Any:
    return (i >= 576) & (i < 1152)


def text_masks() -> list[Entry]:
    """Causal, windowed, strided and mixed patterns over text and audio."""
    return [*_by_distance(), *_by_heads_and_blocks(), *_of_parts()]


def _by_distance() -> list[Entry]:
    return [
        square("causal (FlexAttention)", 8192, _causal),
        square("no mask but a length", 8000, lambda b, h, q, kv: kv < 7777),
        square("sliding window", 8192, lambda b, h, q, kv: (kv <= q) & (q - kv < 1000)),
        square(
            "sinks and window (StreamingLLM)",
            8192,
            lambda b, h, q, kv: (kv <= q) & ((kv < 4) | (q - kv < 1020)),
        ),
        square("prefix per batch", _N, lambda b, h, q, kv: (kv <= q) | (kv < _PREFIXES[b])),
        square(
            "global and window (Longformer)",
            _N,
            lambda b, h, q, kv: (q < 16) | (kv < 16) | ((q - kv).abs() <= 256),
        ),
        square(
            "dilated window (Longformer)",
            _N,
            lambda b, h, q, kv: ((q - kv).abs() <= 768) & ((q - kv) % 3 == 0),
        ),
        square(
            "sparse transformer, strided",
            _N,
            lambda b, h, q, kv: (kv <= q) & ((q - kv < 96) | ((q - kv) % 96 == 0)),
        ),
        square(
            "sparse transformer, fixed",
            _N,
            lambda b, h, q, kv: (kv <= q) & ((q // 96 == kv // 96) | (kv % 96 >= 88)),
        ),
        square("dilated segments (LongNet)", _N, long_net),
        square("chunks (Llama 4)", 8192, lambda b, h, q, kv: (kv <= q) & (q // 1000 == kv // 1000)),
        square(
            "one chunk back",
            _N,
            lambda b, h, q, kv: (q // 96 - kv // 96 <= 1) & (kv <= q),
        ),
        square("block causal (EnerVerse)", _N, lambda b, h, q, kv: q // 390 >= kv // 390),
        square(
            "arrow (SeNer)", _N, lambda b, h, q, kv: (q == 0) | (kv == 0) | ((q - kv).abs() <= 128)
        ),
        square("Titans", _N, lambda b, h, q, kv: (kv < 16) | ((q >= kv) & (q - kv < 512))),
    ]


def _by_heads_and_blocks() -> list[Entry]:
    return [
        square("MW-MAE", 4000, lambda b, h, q, kv: q // _HEAD_WINDOWS[h] == kv // _HEAD_WINDOWS[h]),
        square("MW-MAE, 0 for global", 4000, window_or_global),
        square(
            "MoA",
            _N,
            lambda b, h, q, kv: (q >= kv) & ((kv < 64) | (q - kv < _SPANS[h] + _GROWTH[h] * _N)),
        ),
        square(
            "MoA, sink per head",
            _N,
            lambda b, h, q, kv: (kv <= q) & ((kv < _SINKS[h]) | (q - kv < _SPANS[h])),
        ),
        square("Fast-dLLM v2", _N, block_diffusion),
        square("PowerAttention", 8192, power_of_two),
        square("S2-Attention", 8192, shards),
    ]


def _of_parts() -> list[Entry]:
    return [
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
            _N,
            lambda b, h, q, kv: (q + _SHIFTS[b]) // 49 == (kv + _SHIFTS[b]) // 49,
        ),
        square("blocks in Morton order", _N, lambda b, h, q, kv: (q ^ kv) < 256),
        square("bit field", _N, lambda b, h, q, kv: (q & 0x3C0) == (kv & 0x3C0)),
        square("strided congruence", _N, lambda b, h, q, kv: (6 * q + 3 * kv) % 9 == 0),
    ]
