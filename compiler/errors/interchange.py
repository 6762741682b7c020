"""Masks to and from the formats of other libraries."""

from __future__ import annotations

from attnc.errors.base import AttncError


class InterchangeArgumentError(AttncError, ValueError):
    template = "attnc.interchange.{function}({argument}={value}): {problem}."


class NotDocumentsError(AttncError, ValueError):
    template = (
        "this mask is not one of documents, so cu_seqlens cannot hold it: the pair b={b}, h={h}, "
        "q_idx={q_idx}, kv_idx={kv_idx} is {seen}, but in the nearest {kind} documents it is "
        "{instead}. Use to_flashmask or to_dense, or run the mask itself."
    )


class NotFlashMaskError(AttncError, ValueError):
    template = (
        "FlashMask cannot hold this mask: at b={b}, h={h} the key kv_idx={kv_idx} {fact}, where "
        "causal={causal} holds {limit}. {instead}"
    )
