"""Running Triton kernels below the public surface, in Triton's interpreter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from cpu_kernels import Result, program_of, run, spec_of

from attnc.run_table import RunTable
from attnc.runtime.reference import reference_attention
from attnc.runtime.triton import load_triton_kernel
from attnc.target import INTERPRETER
from attnc.testing import assert_close_to_reference


def interpret(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    mask: Any = None,
    score: Any = None,
    scale: float | None = None,
    table: RunTable | None = None,
    **options: Any,
) -> Result:
    """Attention by an interpreted Triton kernel; ``options`` are fields of its ``Spec``."""
    program = program_of(mask, score, q.dtype)
    spec = spec_of(program, dtype=q.dtype, head_dim=q.shape[3], value_dim=v.shape[3], **options)
    kernel = load_triton_kernel(replace(spec, target=INTERPRETER))
    return run(kernel, program, q, k, v, scale=scale, table=table)


def assert_equals_oracle(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    mask: Any = None,
    score: Any = None,
    scale: float | None = None,
    **options: Any,
) -> Result:
    """Passes if the kernel's three results are those of dense float64; the results."""
    result = interpret(q, k, v, mask=mask, score=score, scale=scale, **options)
    default = torch.get_default_dtype()
    # An integer times a float is of the default dtype in eager PyTorch.
    torch.set_default_dtype(torch.float64 if q.dtype is torch.float64 else torch.float32)
    try:
        expected = reference_attention(
            q, k, v, mask=mask, score=score, scale=scale, enable_gqa=True
        )
    finally:
        torch.set_default_dtype(default)
    norms = [float(x.double().norm(dim=-1).max()) if x.numel() else 0.0 for x in (q, k)]
    factor = q.shape[3] ** -0.5 if scale is None else abs(scale)
    common: dict[str, Any] = {
        "head_dim": q.shape[3],
        "n_keys": k.shape[2],
        "score_scale": norms[0] * norms[1] * factor,
    }
    values = float(v.double().abs().max()) if v.numel() else 1.0
    assert_close_to_reference(
        result.out, result.lse, expected, q.dtype, value_scale=values, **common
    )
    torch.testing.assert_close(
        result.max_scores.double(), expected.max_scores, rtol=1e-5, atol=1e-4, equal_nan=True
    )
    return result


def qkv(
    n_queries: int,
    n_keys: int,
    head_dim: int = 16,
    value_dim: int | None = None,
    *,
    n_batch: int = 1,
    n_heads: int = 1,
    kv_batch: int | None = None,
    kv_heads: int | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random q, k, v of these shapes; keys have the batch and heads of queries by default."""
    generator = torch.Generator().manual_seed(seed)
    outer = (n_batch if kv_batch is None else kv_batch, n_heads if kv_heads is None else kv_heads)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    width = head_dim if value_dim is None else value_dim
    return (
        random(n_batch, n_heads, n_queries, head_dim),
        random(*outer, n_keys, head_dim),
        random(*outer, n_keys, width),
    )
