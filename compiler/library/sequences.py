"""Masks of sequences: by order and distance."""

from __future__ import annotations

from typing import Any

import torch

from attnc import checks
from attnc.library.entry import argument_error, entry, require_sizes, require_tensor
from attnc.mods import Mod

_FAMILY = "sequences"


@entry(
    _FAMILY,
    example="causal()",
    shape=(1, 1, 48, 48),
    source="Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3",
)
def causal(offset: int = 0) -> Mod:
    """Each query sees the keys up to its own position.

    Args:
        offset: Of positions of queries in those of keys: ``n_keys - n_queries`` where the last
            query belongs to the last key, as in decoding.
    """
    if checks.whole_number(offset) is None:
        raise argument_error("causal", "offset", offset, "give an int")

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return q_idx + offset >= kv_idx

    return mask


@entry(
    _FAMILY,
    example="sliding_window(11)",
    shape=(1, 1, 48, 48),
    source="Beltagy et al. 2020 (Longformer), arXiv:2004.05150; causal: Mistral 7B, "
    "arXiv:2310.06825",
)
def sliding_window(left: int, right: int = 0) -> Mod:
    """Each query sees ``left`` keys before its position, that position, and ``right`` after it.

    ``sliding_window(w - 1)`` is causal attention to the last w tokens. Both ends count as in
    FlashAttention's ``window_size``.
    """
    require_sizes("sliding_window", 0, left=left, right=right)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (q_idx - kv_idx <= left) & (kv_idx - q_idx <= right)

    return mask


@entry(
    _FAMILY,
    example="dilated_window(5, 0, dilation=3)",
    shape=(1, 1, 48, 48),
    source="Beltagy et al. 2020 (Longformer), arXiv:2004.05150, section 3.1",
)
def dilated_window(left: int, right: int = 0, *, dilation: int) -> Mod:
    """A sliding window with gaps: ``left`` keys before and ``right`` after, ``dilation`` apart."""
    require_sizes("dilated_window", 0, left=left, right=right)
    require_sizes("dilated_window", dilation=dilation)
    before, after = left * dilation, right * dilation

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        near = (q_idx - kv_idx <= before) & (kv_idx - q_idx <= after)
        return near & ((q_idx - kv_idx) % dilation == 0)

    return mask


@entry(
    _FAMILY,
    example="global_window(4, 6, 6)",
    shape=(1, 1, 48, 48),
    source="Longformer, arXiv:2004.05150; BigBird, arXiv:2007.14062 (without its random keys)",
)
def global_window(n_global: int, left: int, right: int) -> Mod:
    """A sliding window; the first ``n_global`` tokens see all and are seen by all.

    Args:
        n_global: In tokens.
        left: Keys seen before the query.
        right: Keys seen after the query.
    """
    require_sizes("global_window", 0, n_global=n_global, left=left, right=right)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        near = (q_idx - kv_idx <= left) & (kv_idx - q_idx <= right)
        return near | (q_idx < n_global) | (kv_idx < n_global)

    return mask


@entry(
    _FAMILY,
    example="sink_window(4, 11)",
    shape=(1, 1, 48, 48),
    source="Xiao et al. 2023 (StreamingLLM), arXiv:2309.17453",
)
def sink_window(n_sinks: int, left: int) -> Mod:
    """Causal: the first ``n_sinks`` keys, ``left`` keys before the query, and its own."""
    require_sizes("sink_window", 0, n_sinks=n_sinks, left=left)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (q_idx >= kv_idx) & ((kv_idx < n_sinks) | (q_idx - kv_idx <= left))

    return mask


@entry(
    _FAMILY,
    example="prefix_lm(16)",
    shape=(1, 1, 48, 48),
    source="Raffel et al. 2019 (T5), arXiv:1910.10683, section 3.2.1",
)
def prefix_lm(length: int | torch.Tensor) -> Mod:
    """All see the first ``length`` keys; what follows is causal.

    Args:
        length: In tokens, or a tensor of integers (B,) with one for each batch row.
    """
    if isinstance(length, torch.Tensor):
        require_tensor("prefix_lm", "length", length, (1,), "(B,)", integers=True)
        lengths = length

        def mask_by_row(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return (kv_idx < lengths[b]) | (q_idx >= kv_idx)

        return mask_by_row
    require_sizes("prefix_lm", 0, length=length)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (kv_idx < length) | (q_idx >= kv_idx)

    return mask


@entry(
    _FAMILY,
    example="strided(8)",
    shape=(1, 1, 48, 48),
    source="Child et al. 2019 (Sparse Transformer), arXiv:1904.10509: strided attention",
)
def strided(stride: int) -> Mod:
    """Causal: the last ``stride`` keys, and every key a multiple of ``stride`` back."""
    require_sizes("strided", stride=stride)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        distance = q_idx - kv_idx
        return (distance >= 0) & ((distance < stride) | (distance % stride == 0))

    return mask


@entry(
    _FAMILY,
    example="fixed(8, 2)",
    shape=(1, 1, 48, 48),
    source="Child et al. 2019 (Sparse Transformer), arXiv:1904.10509: fixed attention",
)
def fixed(stride: int, n_summary: int = 1) -> Mod:
    """Causal: the query's own chunk of ``stride`` keys, and the last ``n_summary`` of each."""
    require_sizes("fixed", stride=stride, n_summary=n_summary)
    first = stride - n_summary

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        own = q_idx // stride == kv_idx // stride
        return (q_idx >= kv_idx) & (own | (kv_idx % stride >= first))

    return mask


@entry(
    _FAMILY,
    example="power_of_two(4, 7, 2)",
    shape=(1, 1, 64, 64),
    source="Chen et al. 2025 (PowerAttention), arXiv:2503.03588; block distances from memory",
)
def power_of_two(block: int, left: int, n_sinks: int = 0) -> Mod:
    """Causal: sinks, a window, and blocks of keys at a distance of 0, 1, 2, 4, 8, ... blocks.

    Args:
        block: Tokens in a block.
        left: Keys seen before the query in any case.
        n_sinks: First keys, seen by all that come later.
    """
    require_sizes("power_of_two", block=block)
    require_sizes("power_of_two", 0, left=left, n_sinks=n_sinks)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        distance = q_idx // block - kv_idx // block
        is_power = (distance & (distance - 1)) == 0
        near = (q_idx - kv_idx <= left) | (kv_idx < n_sinks)
        return (q_idx >= kv_idx) & (near | is_power)

    return mask


@entry(
    _FAMILY,
    example="windows_per_head(torch.tensor([4, 8, 16, 32], dtype=torch.int32))",
    shape=(1, 4, 48, 48),
    source="Fu et al. 2024 (MoA), arXiv:2406.14909: every head has a span of its own",
)
def windows_per_head(left: torch.Tensor, n_sinks: torch.Tensor | None = None) -> Mod:
    """Causal: head h sees ``left[h]`` keys before the query, its own, and first ``n_sinks[h]``.

    Args:
        left: (H,), integers.
        n_sinks: (H,), integers; None for no sinks.
    """
    require_tensor("windows_per_head", "left", left, (1,), "(H,)", integers=True)
    if n_sinks is None:

        def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return (q_idx >= kv_idx) & (q_idx - kv_idx <= left[h])

        return mask
    sinks = n_sinks
    require_tensor("windows_per_head", "n_sinks", sinks, (1,), "(H,)", integers=True)

    def mask_with_sinks(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (q_idx >= kv_idx) & ((q_idx - kv_idx <= left[h]) | (kv_idx < sinks[h]))

    return mask_with_sinks
