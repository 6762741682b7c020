"""The cost of what an ``Analysis`` knows: arguments checked, the score traced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from attnc import checks
from attnc.cost.model import Problem, backward_target, cost_of
from attnc.cost.record import Cost
from attnc.errors import AnalysisArgumentError
from attnc.ir import DType, Expr
from attnc.mods import require_kind
from attnc.program import assemble
from attnc.run_table import RunTable
from attnc.target import GPU_TARGETS, CpuTarget, Target
from attnc.trace import SlotTable, trace_score


def cost_of_analysis(
    mask: Expr,
    tensors: Sequence[torch.Tensor],
    table: RunTable | None,
    *,
    shape: tuple[int, int, int, int],
    head_dim: int,
    value_dim: int,
    kv_heads: int,
    dtype: str,
    score: Callable[..., Any] | None,
    target: str,
    n_threads: int,
    backward: bool,
) -> Cost:
    """See ``Analysis.cost``; ``shape`` is (B, H, n_queries, n_keys)."""
    for name, value in (
        ("head_dim", head_dim),
        ("value_dim", value_dim),
        ("kv_heads", kv_heads),
        ("n_threads", n_threads),
    ):
        if checks.size(value, least=1) is None:
            raise AnalysisArgumentError(name=name, value=value, problem="it must be positive")
    head_dim, value_dim, kv_heads, n_threads = map(int, (head_dim, value_dim, kv_heads, n_threads))
    if checks.flag(backward) is None:
        raise AnalysisArgumentError(name="backward", value=backward, problem="give True or False")
    if shape[1] % kv_heads:
        problem = f"it must divide the {shape[1]} query heads of the analysis"
        raise AnalysisArgumentError(name="kv_heads", value=kv_heads, problem=problem)
    if not checks.one_of(dtype, checks.DTYPES):
        problem = f"use one of {', '.join(checks.DTYPES)}"
        raise AnalysisArgumentError(name="dtype", value=dtype, problem=problem)
    slots = SlotTable()
    for tensor in tensors:
        slots.slot_of(tensor)
    score_expr = None
    if score is not None:
        require_kind(score, "score_mod", "score")
        float_dtype = DType.FLOAT64 if dtype == "float64" else DType.FLOAT32
        score_expr = trace_score(score, slots, float_dtype).expr
    n_batch, n_heads, n_queries, n_keys = shape
    return cost_of(
        Problem(
            program=assemble(mask, score_expr, slots, {}),
            n_batch=n_batch,
            n_heads=n_heads,
            kv_heads=kv_heads,
            n_queries=n_queries,
            n_keys=n_keys,
            head_dim=head_dim,
            value_dim=value_dim,
            dtype=dtype,
            target=_target(target, backward=backward),
            n_threads=n_threads,
            backward=backward,
            table=table,
        )
    )


def _target(name: str, *, backward: bool) -> Target:
    if checks.one_of(name, GPU_TARGETS):
        return GPU_TARGETS[name]
    if not checks.one_of(name, ("cpu",)):
        problem = f"use cpu, {', '.join(GPU_TARGETS)}"
        raise AnalysisArgumentError(name="target", value=name, problem=problem)
    from attnc.runtime.isa import best_isa

    target = CpuTarget(best_isa())
    return backward_target(target) if backward else target
