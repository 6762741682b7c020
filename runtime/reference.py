"""Dense attention in float64 with plain torch operations: the oracle of all tests.

It shares nothing with the compiler: the user's functions are not traced but called, under
``torch.vmap`` over the four coordinates, as PyTorch's eager ``flex_attention`` does. Where torch's
integers differ from those of kernels, ``oracle_numbers`` says what they mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from attnc.runtime.oracle_numbers import KernelNumbers

MaskMod = Callable[..., Any]
ScoreMod = Callable[..., Any]

# Scores held at once, per intermediate of the user's function: 32 MiB in float64.
_CHUNK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class ReferenceResult:
    """What attention returns, in float64.

    ``out`` is (B, Hq, n_queries, value_dim); ``lse`` and ``max_scores`` are (B, Hq, n_queries),
    natural log. A row without a visible key has out 0, lse -inf and max -inf.
    """

    out: torch.Tensor
    lse: torch.Tensor
    max_scores: torch.Tensor


def reference_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    mask: MaskMod | torch.Tensor | None = None,
    score: ScoreMod | None = None,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> ReferenceResult:
    """Attention of ``q`` to ``k, v``, in float64 throughout.

    Args:
        q: (B, Hq, n_queries, head_dim), any dtype and strides.
        k: (B or 1, Hkv, n_keys, head_dim).
        v: (B or 1, Hkv, n_keys, value_dim). What a query does not see never matters here, NaN
            included; kernels promise it of keys in tiles that they do not visit.
        mask: mask_mod ``(b, h, q_idx, kv_idx)``, or a bool tensor that broadcasts to
            (B, Hq, n_queries, n_keys); True is visible.
        score: score_mod ``(score, b, h, q_idx, kv_idx)``; it gets the scaled score as float64. Its
            -inf counts as masked.
        scale: Factor of the scores, ``head_dim ** -0.5`` by default.
        enable_gqa: Let Hkv divide Hq; query head h then reads key head ``h // (Hq // Hkv)``.
    """
    n_batch, n_heads, n_queries, head_dim = q.shape
    n_keys = k.shape[2]
    if k.shape[1] != n_heads:
        assert enable_gqa, f"{n_heads} query heads on {k.shape[1]} key heads need enable_gqa=True"
    factor = 1.0 / math.sqrt(head_dim) if scale is None else scale
    keys = _as_heads(k, n_batch, n_heads)
    values = _as_heads(v, n_batch, n_heads)
    out = torch.zeros(n_batch, n_heads, n_queries, v.shape[3], dtype=torch.float64, device=q.device)
    lse = torch.full(q.shape[:3], -math.inf, dtype=torch.float64, device=q.device)
    max_scores = lse.clone()
    if 0 in (n_batch, n_heads, n_queries, n_keys):
        return ReferenceResult(out, lse, max_scores)

    for start, stop in _row_chunks(n_batch * n_heads * n_keys, n_queries):
        rows = slice(start, stop)
        scores = q[:, :, rows].double() @ keys.transpose(2, 3) * factor
        if score is not None:
            scores = _modified(score, scores, start)
        visible = _visible(mask, scores, start)
        scores = torch.where(visible, scores, -math.inf)
        largest = scores.amax(dim=3, keepdim=True)
        # A row without a visible key would compute -inf - -inf.
        shift = torch.where(largest == -math.inf, 0.0, largest)
        weights = (scores - shift).exp()
        total = weights.sum(dim=3, keepdim=True)
        normal = weights / torch.where(total == 0, 1.0, total)
        out[:, :, rows] = _weighted(normal, scores != -math.inf, values)
        lse[:, :, rows] = (total.log() + shift).squeeze(3)
        max_scores[:, :, rows] = largest.squeeze(3)
    return ReferenceResult(out, lse, max_scores)


def reference_mask(
    fn: MaskMod,
    n_batch: int,
    n_heads: int,
    n_queries: int,
    n_keys: int,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Dense bool mask (n_batch, n_heads, n_queries, n_keys) of a mask_mod; True is visible."""
    mask = torch.zeros(n_batch, n_heads, n_queries, n_keys, dtype=torch.bool, device=device)
    if mask.numel() == 0:
        return mask
    for start, stop in _row_chunks(n_batch * n_heads * n_keys, n_queries):
        mask[:, :, start:stop] = _called(fn, (), mask[:, :, start:stop], start).bool()
    return mask


def reference_scores(
    score: ScoreMod, scores: torch.Tensor, *, first_query: int = 0
) -> torch.Tensor:
    """``scores`` (B, Hq, n_queries, n_keys), already scaled, after the score_mod.

    ``first_query`` is the ``q_idx`` of the first row.
    """
    if scores.numel() == 0:
        return scores
    return _modified(score, scores, first_query)


def _modified(score: ScoreMod, scores: torch.Tensor, first_query: int) -> torch.Tensor:
    return _called(score, (scores,), scores, first_query).to(scores.dtype)


def _visible(
    mask: MaskMod | torch.Tensor | None, scores: torch.Tensor, first_query: int
) -> torch.Tensor:
    if mask is None:
        return torch.ones((), dtype=torch.bool, device=scores.device)
    if not isinstance(mask, torch.Tensor):
        return _called(mask, (), scores, first_query).bool()
    mask = mask[(None,) * (4 - mask.dim())]
    return mask if mask.shape[2] == 1 else mask[:, :, first_query : first_query + scores.shape[2]]


def _called(
    fn: Callable[..., Any], first: tuple[torch.Tensor, ...], like: torch.Tensor, first_query: int
) -> torch.Tensor:
    """``fn`` at every point of the last four dimensions of ``like``.

    Index tensors are int32, as in kernels; ``first`` are arguments before them, shaped as ``like``.
    """
    n_batch, n_heads, n_rows, n_keys = like.shape

    def one(*args: torch.Tensor) -> torch.Tensor:
        with KernelNumbers():
            return torch.as_tensor(fn(*args), device=like.device)

    lead = len(first)
    mapped: Callable[..., Any] = one
    for dimension in (3, 2, 1, 0):
        indices = tuple(0 if i == dimension else None for i in range(4))
        mapped = torch.vmap(mapped, in_dims=(*(0,) * lead, *indices))
    starts_and_stops = (
        (0, n_batch),
        (0, n_heads),
        (first_query, first_query + n_rows),
        (0, n_keys),
    )
    coordinates = [
        torch.arange(start, stop, dtype=torch.int32, device=like.device)
        for start, stop in starts_and_stops
    ]
    values: torch.Tensor = mapped(*first, *coordinates)
    return values


def _as_heads(x: torch.Tensor, n_batch: int, n_heads: int) -> torch.Tensor:
    """Keys or values in float64, one head per query head."""
    group = n_heads // x.shape[1] if x.shape[1] else 1
    heads = x.double().repeat_interleave(group, dim=1)
    return heads.expand(n_batch, *heads.shape[1:])


def _weighted(weights: torch.Tensor, visible: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """``weights @ values``, where an inf or NaN of an invisible key does not count."""
    if bool(values.isfinite().all()):
        return weights @ values
    seen = visible.double()
    total = weights @ values.nan_to_num(0.0, 0.0, 0.0)
    for special in (math.inf, -math.inf):
        total = total + torch.where(seen @ (values == special).double() > 0, special, 0.0)
    return torch.where(seen @ values.isnan().double() > 0, math.nan, total)


def _row_chunks(row_elements: int, n_rows: int) -> list[tuple[int, int]]:
    step = max(1, _CHUNK_ELEMENTS // max(1, row_elements))
    return [(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]
