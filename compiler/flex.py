"""``flex_attention`` with the names, parameters and results of PyTorch's."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from attnc.attend import attend
from attnc.block_mask import BlockMask
from attnc.errors import AuxRequestError, KernelOptionError
from attnc.mods import Mod

# Hints for PyTorch's kernels; ours are planned, so they are checked for spelling only.
_KERNEL_OPTIONS = frozenset(
    {
        "BACKEND",
        "BLOCKS_ARE_CONTIGUOUS",
        "BLOCK_M",
        "BLOCK_M1",
        "BLOCK_M2",
        "BLOCK_N",
        "BLOCK_N1",
        "BLOCK_N2",
        "FORCE_USE_FLEX_ATTENTION",
        "PARTITION_SIZE",
        "PRESCALE_QK",
        "ROWS_GUARANTEED_SAFE",
        "SKIP_MASK_SCORE",
        "SPLIT_KV",
        "USE_TMA",
        "WRITE_DQ",
        "kpack",
        "matrix_instr_nonkdim",
        "num_buffers_warp_spec",
        "num_consumer_groups",
        "num_stages",
        "num_warps",
        "waves_per_eu",
    }
)


class AuxRequest(NamedTuple):
    """Which statistics of the rows ``flex_attention`` also returns."""

    lse: bool = False
    max_scores: bool = False


class AuxOutput(NamedTuple):
    """(B, H, n_queries) each, float32 (float64 for float64 inputs); None where not asked for."""

    lse: torch.Tensor | None = None
    max_scores: torch.Tensor | None = None


def flex_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score_mod: Mod | None = None,
    block_mask: BlockMask | Any | None = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    return_lse: bool = False,
    kernel_options: Mapping[str, Any] | None = None,
    *,
    return_aux: Any | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor] | tuple[torch.Tensor, AuxOutput]:
    """Attention with a score_mod and a block mask, as ``torch.nn.attention.flex_attention``.

    Args:
        query: (B, Hq, n_queries, head_dim).
        key: (B or 1, Hkv, n_keys, head_dim).
        value: (B or 1, Hkv, n_keys, value_dim).
        score_mod: ``(score, b, h, q_idx, kv_idx) -> score``.
        block_mask: A BlockMask, ours or PyTorch's.
        scale: Factor of q . k; 1 / sqrt(head_dim) if None.
        enable_gqa: Hkv may divide Hq.
        return_lse: Return (out, lse); PyTorch prefers ``return_aux``.
        kernel_options: Hints for PyTorch's kernels; known names are accepted without effect.
        return_aux: An AuxRequest, ours or PyTorch's: return (out, AuxOutput).

    Raises:
        AuxRequestError: Both ``return_lse`` and ``return_aux``.
        KernelOptionError: A kernel option that PyTorch does not know either.
        AttncError: As ``attnc.attention``.
    """
    for name in kernel_options or ():
        if name.removeprefix("fwd_").removeprefix("bwd_") not in _KERNEL_OPTIONS:
            raise KernelOptionError(name=name, known=", ".join(sorted(_KERNEL_OPTIONS)))
    if return_lse and return_aux is not None:
        raise AuxRequestError()
    if return_lse:
        warnings.warn(
            "return_lse is deprecated in PyTorch; use return_aux=AuxRequest(lse=True)",
            FutureWarning,
            stacklevel=2,
        )
    wants_lse = return_lse or (return_aux is not None and return_aux.lse)
    wants_max = return_aux is not None and return_aux.max_scores
    outputs = attend(
        query,
        key,
        value,
        mask=block_mask,
        score=score_mod,
        scale=scale,
        enable_gqa=enable_gqa,
        wants_lse=wants_lse,
        wants_max=wants_max,
    )
    if return_aux is not None:
        return outputs.out, AuxOutput(
            outputs.lse if wants_lse else None, outputs.max_scores if wants_max else None
        )
    if return_lse:
        assert outputs.lse is not None
        return outputs.out, outputs.lse
    return outputs.out
