"""Masks of chunks: sequences cut into equal parts."""

from __future__ import annotations

from typing import Any

from attnc.library.entry import entry, require_sizes
from attnc.mods import Mod

_FAMILY = "blocks"


@entry(
    _FAMILY,
    example="chunked(12)",
    shape=(1, 1, 48, 48),
    source="Dai et al. 2019 (segments), arXiv:1901.02860; causal as in Llama 4",
)
def chunked(size: int, n_before: int = 0) -> Mod:
    """Each token sees its own chunk of ``size`` tokens and the ``n_before`` chunks before it."""
    require_sizes("chunked", size=size)
    require_sizes("chunked", 0, n_before=n_before)
    if n_before == 0:

        def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return q_idx // size == kv_idx // size

        return mask

    def mask_with_more(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        chunks_back = q_idx // size - kv_idx // size
        return (chunks_back >= 0) & (chunks_back <= n_before)

    return mask_with_more


@entry(
    _FAMILY,
    example="block_causal(8)",
    shape=(1, 1, 48, 48),
    source="Tian et al. 2024 (VAR), arXiv:2404.02905, for equal scales",
)
def block_causal(size: int) -> Mod:
    """Each token sees its own chunk of ``size`` tokens, whole, and all chunks before it."""
    require_sizes("block_causal", size=size)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return q_idx // size >= kv_idx // size

    return mask


@entry(
    _FAMILY,
    example="block_diffusion(24, 6)",
    shape=(1, 1, 48, 48),
    source="Arriola et al. 2025 (BD3-LM), arXiv:2503.09573",
)
def block_diffusion(length: int, block: int) -> Mod:
    """Noised tokens, then the clean ones: as block diffusion trains in one pass.

    A noised token sees its own block of noised tokens and the clean blocks before it; a clean
    token sees the clean blocks up to its own.

    Args:
        length: Tokens of the sequence; attention runs over ``2 * length``.
        block: Tokens in a block.
    """
    require_sizes("block_diffusion", length=length, block=block)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        q_clean, kv_clean = q_idx >= length, kv_idx >= length
        q_block, kv_block = q_idx % length // block, kv_idx % length // block
        own = ~q_clean & ~kv_clean & (q_block == kv_block)
        earlier = ~q_clean & kv_clean & (q_block > kv_block)
        return own | earlier | (q_clean & kv_clean & (q_block >= kv_block))

    return mask
