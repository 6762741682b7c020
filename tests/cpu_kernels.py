"""Running CPU kernels below the public surface: one unit of many, any instruction set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from attnc.blocks import classify
from attnc.blocks.terms import with_held_terms
from attnc.conjunction import terms_of
from attnc.ir import DType
from attnc.plan import Spec
from attnc.program import Program, build_program
from attnc.run_table import RunTable
from attnc.runtime.call import BackwardCall, Call, CompiledKernel
from attnc.runtime.cpu import load_cpu_kernels
from attnc.runtime.isa import best_isa
from attnc.target import CpuIsa, CpuTarget


@dataclass(frozen=True)
class Result:
    out: torch.Tensor
    lse: torch.Tensor
    max_scores: torch.Tensor


def spec_of(
    program: Program,
    *,
    dtype: torch.dtype = torch.float32,
    head_dim: int = 16,
    value_dim: int | None = None,
    isa: CpuIsa | None = None,
    **options: Any,
) -> Spec:
    return Spec(
        mask=program.lifted.exprs[0],
        score=program.lifted.exprs[1],
        slots=program.slots,
        params=program.lifted.dtypes,
        dtype=str(dtype).removeprefix("torch."),
        head_dim=head_dim,
        value_dim=head_dim if value_dim is None else value_dim,
        target=CpuTarget(isa or best_isa()),
        wants_lse=True,
        wants_max=True,
        **options,
    )


def program_of(mask: Any, score: Any, dtype: torch.dtype = torch.float32) -> Program:
    accumulated = DType.FLOAT64 if dtype is torch.float64 else DType.FLOAT32
    return build_program(mask, score, accumulated)


def run(
    kernel: CompiledKernel,
    program: Program,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None = None,
    table: RunTable | None = None,
) -> Result:
    """Runs ``kernel`` into outputs full of NaN, so that what it leaves out shows."""
    stat_dtype = _accumulated(q)
    out = q.new_full((*q.shape[:3], v.shape[3]), torch.nan)
    lse, max_scores = (torch.full(q.shape[:3], torch.nan, dtype=stat_dtype) for _ in range(2))
    table = table or table_of(kernel, program, q, k)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    values = program.lifted.values
    kernel.run(Call(q, k, v, out, lse, max_scores, scale, values, program.tensors, table))
    return Result(out, lse, max_scores)


def run_backward(
    kernel: CompiledKernel,
    program: Program,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    result: Result,
    grad_out: torch.Tensor,
    grad_lse: torch.Tensor | None,
    captured: Sequence[int] = (),
    scale: float | None = None,
) -> list[torch.Tensor]:
    """Gradients of q, k, v and of the captured tensors of these numbers, NaN where left out."""
    scale = q.shape[3] ** -0.5 if scale is None else scale
    table = table_of(kernel, program, q, k)
    values, tensors = program.lifted.values, program.tensors
    call = Call(q, k, v, result.out, result.lse, None, scale, values, tensors, table)
    gradients = [torch.full_like(x, torch.nan) for x in (q, k, v)]
    stored = [torch.full(tensors[n].shape, torch.nan, dtype=_accumulated(q)) for n in captured]
    kernel.run_backward(BackwardCall(call, grad_out, grad_lse, *gradients, stored))
    return [*gradients, *stored]


def _accumulated(q: torch.Tensor) -> torch.dtype:
    return torch.float64 if q.dtype is torch.float64 else torch.float32


def table_of(
    kernel: CompiledKernel, program: Program, q: torch.Tensor, k: torch.Tensor
) -> RunTable | None:
    if not kernel.uses_table:
        return None
    assert program.mask is not None
    table = classify(
        program.mask,
        program.tensors,
        n_batch=q.shape[0],
        n_heads=q.shape[1],
        n_queries=q.shape[2],
        n_keys=k.shape[2],
        block_m=kernel.block_m,
        block_n=kernel.block_n,
    ).table
    if not kernel.knows_terms:
        return table
    return with_held_terms(table, terms_of(program.mask), program.tensors)


def load(specs: Sequence[Spec], optimization: str = "-O1") -> Sequence[CompiledKernel]:
    return load_cpu_kernels(specs, optimization=optimization)
