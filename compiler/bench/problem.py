"""What is timed, and what it ought to give: one function at one shape, and rows in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from attnc.derivative import differentiate
from attnc.errors import BenchmarkError
from attnc.evaluate import evaluate
from attnc.ir import Const, DType, Expr, Index, IndexName, walk
from attnc.mods import Mod, mod_name
from attnc.program import Program, build_program
from attnc.roles import OfFunction
from attnc.runtime.gradients import differentiable_slots
from attnc.runtime.reference import reference_attention
from attnc.trace.location import call_mod

_N_ROWS = 64  # that are compared with float64, of every head
_PAIRS_AT_ONCE = 1 << 24

Gradients = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Problem(OfFunction):
    """One function and one call of it.

    Attributes:
        mod: A Kernel, mask_mod or score_mod.
        n_batch, n_heads, kv_heads, n_queries, n_keys, head_dim: Sizes of the call.
        dtype: Of q, k and v: a torch dtype's short name.
        device: Where it runs.
        backward: Time forward and backward together.
    """

    mod: Any
    n_batch: int
    n_heads: int
    kv_heads: int
    n_queries: int
    n_keys: int
    head_dim: int
    dtype: str = "float32"
    device: str = "cpu"
    backward: bool = False

    def __post_init__(self) -> None:
        problem = ""
        if self.has_fixed_mask:
            problem = "its mask is a BlockMask; give the mask_mod that it was made from"
        elif self.has_layout:
            problem = "it computes in another order of tokens (layout=), which others do not have"
        elif self.kv_heads < 1 or self.n_heads % self.kv_heads:
            problem = f"{self.kv_heads} key heads do not divide {self.n_heads} query heads"
        if problem:
            raise BenchmarkError(name=mod_name(self.mod), problem=problem)

    @property
    def shares_heads(self) -> bool:
        """Whether several query heads read one key head."""
        return self.n_heads != self.kv_heads

    @cached_property
    def program(self) -> Program:
        """The function as traced."""
        wide = self.dtype == "float64"
        return build_program(self.mask, self.score, DType.FLOAT64 if wide else DType.FLOAT32)

    @cached_property
    def inputs(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """q, k and v: normally distributed, the same in every run."""
        generator = torch.Generator().manual_seed(0)
        sizes = [(self.n_heads, self.n_queries), *[(self.kv_heads, self.n_keys)] * 2]
        q, k, v = (
            torch.randn(self.n_batch, *size, self.head_dim, generator=generator)
            .to(self.device, getattr(torch, self.dtype))
            .requires_grad_(self.backward)
            for size in sizes
        )
        return q, k, v

    @cached_property
    def learned(self) -> list[torch.Tensor]:
        """Captured tensors that require grad, and get one."""
        slots = sorted(differentiable_slots(self.program.score))
        tensors = [self.program.tensors[slot] for slot in slots]
        return [x for x in tensors if x.requires_grad and x.is_leaf]

    @cached_property
    def grad_out(self) -> torch.Tensor:
        """Gradient of the output, in its shape: normally distributed, the same in every run."""
        generator = torch.Generator().manual_seed(1)
        return torch.randn(self.inputs[0].shape, generator=generator).to(self.inputs[0])

    def call_of(self, forward: Callable[[], torch.Tensor]) -> Callable[[], Any]:
        """What is timed of a contestant: its forward pass, or both passes."""
        if not self.backward:
            return torch.no_grad()(forward)
        leaves = [*self.inputs, *self.learned]
        return lambda: torch.autograd.grad(forward(), leaves, self.grad_out)

    def flops(self) -> float:
        """Operations of the matrix products over visible pairs: two forward, five backward."""
        products = 7 if self.backward else 2
        return 2.0 * products * self.head_dim * self.n_visible

    @cached_property
    def n_visible(self) -> int:
        """Pairs (query, key) that the mask lets through, over all batches and heads."""
        mask = self.program.mask
        pairs = self.n_batch * self.n_heads * self.n_queries * self.n_keys
        if mask is None:
            return pairs
        n_batch, n_heads = self.extents(mask)
        step = max(1, _PAIRS_AT_ONCE // (n_batch * n_heads * self.n_keys))
        n_visible = 0
        for first in range(0, self.n_queries, step):
            rows = torch.arange(first, min(first + step, self.n_queries), dtype=torch.int32)
            visible = evaluate(
                mask,
                b=torch.arange(n_batch, dtype=torch.int32)[:, None, None, None],
                h=torch.arange(n_heads, dtype=torch.int32)[:, None, None],
                q_idx=rows[:, None],
                kv_idx=torch.arange(self.n_keys, dtype=torch.int32),
                tensors=[tensor.cpu() for tensor in self.program.tensors],
            )
            n_visible += int(visible.expand(n_batch, n_heads, len(rows), self.n_keys).sum())
        return n_visible * (self.n_batch // n_batch) * (self.n_heads // n_heads)

    def extents(self, expr: Expr) -> tuple[int, int]:
        """Batches and heads that ``expr`` tells apart: 1 for what it ignores."""
        names = {node.name for node in walk(expr) if isinstance(node, Index)}
        return (
            self.n_batch if IndexName.B in names else 1,
            self.n_heads if IndexName.H in names else 1,
        )

    @property
    def adds(self) -> bool:
        """Whether the score_mod adds to the score something that does not depend on it."""
        score = self.program.score
        if score is None:
            return False
        derivative = differentiate(score, ()).score
        return isinstance(derivative, Const) and derivative.value == 1


@dataclass(frozen=True)
class Error:
    """Distance from float64 over sampled rows, as a part of the largest value there.

    Attributes:
        out: Of the output.
        gradients: Of q, k, v and the learned captured tensors; empty where only forward runs.
    """

    out: float
    gradients: tuple[float, ...]

    @property
    def largest(self) -> float:
        """The worst of all."""
        return max(self.out, *self.gradients, 0.0)


class Oracle:
    """What some rows of every head ought to be, by dense attention in float64.

    Gradients are of a loss that reads these rows alone: so they are exact without the others.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        generator = torch.Generator().manual_seed(2)
        n_rows = min(_N_ROWS, problem.n_queries)
        rows = torch.randperm(problem.n_queries, generator=generator)[:n_rows].to(problem.device)
        self.rows = rows
        self.grad_out = torch.zeros_like(problem.grad_out)
        self.grad_out[:, :, rows] = problem.grad_out[:, :, rows]
        q, k, v = (x.detach().double() for x in problem.inputs)
        leaves = [q[:, :, rows], k, v]
        for leaf in leaves:
            leaf.requires_grad_(problem.backward)
        with torch.set_grad_enabled(problem.backward):
            out = reference_attention(
                *leaves,
                mask=self._at_rows(problem.mask, 0),
                score=self._at_rows(problem.score, 1),
                scale=problem.scale,
                enable_gqa=True,
            ).out
        self.out = out.detach()
        self.gradients: Sequence[torch.Tensor] = ()
        if problem.backward:
            weights = problem.grad_out[:, :, rows].double()
            self.gradients = torch.autograd.grad(
                out, [*leaves, *problem.learned], weights, materialize_grads=True
            )

    def _at_rows(self, mod: Any, lead: int) -> Mod | None:
        """``mod`` where the first query is the first sampled one, and so on."""
        if mod is None:
            return None
        rows = self.rows

        def at_rows(*arguments: Any) -> Any:
            before, (b, h, q_idx, kv_idx) = arguments[:lead], arguments[lead:]
            return call_mod(mod, (*before, b, h, rows[q_idx.long()].int(), kv_idx))

        return at_rows if lead == 0 else lambda score, b, h, q, kv: at_rows(score, b, h, q, kv)

    def error_of(self, forward: Callable[[], torch.Tensor]) -> Error:
        """How far a contestant is off."""
        problem = self.problem
        with torch.set_grad_enabled(problem.backward):
            out = forward()
        found = out.detach()[:, :, self.rows]
        if not problem.backward:
            return Error(_distance(found, self.out), ())
        leaves = [*problem.inputs, *problem.learned]
        grads = list(torch.autograd.grad(out, leaves, self.grad_out))
        grads[0] = grads[0][:, :, self.rows]
        # Where a gradient is small or 0, large numbers have cancelled each other: an error is
        # measured by the largest gradient of q, k and v at the least.
        scale = max(_largest(gradient) for gradient in self.gradients[:3])
        pairs = zip(grads, self.gradients, strict=True)
        return Error(_distance(found, self.out), tuple(_distance(*pair, scale) for pair in pairs))

    def tolerance(self) -> float:
        """Largest error of an honest contestant."""
        eps = torch.finfo(getattr(torch, self.problem.dtype)).eps
        # Halves are rounded on the way: weights, and the gradients of scores.
        return (16 if self.problem.dtype in ("bfloat16", "float16") else 4096) * eps


def _largest(x: torch.Tensor) -> float:
    return float(x.abs().nan_to_num(0.0, 0.0, 0.0).max()) if x.numel() else 0.0


def _distance(found: torch.Tensor, expected: torch.Tensor, scale: float = 1e-3) -> float:
    """Largest difference, as a part of the largest value or of ``scale``, if that is larger."""
    is_same = (found == expected) | (found.isnan() & expected.isnan())
    off = torch.where(is_same, 0.0, (found.double() - expected).abs())
    difference = float(off.nan_to_num(torch.inf, torch.inf).max()) if off.numel() else 0.0
    return difference / max(_largest(expected), scale, 1e-30)
