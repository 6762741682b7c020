"""``flex_attention`` with the names, parameters and results of PyTorch's."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypedDict, get_args

import torch

from attnc import checks
from attnc.attend import attend
from attnc.block_mask import BlockMask, create_block_mask, create_mask
from attnc.errors import (
    AuxRequestError,
    AuxRequestTypeError,
    KernelBackendError,
    KernelOptionConflictError,
    KernelOptionError,
    KernelOptionReservedError,
    KernelOptionsTypeError,
)
from attnc.inputs import checked_flag
from attnc.mods import Mod, and_masks, noop_mask, or_masks

__all__ = [
    "AuxOutput",
    "AuxRequest",
    "BlockMask",
    "FlexKernelOptions",
    "and_masks",
    "create_block_mask",
    "create_mask",
    "flex_attention",
    "noop_mask",
    "or_masks",
]

# Names that code written for PyTorch imports as well.
_DEFAULT_SPARSE_BLOCK_SIZE = 128
_score_mod_signature = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor
]
_mask_mod_signature = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor
]
_Backend = Literal["AUTO", "TRITON", "FLASH", "TRITON_DECODE"]


class FlexKernelOptions(TypedDict, total=False):
    """Hints for PyTorch's kernels, each also with ``fwd_`` or ``bwd_`` in front.

    Ours are planned, so hints are checked for spelling and have no effect.
    """

    num_warps: int
    num_stages: int
    BLOCK_M: int
    BLOCK_N: int
    BLOCK_M1: int
    BLOCK_N1: int
    BLOCK_M2: int
    BLOCK_N2: int
    PRESCALE_QK: bool
    ROWS_GUARANTEED_SAFE: bool
    BLOCKS_ARE_CONTIGUOUS: bool
    WRITE_DQ: bool
    FORCE_USE_FLEX_ATTENTION: bool
    USE_TMA: bool
    kpack: int
    matrix_instr_nonkdim: int
    waves_per_eu: int
    BACKEND: _Backend


# Those of the type, and what PyTorch's kernels take without telling.
_KERNEL_OPTIONS = FlexKernelOptions.__optional_keys__ | {
    "PARTITION_SIZE",
    "SKIP_MASK_SCORE",
    "SPLIT_KV",
    "num_buffers_warp_spec",
    "num_consumer_groups",
}
_RESERVED_OPTIONS = ("OUTPUT_LOGSUMEXP", "OUTPUT_MAX")


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
    kernel_options: FlexKernelOptions | Mapping[str, Any] | None = None,
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
        KernelBackendError: A BACKEND that PyTorch does not know either.
        KernelOptionConflictError: BACKEND together with the option that it replaced.
        AttncError: As ``attnc.attention``.
    """
    if return_lse is not True and return_lse is not False:
        return_lse = checked_flag("return_lse", return_lse)
    if kernel_options is not None:
        _check_options(kernel_options)
    if return_lse and return_aux is not None:
        raise AuxRequestError()
    if return_lse and not torch.compiler.is_compiling():  # dynamo cannot trace a warning
        warnings.warn(
            "return_lse is deprecated in PyTorch; use return_aux=AuxRequest(lse=True)",
            FutureWarning,
            stacklevel=2,
        )
    wants_lse, wants_max = return_lse, False
    if return_aux is not None:
        wants_lse, wants_max = _requested(return_aux)
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


def _requested(aux: Any) -> tuple[bool, bool]:
    """Whether ``aux`` asks for the log-sum-exp, and for the largest scores."""
    try:
        lse, max_scores = aux.lse, aux.max_scores
    except AttributeError:
        raise AuxRequestTypeError(value=aux) from None
    return checked_flag("AuxRequest.lse", lse), checked_flag("AuxRequest.max_scores", max_scores)


def _check_options(options: Mapping[str, Any]) -> None:
    if not isinstance(options, Mapping):
        raise KernelOptionsTypeError(value=options)
    for name in options:
        if name in _RESERVED_OPTIONS:
            raise KernelOptionReservedError(name=name)
        if not isinstance(name, str):
            raise KernelOptionError(name=name, known=", ".join(sorted(_KERNEL_OPTIONS)))
        if name.removeprefix("fwd_").removeprefix("bwd_") not in _KERNEL_OPTIONS:
            raise KernelOptionError(name=name, known=", ".join(sorted(_KERNEL_OPTIONS)))
    if "BACKEND" not in options:
        return
    if options.get("FORCE_USE_FLEX_ATTENTION"):
        raise KernelOptionConflictError()
    if not checks.one_of(options["BACKEND"], get_args(_Backend)):
        known = ", ".join(map(repr, get_args(_Backend)))
        raise KernelBackendError(backend=options["BACKEND"], known=known)
