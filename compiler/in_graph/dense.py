"""The reference behind the operator: traced expressions as functions that it calls on tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from attnc.block_mask.fixed import as_function
from attnc.evaluate import evaluate
from attnc.ir import Expr
from attnc.mods import Mod
from attnc.runtime.dispatch import Fixed, Outputs, TracedProgram


def dense_outputs(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, program: TracedProgram, scale: float
) -> Outputs:
    """As ``run_program``, densely and in float64."""
    from attnc.runtime.reference import reference_attention

    mask = None if program.mask is None else _as_mod(program.mask, program.tensors)
    if program.given is not None:
        mask = as_function(Fixed(program.given, mask, None), q.device)
    score = None if program.score is None else _as_score_mod(program.score, program.tensors)
    result = reference_attention(q, k, v, mask=mask, score=score, scale=scale, enable_gqa=True)
    stat_dtype = torch.float64 if q.dtype is torch.float64 else torch.float32
    return Outputs(
        result.out.to(q.dtype), result.lse.to(stat_dtype), result.max_scores.to(stat_dtype)
    )


def _as_mod(expr: Expr, tensors: Sequence[torch.Tensor]) -> Mod:
    def mask_mod(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return evaluate(expr, b=b, h=h, q_idx=q_idx, kv_idx=kv_idx, tensors=tensors)

    return mask_mod


def _as_score_mod(expr: Expr, tensors: Sequence[torch.Tensor]) -> Mod:
    def score_mod(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return evaluate(expr, b=b, h=h, q_idx=q_idx, kv_idx=kv_idx, score=score, tensors=tensors)

    return score_mod
