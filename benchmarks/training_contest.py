"""One row of ``benchmarks.backward``: attnc and SDPA take turns at the same gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

import attnc
from benchmarks.cases import Problem, causal
from benchmarks.contest import GEMM, GEMM_SIZE
from benchmarks.measure import Call, gemm_flops, in_turns
from benchmarks.training_cases import (
    TRAINING_CASES,
    GradientOracle,
    grad_out_of,
    leaves_of,
    mask_of,
)

ATTNC, SDPA = "attnc", "sdpa"
BACKWARD = "{}, backward"
PLAIN = "attnc without bias"
_PRODUCTS = 3.5  # seven of them, where Problem.flops counts the two of the forward pass


@dataclass(frozen=True)
class Trained:
    """One way to compute attention, with what is differentiated by."""

    forward: Callable[[], torch.Tensor]
    leaves: dict[str, torch.Tensor]
    grad_out: torch.Tensor

    def gradients(self) -> dict[str, torch.Tensor]:
        """Of all leaves, forward pass included."""
        return self._backward(self.forward())

    def backward_alone(self) -> Call:
        """A call that computes all gradients from a forward pass that has been made."""
        out = self.forward()
        return lambda: self._backward(out, retain_graph=True)

    def _backward(self, out: torch.Tensor, *, retain_graph: bool = False) -> dict[str, Any]:
        leaves = list(self.leaves.values())
        found = torch.autograd.grad(out, leaves, self.grad_out, retain_graph=retain_graph)
        return dict(zip(self.leaves, found, strict=True))


def by_attnc(problem: Problem) -> Trained:
    """As its users call it; what the mask needs is part of the time."""
    leaves = leaves_of(problem)
    bias, mask = TRAINING_CASES[problem.case].bias, mask_of(problem)
    score = None if bias is None else bias.score(leaves["bias"], problem.n_keys)
    q, k, v = (leaves[name] for name in "qkv")

    def forward() -> torch.Tensor:
        out = attnc.attention(q, k, v, mask=mask, score=score)
        assert isinstance(out, torch.Tensor)
        return out

    return Trained(forward, leaves, grad_out_of(problem))


def by_sdpa(problem: Problem) -> Trained:
    """With its own causal flag, a dense boolean mask, or mask and bias as a dense float mask.

    What does not depend on the bias is made here, outside the time.
    """
    leaves = leaves_of(problem)
    case, mask = TRAINING_CASES[problem.case], mask_of(problem)
    q, k, v = (leaves[name] for name in "qkv")
    positions = torch.arange(problem.n_queries)[:, None], torch.arange(problem.n_keys)
    visible = None if mask is None else mask(0, 0, *positions)
    if case.bias is None:
        is_causal = mask is causal
        dense = None if is_causal else visible
        return Trained(
            lambda: scaled_dot_product_attention(q, k, v, attn_mask=dense, is_causal=is_causal),
            leaves,
            grad_out_of(problem),
        )

    assert visible is not None
    hidden, bias_of = ~visible, case.bias.dense(problem.n_keys)

    def forward() -> torch.Tensor:
        bias = bias_of(leaves["bias"]).masked_fill(hidden, -torch.inf).to(q.dtype)
        return scaled_dot_product_attention(q, k, v, attn_mask=bias[None])

    return Trained(forward, leaves, grad_out_of(problem))


def row_of(problem: Problem, n_rounds: int, enough_s: float) -> dict[str, Any]:
    """Times, rates and errors of both on ``problem``, as written to JSON.

    Where a bias is learned, attnc's backward pass without it takes its turn too.
    """
    oracle = GradientOracle(problem)
    sides = {ATTNC: by_attnc(problem), SDPA: by_sdpa(problem)}
    errors = {name: oracle.errors(side.gradients()) for name, side in sides.items()}
    del oracle
    turns: dict[str, Call] = {name: side.gradients for name, side in sides.items()}
    turns |= {BACKWARD.format(name): side.backward_alone() for name, side in sides.items()}
    case = TRAINING_CASES[problem.case]
    without_bias = replace(problem, case=case.mask)
    if case.bias is not None:
        turns[BACKWARD.format(PLAIN)] = by_attnc(without_bias).backward_alone()
    multiply = gemm_flops(GEMM_SIZE, GEMM_SIZE, GEMM_SIZE, getattr(torch, problem.dtype))
    times = in_turns({**turns, GEMM: multiply}, n_rounds, enough_s=enough_s)

    def ratio(numerator: str, denominator: str) -> float:
        return round(times[numerator].median / times[denominator].median, 4)

    gflops = _PRODUCTS * without_bias.flops() / times[ATTNC].median / 1e9
    gemm_gflops = multiply() / times[GEMM].median / 1e9
    row: dict[str, Any] = {
        **problem.fields(),
        "ms": {name: taken.in_ms() for name, taken in times.items()},
        "n_rounds": len(times[ATTNC].seconds),
        "gflops": round(gflops, 1),
        "gemm_gflops": round(gemm_gflops, 1),
        "of_gemm": round(gflops / gemm_gflops, 4),
        "error": errors,
        "sdpa_over_attnc": ratio(SDPA, ATTNC),
        "sdpa_over_attnc_backward": ratio(BACKWARD.format(SDPA), BACKWARD.format(ATTNC)),
    }
    if case.bias is not None:
        # Of the fastest: what SDPA takes in between, gigabytes, leaves large biases to be fetched anew.
        with_bias, plain = (times[BACKWARD.format(name)].fastest for name in (ATTNC, PLAIN))
        row["backward_over_plain"] = round(with_bias / plain, 4)
    return row
