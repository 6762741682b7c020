"""Gradients of attention in plain torch operations that autograd can differentiate again.

Everything of size (B, Hq, n_queries, n_keys) exists at once: this is the path of derivatives of
gradients, and what kernels are compared with, not the path of training.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from attnc.derivative import Derivative, Scatter, differentiate
from attnc.evaluate import evaluate
from attnc.ir import Const, DType, Expr, RowIndex, replaced
from attnc.run_table import Kind, RunTable


class Attention(NamedTuple):
    """What is differentiated: a traced mask and score, the tiles of a block mask, the scale."""

    mask: Expr | None
    score: Expr | None
    given: RunTable | None
    scale: float


@lru_cache(maxsize=1024)
def derivative_of(score: Expr, slots: tuple[int, ...]) -> Derivative:
    """``differentiate``, remembered."""
    return differentiate(score, slots)


def composed_gradients(
    attention: Attention,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tensors: Sequence[torch.Tensor],
    grad_out: torch.Tensor | None,
    grad_lse: torch.Tensor | None,
    needs: Sequence[bool],
) -> list[torch.Tensor | None]:
    """Gradients of q, k, v and captured tensors, differentiable in every argument.

    Args:
        attention: What was computed.
        q, k, v: As in ``Call``.
        tensors: Captured tensors by slot number.
        grad_out: Gradient of the output, or None for 0.
        grad_lse: Gradient of the log-sum-exp, or None for 0.
        needs: Which gradients are wanted: of q, k, v, then of each captured tensor.

    Returns:
        One tensor per wanted gradient, shaped and typed as its input; None for the others.
    """
    dtype = torch.float64 if q.dtype is torch.float64 else torch.float32
    queries, keys, values = q.to(dtype), _by_query_head(k, q, dtype), _by_query_head(v, q, dtype)
    plain = queries @ keys.transpose(2, 3) * attention.scale
    visible = _visible(attention, plain.detach(), tensors)
    score = attention.score
    modified = plain if score is None else _values(score, visible, plain, tensors)
    weights = _softmax(torch.where(visible, modified, -torch.inf))
    # A weight of 0 makes its gradients 0, whatever the derivative is there.
    visible = visible & (weights.detach() != 0)

    by_score = torch.zeros_like(plain)
    if grad_out is not None:
        grad_out = grad_out.to(dtype)
        by_weight = torch.where(visible, grad_out @ values.transpose(2, 3), 0.0)
        by_score = weights * (by_weight - (weights * by_weight).sum(dim=3, keepdim=True))
    if grad_lse is not None:
        by_score = by_score + weights * grad_lse.to(dtype)[..., None]
    by_score = torch.where(visible, by_score, 0.0)

    gradients: list[torch.Tensor | None] = [None] * len(needs)
    slots = tuple(slot for slot, needed in enumerate(needs[3:]) if needed)
    derivative = None if score is None else derivative_of(score, slots)
    if needs[0] or needs[1]:
        by_plain = by_score
        if derivative is not None:
            factor = _values(derivative.score, visible, plain, tensors)
            by_plain = by_score * factor
        by_plain = by_plain * attention.scale
        if needs[0]:
            gradients[0] = (by_plain @ keys).to(q.dtype)
        if needs[1]:
            gradients[1] = _by_key_head(by_plain.transpose(2, 3) @ queries, k).to(k.dtype)
    if needs[2]:
        if grad_out is None:
            gradients[2] = torch.zeros_like(v)
        else:
            gradients[2] = _by_key_head(weights.transpose(2, 3) @ grad_out, v).to(v.dtype)
    for slot in slots:
        assert derivative is not None, "only a score_mod reads differentiable tensors"
        total = _gathered_back(derivative, slot, by_score, visible, plain, tensors)
        gradients[3 + slot] = total.to(tensors[slot].dtype)
    return gradients


class Places(NamedTuple):
    """Coordinates that broadcast to (B, Hq, n_queries, n_keys)."""

    b: torch.Tensor
    h: torch.Tensor
    q_idx: torch.Tensor
    kv_idx: torch.Tensor

    @staticmethod
    def of(like: torch.Tensor) -> Places:
        """The coordinates of every element of ``like``."""
        axes = []
        for dimension, size in enumerate(like.shape):
            sizes = [1, 1, 1, 1]
            sizes[dimension] = size
            axes.append(torch.arange(size, dtype=torch.int32, device=like.device).reshape(sizes))
        return Places(*axes)


def _values(
    expr: Expr, visible: torch.Tensor, score: torch.Tensor, tensors: Sequence[torch.Tensor]
) -> torch.Tensor:
    function: Any = _Values
    return function.apply(expr, visible, score, *tensors)  # type: ignore[no-any-return]


class _Values(torch.autograd.Function):
    """An expression where something is visible, 0 elsewhere; derivatives are those of the IR.

    So a choice gives nothing to the branch that is not taken, in derivatives of every order, where
    autograd through ``torch.where`` multiplies 0 by what may be infinite.
    """

    @staticmethod
    def forward(
        expr: Expr, visible: torch.Tensor, score: torch.Tensor, *tensors: torch.Tensor
    ) -> torch.Tensor:
        value = evaluate(expr, **Places.of(visible)._asdict(), score=score, tensors=tensors)
        return torch.where(visible, value.to(score.dtype), 0.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.expr = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = gradients
        visible, score, *tensors = ctx.saved_tensors
        _, _, needs_score, *needs = ctx.needs_input_grad
        slots = tuple(slot for slot, needed in enumerate(needs) if needed)
        derivative = derivative_of(ctx.expr, slots)
        by_score = None
        if needs_score:
            by_score = grad * _values(derivative.score, visible, score, tensors)
        captured: list[torch.Tensor | None] = [None] * len(tensors)
        for slot in slots:
            total = _gathered_back(derivative, slot, grad, visible, score, tensors)
            captured[slot] = total.to(tensors[slot].dtype)
        return None, None, by_score, *captured


def _gathered_back(
    derivative: Derivative,
    slot: int,
    by_score: torch.Tensor,
    visible: torch.Tensor,
    score: torch.Tensor,
    tensors: Sequence[torch.Tensor],
) -> torch.Tensor:
    """Gradient of the captured tensor ``slot`` in the dtype of accumulation."""
    places = Places.of(visible)._asdict()

    def factor_of(expr: Expr) -> torch.Tensor:
        return _values(expr, visible, score, tensors)

    def value_of(expr: Expr) -> torch.Tensor:
        with torch.no_grad():
            return evaluate(expr, **places, score=score, tensors=tensors)

    return scattered(derivative.captured, slot, by_score, tensors[slot], factor_of, value_of)


def scattered(
    scatters: Sequence[Scatter],
    slot: int,
    by_score: torch.Tensor,
    tensor: torch.Tensor,
    factor_of: Callable[[Expr], torch.Tensor],
    value_of: Callable[[Expr], torch.Tensor],
) -> torch.Tensor:
    """Sum of ``by_score`` times the factors of ``slot``, each in its place of ``tensor``.

    Args:
        scatters: Of every slot.
        slot: The one that is summed.
        by_score: Gradient of the modified score, any shape.
        tensor: The captured tensor, for its shape.
        factor_of: Value of an expression, where it counts; 0 elsewhere.
        value_of: Value of an index; it broadcasts to the shape of ``by_score``.
    """
    total = by_score.new_zeros(tensor.numel())
    if not tensor.numel():
        return total.reshape(tensor.shape)
    for scatter in scatters:
        if scatter.slot != slot:
            continue
        for rounds in itertools.product(*(range(loop.extent) for loop in scatter.rows)):
            rows: dict[Expr, Expr] = {
                RowIndex(loop.number): Const(value, DType.INT32)
                for loop, value in zip(scatter.rows, rounds, strict=True)
            }
            part = by_score * factor_of(replaced(scatter.factor, rows) if rows else scatter.factor)
            place = torch.zeros((), dtype=torch.int64, device=by_score.device)
            for index, size in zip(scatter.indices, tensor.shape, strict=True):
                at = value_of(replaced(index, rows) if rows else index).to(torch.int64)
                place = place * size + torch.where(at < 0, at + size, at).clamp(0, size - 1)
            # One element after another, so that the sum does not depend on threads.
            total = total.index_add(0, place.expand(part.shape).reshape(-1), part.reshape(-1))
    return total.reshape(tensor.shape)


def _visible(
    attention: Attention, plain: torch.Tensor, tensors: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Pairs that count, (B, Hq, n_queries, n_keys): neither masked nor with a score of -inf."""
    places = Places.of(plain)._asdict()
    with torch.no_grad():
        value = plain
        if attention.score is not None:
            value = evaluate(attention.score, **places, score=plain, tensors=tensors)
        visible = (value != -torch.inf).expand(plain.shape)
        inside = torch.ones((), dtype=torch.bool, device=plain.device)
        if attention.mask is not None:
            inside = evaluate(attention.mask, **places, tensors=tensors)
        if attention.given is not None:
            inside = _inside_tiles(attention.given, inside, plain)
        return visible & inside


def _inside_tiles(table: RunTable, inside: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
    kinds = torch.from_numpy(table.to_dense()).to(plain.device)
    kinds = kinds.repeat_interleave(table.block_m, dim=2)[:, :, : plain.shape[2]]
    kinds = kinds.repeat_interleave(table.block_n, dim=3)[..., : plain.shape[3]]
    return (kinds == int(Kind.FULL)) | (kinds == int(Kind.PARTIAL)) & inside


def _softmax(scores: torch.Tensor) -> torch.Tensor:
    """Weights of each row; 0 for a score of -inf, and in a row of nothing else."""
    largest = scores.detach().amax(dim=3, keepdim=True)
    # A row without a visible key would compute -inf - -inf.
    weights = (scores - torch.where(largest == -torch.inf, 0.0, largest)).exp()
    total = weights.sum(dim=3, keepdim=True)
    return weights / torch.where(total == 0, 1.0, total)


def _by_query_head(x: torch.Tensor, q: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Keys or values, one head per query head: (B, Hq, n_keys, ...)."""
    heads = x.to(dtype).repeat_interleave(q.shape[1] // x.shape[1], dim=1)
    return heads.expand(q.shape[0], *heads.shape[1:])


def _by_key_head(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Sum over the query heads, and perhaps batches, that share a head of ``x``."""
    n_batch, n_heads, *rest = grad.shape
    total = grad.reshape(n_batch, x.shape[1], n_heads // x.shape[1], *rest).sum(dim=2)
    return total if total.shape[0] == x.shape[0] else total.sum(dim=0, keepdim=True)
