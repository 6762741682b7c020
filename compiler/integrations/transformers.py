"""attnc as an attention implementation of transformers.

transformers describes every mask as a function of (batch, head, query, key) positions and lets each
implementation decide what to make of it. Here it stays a function until the kernel is built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import (
    bidirectional_mask_function,
    causal_mask_function,
    padding_mask_function,
    prepare_padding_mask,
)

from attnc.attend import attend
from attnc.errors import (
    AttentionDropoutError,
    AttentionMaskTypeError,
    AttentionNameError,
    PagedCacheError,
)

MaskMod = Callable[[Any, Any, Any, Any], Any]
ScoreMod = Callable[[Any, Any, Any, Any, Any], Any]


def register(name: str = "attnc") -> str:
    """The name, now one that ``attn_implementation`` takes.

    Models of every kind that follow transformers' attention interface work: decoders and encoders,
    grouped heads, sliding and chunked windows, padding, caches, soft caps and sinks. A mask of
    one's own is passed in the call, ``model(input_ids, mask_mod=f)``: a query sees a key where the
    model's mask and ``f(b, h, q_idx, kv_idx)`` both allow it; positions count cached tokens.

    Raises:
        AttentionNameError: No name, or that of another implementation, as "sdpa".
    """
    if not isinstance(name, str) or not name.strip():
        raise AttentionNameError(name=name, problem="it is not a name")
    known = AttentionInterface().get(name)
    if name == "eager" or (known is not None and known is not attention_forward):
        raise AttentionNameError(name=name, problem="it is that of another implementation")
    AttentionInterface.register(name, attention_forward)
    AttentionMaskInterface.register(name, attention_mask_of)
    return name


@dataclass(frozen=True)
class PositionMask:
    """A mask over positions in the whole sequence, and where this call's queries and keys start."""

    mask_mod: MaskMod
    q_offset: int | torch.Tensor
    kv_offset: int | torch.Tensor
    ndim: ClassVar[int] = 4  # transformers asks: it converts masks of 2 dimensions

    def contiguous(self) -> PositionMask:
        """Itself: ``generate`` asks for it where the cache is static."""
        return self

    def joined_with(self, other: MaskMod) -> PositionMask:
        """Allows what both allow."""
        return PositionMask(_both(self.mask_mod, other), self.q_offset, self.kv_offset)

    def by_index(self) -> MaskMod:
        """The mask over indices into this call's queries and keys."""

        def by_index(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return self.mask_mod(b, h, q_idx + self.q_offset, kv_idx + self.kv_offset)

        return by_index


def attention_mask_of(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | torch.Tensor = 0,
    kv_offset: int | torch.Tensor = 0,
    mask_function: MaskMod = causal_mask_function,
    attention_mask: torch.Tensor | PositionMask | None = None,
    **_: Any,
) -> PositionMask | None:
    """What transformers hands to every layer as ``attention_mask``; None where all is visible.

    Args:
        attention_mask: Padding, (batch, keys seen), False where a key is to be ignored, or the
            result of an earlier call for the same step.
    """
    if isinstance(attention_mask, PositionMask):
        return attention_mask
    mask = PositionMask(mask_function, q_offset, kv_offset)
    visible = prepare_padding_mask(attention_mask, kv_length, kv_offset)
    if visible is not None and not visible.all():
        return mask.joined_with(padding_mask_function(visible))
    return None if mask_function is bidirectional_mask_function else mask


def attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | PositionMask | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    position_bias: torch.Tensor | None = None,
    s_aux: torch.Tensor | None = None,
    mask_mod: MaskMod | None = None,
    cache: object | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one layer, (batch, n_queries, heads, value_dim), and None for the weights.

    Args:
        module: The layer; its class is named in errors.
        query: (batch, heads, n_queries, head_dim).
        key: (batch, key heads, n_keys, head_dim); a static cache may be longer than the mask.
        value: (batch, key heads, n_keys, value_dim).
        attention_mask: From ``attention_mask_of``, or a tensor that broadcasts to
            (batch, heads, n_queries, n_keys): boolean, or to be added to the scores.
        is_causal: Counts only without an ``attention_mask``.
        softcap: Scores become ``softcap * tanh(score / softcap)``.
        position_bias: Added to the scores; broadcasts to (batch, heads, n_queries, n_keys).
        s_aux: (heads,), the score of a sink: a further key without a value.
        mask_mod: Further restricts what is visible; over positions.

    Raises:
        AttentionDropoutError: ``dropout`` is not 0.
        AttentionMaskTypeError: ``attention_mask`` is neither of the two.
        PagedCacheError: The keys are in a paged cache.
    """
    layer = type(module).__name__
    if dropout > 0:
        raise AttentionDropoutError(module=layer, dropout=dropout)
    if cache is not None:
        raise PagedCacheError(module=layer)

    n_keys = key.shape[2]
    shape = (*query.shape[:3], n_keys)
    bias = [position_bias]
    visible = PositionMask(bidirectional_mask_function, 0, 0)
    match attention_mask:
        case PositionMask():
            visible = attention_mask
        case torch.Tensor(dtype=torch.bool):
            table = attention_mask[..., :n_keys].expand(shape)
            visible = PositionMask(_looked_up(table), 0, 0)
        case torch.Tensor():
            bias.append(attention_mask[..., :n_keys])
        case None:
            if is_causal and query.shape[2] > 1:
                visible = PositionMask(causal_mask_function, 0, 0)
        case _:
            raise AttentionMaskTypeError(module=layer, mask_type=type(attention_mask).__name__)
    if mask_mod is not None:
        visible = visible.joined_with(mask_mod)

    outputs = attend(
        query,
        key,
        value,
        mask=None if visible.mask_mod is bidirectional_mask_function else visible.by_index(),
        score=_score_mod(softcap, [b.expand(shape) for b in bias if b is not None]),
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
        wants_lse=s_aux is not None,
    )
    out = outputs.out
    if s_aux is not None:
        assert outputs.lse is not None
        # With a sink the weights sum to exp(lse) / (exp(lse) + exp(sink)).
        share = torch.sigmoid(outputs.lse - s_aux.float()[:, None])
        out = out * share.to(out.dtype)[..., None]
    return out.transpose(1, 2).contiguous(), None


def _both(first: MaskMod, second: MaskMod) -> MaskMod:
    if first is bidirectional_mask_function:
        return second

    def both(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return first(b, h, q_idx, kv_idx) & second(b, h, q_idx, kv_idx)

    return both


def _looked_up(table: torch.Tensor) -> MaskMod:
    def looked_up(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return table[b, h, q_idx, kv_idx]

    return looked_up


def _score_mod(softcap: float | None, bias: list[torch.Tensor]) -> ScoreMod | None:
    """The change of the scores; None for none. The cap comes first, as in transformers."""
    if softcap is None and not bias:
        return None

    def score_mod(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        if softcap is not None:
            score = softcap * torch.tanh(score / softcap)
        for table in bias:
            score = score + table[b, h, q_idx, kv_idx]
        return score

    return score_mod
