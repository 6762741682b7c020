"""One cell of the table of ``benchmarks.gpu``: a case at one size, its candidates, errors and times."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask

import attnc
from attnc.runtime.reference import reference_attention
from benchmarks.gpu_cases import CASES
from benchmarks.measure import (
    Call,
    Clock,
    compiled_flex,
    gemm_flops,
    in_turns,
    wall_clock,
)

TOLERANCE = 0.03  # of values of variance 1: rounding of weights and output to bfloat16
BY_NAME = {case.name: case for case in CASES}


@dataclass(frozen=True)
class Cell:
    """One row of the table; ``direction`` is "forward": no other is timed."""

    case: str
    head_dim: int
    length: int
    n_heads: int
    device: str
    peers: tuple[str, ...]
    n_rounds: int
    direction: str = "forward"

    @property
    def label(self) -> str:
        return f"{self.case}, D={self.head_dim}, S={self.length}"


def inputs(cell: Cell) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q, k and v, (1, n_heads, length, head_dim) in bfloat16; float32 on CPUs."""
    generator = torch.Generator(cell.device).manual_seed(0)
    shape = (1, cell.n_heads, cell.length, cell.head_dim)
    dtype = torch.bfloat16 if cell.device == "cuda" else torch.float32
    q, k, v = (
        torch.randn(shape, generator=generator, device=cell.device).to(dtype) for _ in range(3)
    )
    return q, k, v


def candidates(cell: Cell, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> dict[str, Call]:
    """What is compared, ready to be called; each gives (1, n_heads, length, head_dim)."""
    case = BY_NAME[cell.case]
    mask = case.bound_mask(case.tensors(cell.length, cell.device))
    calls: dict[str, Call] = {
        "attnc": lambda: attnc.attention(q, k, v, mask=mask, score=case.score)
    }
    if "flex" in cell.peers:
        blocks = None
        if mask is not None:
            blocks = create_block_mask(mask, None, None, cell.length, cell.length, cell.device)
        flex = compiled_flex()
        calls["flex"] = lambda: flex(q, k, v, score_mod=case.score, block_mask=blocks)
    if "sdpa" in cell.peers and cell.case in ("full", "causal"):
        is_causal = cell.case == "causal"
        calls["sdpa"] = lambda: torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=is_causal
        )
    return calls


def largest_error(cell: Cell, q: Any, k: Any, v: Any, out: torch.Tensor) -> float:
    """Greatest difference from dense float64 in the first and the last head."""
    case = BY_NAME[cell.case]
    mask = case.bound_mask(case.tensors(cell.length, cell.device))
    errors = []
    for head in sorted({0, cell.n_heads - 1}):
        part = slice(head, head + 1)
        score = None if case.score is None else _of_head(case.score, head)
        expected = reference_attention(
            q[:, part], k[:, part], v[:, part], mask=mask, score=score
        ).out
        errors.append(float((out[:, part].double() - expected).abs().max()))
    return math.nan if any(map(math.isnan, errors)) else max(errors)


def _of_head(score: Callable[..., Any], head: int) -> Callable[..., Any]:
    return lambda s, b, h, q_idx, kv_idx: score(s, b, h + head, q_idx, kv_idx)


def measured(cell: Cell, clock: Clock) -> dict[str, Any]:
    """Errors and times of every candidate of ``cell``.

    Raises:
        ArithmeticError: attnc's result is wrong; it is not timed.
    """
    torch._dynamo.reset()
    q, k, v = inputs(cell)
    with torch.no_grad():
        calls = candidates(cell, q, k, v)
        errors = {name: largest_error(cell, q, k, v, call()) for name, call in calls.items()}  # type: ignore[arg-type]
        if not errors["attnc"] <= TOLERANCE:
            raise ArithmeticError(f"attnc differs from float64 by {errors['attnc']:.3g}")
        times = in_turns(calls, cell.n_rounds, clock=clock)
        launches = {name: launch_us(call, cell.device) for name, call in calls.items()}
    flops = 4.0 * cell.head_dim * cell.n_heads * BY_NAME[cell.case].n_visible(cell.length)
    return {
        "ms": {name: t.in_ms() for name, t in times.items()},
        "tflops": {name: round(flops / t.median / 1e12, 2) for name, t in times.items()},
        "launch_us": launches,
        "max_error": errors,
        "over_attnc": {
            name: round(t.median / times["attnc"].median, 3)
            for name, t in times.items()
            if name != "attnc"
        },
    }


def launch_us(call: Call, device: str, n_calls: int = 20) -> float:
    """Microseconds until a call returns, whatever the GPU still has to do; the median."""
    taken = []
    for _ in range(n_calls):
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(wall_clock(call))
    return round(1e6 * sorted(taken)[n_calls // 2], 1)


def peaks(device: str, clock: Clock) -> dict[str, float]:
    """Rate of a large matrix product, in TFLOP/s, and of a copy, in GB/s read and written."""
    n, n_bytes = (8192, 1 << 30) if device == "cuda" else (256, 1 << 20)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    multiply = gemm_flops(n, n, n, dtype, device=device)
    source = torch.zeros(n_bytes, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    times = in_turns({"gemm": multiply, "copy": lambda: target.copy_(source)}, 20, clock=clock)
    return {
        "gemm_tflops": round(multiply() / times["gemm"].median / 1e12, 1),
        "copy_gb_s": round(2 * n_bytes / times["copy"].median / 1e9, 1),
    }
