"""Scores: biases by position, learned tables, caps and temperatures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from attnc import checks
from attnc.library.entry import (
    argument_error,
    entry,
    require_device,
    require_flag,
    require_sizes,
    require_tensor,
)
from attnc.mods import Mod

_FAMILY = "scores"
_MAX_HEADS = 1 << 16
_MAX_DISTANCE = 1 << 24  # t5_bias has a table of them


def alibi_slopes(n_heads: int, device: torch.device | str | None = None) -> torch.Tensor:
    """Slopes of ALiBi, (n_heads,), float32.

    For a power of two, ``2 ** (-8 * (h + 1) / n_heads)``; otherwise those of the next lower power
    and then every other one of the next higher.

    Args:
        n_heads: Number of query heads.
        device: Of the result.

    Source: Press et al. 2021, arXiv:2108.12409, and its released code.
    """
    require_sizes("alibi_slopes", most=_MAX_HEADS, n_heads=n_heads)
    require_device("alibi_slopes", device)
    lower = 2 ** int(math.log2(n_heads))
    slopes = [2 ** (-8 * (head + 1) / lower) for head in range(lower)]
    slopes += [2 ** (-8 * (head + 0.5) / lower) for head in range(n_heads - lower)]
    return torch.tensor(slopes, device=device)


@entry(
    _FAMILY,
    example="alibi(4)",
    shape=(1, 4, 48, 48),
    source="Press et al. 2021, arXiv:2108.12409",
)
def alibi(slopes: int | torch.Tensor, *, device: torch.device | str | None = None) -> Mod:
    """Subtracts a slope of each head times the distance of query and key.

    Args:
        slopes: (H,), real; or the number of heads, for ``alibi_slopes``. Gradients flow to it.
        device: Of q, k and v, for a number of heads.
    """
    rates = alibi_slopes(slopes, device) if isinstance(slopes, int) else slopes
    require_tensor("alibi", "slopes", rates, (1,), "(H,), or give H", integers=False)

    def score_mod(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return score - rates[h] * torch.abs(q_idx - kv_idx)

    return score_mod


@entry(
    _FAMILY,
    example="softcap(20.0)",
    shape=(1, 1, 48, 48),
    source="Gemma 2, arXiv:2408.00118, section 2",
)
def softcap(cap: float) -> Mod:
    """Keeps scores between -cap and cap: ``cap * tanh(score / cap)``."""
    if isinstance(cap, bool) or not isinstance(cap, int | float) or not 0 < cap < math.inf:
        raise argument_error("softcap", "cap", cap, "give a positive number")

    def score_mod(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return cap * torch.tanh(score / cap)

    return score_mod


@entry(
    _FAMILY,
    example="relative_bias(torch.linspace(-1, 1, 31).repeat(2, 1))",
    shape=(1, 2, 48, 48),
    source="Shaw et al. 2018, arXiv:1803.02155 (clipped distances), as an added scalar: "
    "T5, arXiv:1910.10683",
)
def relative_bias(table: torch.Tensor) -> Mod:
    """Adds ``table[h, distance]`` for clipped distances of query and key.

    Args:
        table: (H, 2 * reach + 1), real: the middle is distance 0, the end a key ``reach`` before
            the query or more. Gradients flow to it.
    """
    require_tensor("relative_bias", "table", table, (2,), "(H, 2 * reach + 1)", integers=False)
    if table.shape[1] % 2 == 0:
        raise argument_error(
            "relative_bias",
            "table",
            list(table.shape),
            "give an odd number of columns, 2 * reach + 1",
        )
    reach = table.shape[1] // 2

    def score_mod(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return score + table[h, torch.clamp(q_idx - kv_idx, -reach, reach) + reach]

    return score_mod


@entry(
    _FAMILY,
    example=(
        "relative_bias_2d("
        "-torch.arange(-7.0, 8)[:, None].hypot(torch.arange(-7.0, 8)).repeat(2, 1, 1), (8, 8))"
    ),
    shape=(1, 2, 64, 64),
    source="Liu et al. 2021 (Swin), arXiv:2103.14030, section 3.2",
)
def relative_bias_2d(table: torch.Tensor, grid: Sequence[int]) -> Mod:
    """Adds ``table[h, row distance, column distance]`` for the cells of a grid in row-major order.

    Args:
        table: (H, 2 * rows - 1, 2 * columns - 1), real, distance 0 in the middle. A smaller one
            is clipped to. Gradients flow to it.
        grid: (rows, columns).
    """
    name = "relative_bias_2d"
    require_tensor(name, "table", table, (3,), "(H, 2 * rows - 1, 2 * columns - 1)", integers=False)
    sizes = checks.items(grid) or ()
    if len(sizes) != 2:
        raise argument_error(name, "grid", grid, "give (rows, columns)")
    rows, columns = sizes
    require_sizes(name, rows=rows, columns=columns)
    down, right = table.shape[1] // 2, table.shape[2] // 2

    def score_mod(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        dy = torch.clamp(q_idx // columns - kv_idx // columns, -down, down)
        dx = torch.clamp(q_idx % columns - kv_idx % columns, -right, right)
        return score + table[h, dy + down, dx + right]

    return score_mod


@entry(
    _FAMILY,
    example="t5_bias(torch.linspace(0, -3, 16).repeat(2, 2).T)",
    shape=(1, 2, 48, 48),
    source="Raffel et al. 2019 (T5), arXiv:1910.10683, and its released code",
)
def t5_bias(table: torch.Tensor, *, bidirectional: bool = True, max_distance: int = 128) -> Mod:
    """Adds ``table[bucket, h]``: near distances have a bucket each, far ones share them by log.

    Args:
        table: (n_buckets, H), real, as ``relative_attention_bias.weight``. Gradients flow to it.
        bidirectional: Half of the buckets are for keys after the query; without it these share
            bucket 0.
        max_distance: From here on all distances share the last bucket.
    """
    require_tensor("t5_bias", "table", table, (2,), "(n_buckets, H)", integers=False)
    require_flag("t5_bias", "bidirectional", bidirectional)
    n_buckets = table.shape[0] // 2 if bidirectional else table.shape[0]
    n_exact = n_buckets // 2
    if n_exact < 1:
        raise argument_error(
            "t5_bias", "table", table, "give at least 2 buckets, 4 if bidirectional"
        )
    require_sizes("t5_bias", n_exact + 1, _MAX_DISTANCE, max_distance=max_distance)
    steps = torch.arange(n_exact, max_distance + 1, dtype=torch.float32)
    far = torch.log(steps / n_exact) / math.log(max_distance / n_exact) * (n_buckets - n_exact)
    near = torch.arange(n_exact)
    shared = (n_exact + far.long()).clamp(max=n_buckets - 1)
    bucket = torch.cat([near, shared]).to(
        table.device, torch.int32
    )  # by distance, 0 to max_distance

    def score_mod(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        if bidirectional:
            distance = torch.clamp(torch.abs(q_idx - kv_idx), max=max_distance)
            later = torch.where(kv_idx > q_idx, n_buckets, 0)
            return score + table[bucket[distance] + later, h]
        return score + table[bucket[torch.clamp(q_idx - kv_idx, 0, max_distance)], h]

    return score_mod


@entry(
    _FAMILY,
    example="periodic_bias(alibi_slopes(4), 6)",
    shape=(1, 4, 48, 48),
    source="Fan et al. 2021 (FaceFormer), arXiv:2112.05329",
)
def periodic_bias(slopes: torch.Tensor, period: int) -> Mod:
    """Subtracts a slope of each head times the number of whole periods between query and key.

    Args:
        slopes: (H,), real. Gradients flow to it.
        period: In tokens.
    """
    require_tensor("periodic_bias", "slopes", slopes, (1,), "(H,)", integers=False)
    require_sizes("periodic_bias", period=period)

    def score_mod(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return score - slopes[h] * (torch.abs(q_idx - kv_idx) // period)

    return score_mod


@entry(
    _FAMILY,
    example="log_n_scaling(16)",
    shape=(1, 1, 48, 48),
    source="Chiang and Cholak 2022, arXiv:2202.12172; from a trained length on as in Qwen, "
    "arXiv:2309.16609",
)
def log_n_scaling(n_trained: int) -> Mod:
    """Multiplies scores by the log of the query's place to the base ``n_trained``, at least by 1.

    Query i has ``i + 1`` keys in causal attention.
    """
    require_sizes("log_n_scaling", 2, n_trained=n_trained)
    per_log = 1 / math.log(n_trained)

    def score_mod(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return score * torch.clamp(torch.log(q_idx + 1.0) * per_log, min=1.0)

    return score_mod


@entry(
    _FAMILY,
    example="exponential_decay(torch.tensor([0.9, 0.99]))",
    shape=(1, 2, 48, 48),
    source="Sun et al. 2023 (RetNet), arXiv:2307.08621: its decay, inside a softmax",
)
def exponential_decay(gamma: torch.Tensor) -> Mod:
    """Multiplies weights by ``gamma[h]`` per token of distance: adds ``distance * log(gamma[h])``.

    Args:
        gamma: (H,), real, positive. Gradients flow to it.
    """
    require_tensor("exponential_decay", "gamma", gamma, (1,), "(H,)", integers=False)

    def score_mod(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return score + torch.abs(q_idx - kv_idx) * torch.log(gamma[h])

    return score_mod


@entry(
    _FAMILY,
    example="logarithmic_decay(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.1]))",
    shape=(1, 2, 48, 48),
    source="Chi et al. 2022 (KERPLE), arXiv:2205.09921, logarithmic variant",
)
def logarithmic_decay(factor: torch.Tensor, rate: torch.Tensor) -> Mod:
    """Subtracts ``factor[h] * log(1 + rate[h] * distance)``.

    Args:
        factor: (H,), real, positive. Gradients flow to it.
        rate: (H,), real, positive. Gradients flow to it.
    """
    require_tensor("logarithmic_decay", "factor", factor, (1,), "(H,)", integers=False)
    require_tensor("logarithmic_decay", "rate", rate, (1,), "(H,)", integers=False)

    def score_mod(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return score - factor[h] * torch.log(1.0 + rate[h] * torch.abs(q_idx - kv_idx))

    return score_mod


@entry(
    _FAMILY,
    example="gaussian_decay(torch.tensor([4.0, 12.0]))",
    shape=(1, 2, 48, 48),
    source="Luong et al. 2015, arXiv:1508.04025, equation 10, inside the softmax",
)
def gaussian_decay(sigma: torch.Tensor) -> Mod:
    """Subtracts ``distance ** 2 / (2 * sigma[h] ** 2)``.

    Args:
        sigma: (H,), real, in tokens. Gradients flow to it.
    """
    require_tensor("gaussian_decay", "sigma", sigma, (1,), "(H,)", integers=False)

    def score_mod(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        ratio = (q_idx - kv_idx) / sigma[h]
        return score - 0.5 * ratio * ratio

    return score_mod
