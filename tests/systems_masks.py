"""Masks and scores of published systems for text and mixed tokens, at small sizes.

Each entry restates the attention pattern of one paper as a mask_mod or score_mod, without the rest
of the model. Thresholds are chosen so that no pair lies within rounding of them. Captured tensors
come from a seeded generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Mod = Callable[..., Any]


@dataclass(frozen=True)
class System:
    """One pattern; ``shape`` is (B, H, n_queries, n_keys), ``paper`` the system it is from."""

    paper: str
    shape: tuple[int, int, int, int]
    mask: Mod | None = None
    score: Mod | None = None


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=_generator(seed))


def integers(low: int, high: int, *shape: int, seed: int) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=_generator(seed), dtype=torch.int32)


def flags(share: float, *shape: int, seed: int) -> torch.Tensor:
    return torch.rand(*shape, generator=_generator(seed)) < share


def int32(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def causal(b: Any, h: Any, q: Any, kv: Any) -> Any:
    return kv <= q


def arrow() -> System:
    width, n, n_trained = 12, 128, 64
    gain = math.log(n) / math.log(n_trained)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (q == 0) | (kv == 0) | ((q - kv).abs() <= width)

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return torch.where(q == 0, s * gain, s)

    return System("SeNer", (1, 2, n, n), mask, score)


def persistent_tokens() -> System:
    n_persistent, window = 4, 48

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (kv < n_persistent) | ((q >= kv) & (q - kv < window))

    return System("Titans", (1, 2, 160, 160), mask)


def windows_per_head() -> System:
    window = int32(2, 5, 10, 25, 50, 125, 250, 250)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return q // window[h] == kv // window[h]

    return System("MW-MAE", (1, 8, 250, 250), mask)


def windows_or_global() -> System:
    window = int32(2, 5, 25, 0)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        size = window[h]
        divisor = torch.maximum(size, torch.ones_like(size))
        return (size == 0) | (q // divisor == kv // divisor)

    return System("MW-MAE, 0 for global", (1, 4, 125, 125), mask)


def elastic_spans() -> System:
    n, n_sink = 160, 4
    base, growth = int32(8, 16, 4, 32), torch.tensor([0.5, 0.125, 0.25, 0.0])

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (q >= kv) & ((kv < n_sink) | (q - kv < base[h] + growth[h] * n))

    return System("MoA", (1, 4, n, n), mask)


def sinks_and_spans() -> System:
    span, sink = int32(16, 48, 80, 8), int32(1, 4, 2, 16)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (kv <= q) & ((kv < sink[h]) | (q - kv < span[h]))

    return System("MoA, sink per head", (1, 4, 144, 144), mask)


def power_of_two_distances() -> System:
    block, window, n_sink = 4, 8, 4

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        distance = q // block - kv // block
        is_power = (distance & (distance - 1)) == 0
        return (kv <= q) & ((q - kv < window) | (kv < n_sink) | is_power)

    return System("PowerAttention", (1, 2, 160, 160), mask)


def strided_shards() -> System:
    block, n_local, stride, step = 4, 2, 4, 1

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        q_part, kv_part = q // block, kv // block
        is_kept = (kv_part + h * step + 1) % stride == 0
        return (kv <= q) & ((q_part - kv_part < n_local) | is_kept)

    return System("S2-Attention", (1, 4, 128, 128), mask)


def latents() -> System:
    n_keys, n_latents = 160, 48

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return kv <= q + (n_keys - n_latents)

    return System("Perceiver AR", (1, 2, n_latents, n_keys), mask)


def logarithmic_scale() -> System:
    trained, layer = 16, 5

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        if layer < 2:  # a Python value: decided while tracing
            return s
        return s * torch.clamp(torch.log(q + 1.0) / math.log(trained), min=1.0)

    return System("Entropy-ABF", (1, 2, 96, 96), causal, score)


def periodic_bias() -> System:
    period, slope = 25, torch.tensor([0.25, 0.0625, 0.5, 1.0])

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return s - slope[h] * ((q - kv) // period)

    return System("FaceFormer", (1, 4, 130, 130), causal, score)


def short_period_bias() -> System:
    period, slope = 8, torch.tensor([0.25, 0.0625])

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return s - slope[h] * ((q - kv) // period)

    return System("FaceFormer, short period", (2, 2, 70, 70), causal, score)


def aligned_frames() -> System:
    rate = 2  # audio frames per motion frame

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return kv // rate == q

    return System("FaceFormer, alignment", (1, 2, 64, 128), mask)


def between_documents() -> System:
    segment = torch.repeat_interleave(int32(0, 1, 2, 3, 0), torch.tensor([20, 40, 30, 50, 20]))

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        a, c = segment[q], segment[kv]
        return (q >= kv) | ((a > 0) & (c > 0) & (a != c))

    return System("PINE", (1, 2, 160, 160), mask)


def isolated_subjects() -> System:
    subject = torch.repeat_interleave(integers(0, 3, 2, 18, seed=13), 8, dim=1)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        a, c = subject[b, q], subject[b, kv]
        return (a == 0) | (c == 0) | (a == c)

    return System("IR-Diffusion", (2, 2, 144, 144), mask)


def weighted_concepts() -> System:
    weight = torch.cat([torch.zeros(64), normal(128, seed=14)])
    keep = torch.cat([torch.ones(64, dtype=torch.bool), flags(0.5, 128, seed=24)])

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return s + weight[kv]

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return keep[kv]

    return System("FreeCustom", (1, 2, 64, 192), mask, score)


def largest_biases() -> System:
    n, width = 128, 24
    bias = normal(1, 2, n, seed=25)
    # Per query, the width-th largest bias among the keys up to it.
    threshold = torch.stack(
        [bias[..., : i + 1].topk(min(width, i + 1)).values[..., -1] for i in range(n)], -1
    )

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return s + bias[b, h, kv]

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (q >= kv) & (bias[b, h, kv] >= threshold[b, h, q])

    return System("DMA", (1, 2, n, n), mask, score)


def _selected_blocks(n: int, block: int, seed: int) -> torch.Tensor:
    """(1, 2, n, n_blocks) bool: random earlier blocks, and always the query's own."""
    block_of = torch.arange(n)[:, None] // block
    blocks = torch.arange(n // block)[None]
    chosen = flags(0.4, 1, 2, n, n // block, seed=seed)
    return (chosen | (blocks == block_of)) & (blocks <= block_of)


def routed_blocks() -> System:
    n, block = 128, 32
    selected = _selected_blocks(n, block, 26)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (q >= kv) & selected[b, h, q, kv // block]

    return System("MoBA", (1, 2, n, n), mask)


def routed_small_blocks() -> System:
    n, block = 96, 8
    selected = _selected_blocks(n, block, 27)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return selected[b, h, q, kv // block] & (kv <= q)

    return System("MoBA, blocks of 8", (1, 2, n, n), mask)


def conditions_then_causal() -> System:
    condition = flags(0.3, 2, 96, seed=28)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return condition[b, kv] | ((kv <= q) & ~condition[b, q])

    return System("BAMM", (2, 2, 96, 96), mask)


def group_schedule() -> System:
    group = integers(0, 6, 144, seed=29)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return group[kv] < group[q] + 1

    return System("M2T", (1, 2, 144, 144), mask)


def predicted_regions() -> System:
    region = flags(0.15, 2, 20, 144, seed=30)
    region[:, 3] = False
    is_empty = ~region.any(-1)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return region[b, q, kv] | is_empty[b, q]

    return System("Mask2Former", (2, 2, 20, 144), mask)


def foreground_to_foreground() -> System:
    target, source = flags(0.4, 2, 96, seed=31), flags(0.4, 2, 112, seed=32)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return target[b, q] == source[b, kv]

    return System("MasaCtrl", (2, 2, 96, 112), mask)


def boxes_as_bits() -> System:
    bits = integers(0, 8, 2, 96, seed=33)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        a, c = bits[b, q], bits[b, kv]
        return (a == 0) | (c == 0) | ((a & c) != 0)

    return System("Bounded Attention", (2, 2, 96, 96), mask)


def scenes_of_one_head() -> System:
    scenes, head = integers(0, 16, 2, 80, seed=34), 2

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (h != head) | ((scenes[b, q] & scenes[b, kv]) != 0) | (q == kv)

    return System("SASA", (2, 4, 80, 80), mask)


def inherent_template() -> System:
    n_template, n_search = 24, 64

    def is_inherent(i: Any) -> Any:
        return (i >= n_template) & (i < 2 * n_template)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return ~is_inherent(q) | is_inherent(kv)

    n = 2 * n_template + n_search
    return System("ROMTrack", (1, 2, n, n), mask)


def parallel_contexts() -> System:
    last = 5
    sizes = torch.tensor([8, 20, 25, 22, 21, 32])
    segment = torch.repeat_interleave(torch.arange(6, dtype=torch.int32), sizes).expand(2, -1)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        a, c = segment[b, q], segment[b, kv]
        return (kv <= q) & ((c == 0) | (a == c) | (a == last))

    return System("Parallel context encoding", (2, 2, 128, 128), mask)


TEXT_SYSTEMS: tuple[Callable[[], System], ...] = (
    arrow,
    persistent_tokens,
    windows_per_head,
    elastic_spans,
    between_documents,
    isolated_subjects,
    weighted_concepts,
    periodic_bias,
    largest_biases,
    routed_blocks,
    power_of_two_distances,
    strided_shards,
    sinks_and_spans,
    windows_or_global,
    latents,
    conditions_then_causal,
    group_schedule,
    predicted_regions,
    foreground_to_foreground,
    boxes_as_bits,
    scenes_of_one_head,
    inherent_template,
    short_period_bias,
    aligned_frames,
    logarithmic_scale,
    parallel_contexts,
    routed_small_blocks,
)
