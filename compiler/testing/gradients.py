"""What gradients ought to be, in float64, and how far an honest kernel may be from that."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from attnc.runtime.reference import reference_attention, reference_mask, reference_scores

Mod = Callable[..., Any] | None


@dataclass(frozen=True)
class Expected:
    """Gradients of q, k, v and captured tensors, with what an error is measured by: sums of
    absolute values of what is added up."""

    gradients: list[torch.Tensor]
    sizes: list[torch.Tensor]
    largest_score: float


def expected_gradients(
    inputs: Sequence[torch.Tensor],
    mask: Mod,
    score: Mod,
    captured: Sequence[torch.Tensor],
    grad_out: torch.Tensor,
    grad_lse: torch.Tensor | None,
    scale: float | None = None,
) -> Expected:
    """Gradients by autograd through dense attention in float64.

    Args:
        inputs: q, k, v.
        mask: mask_mod.
        score: score_mod, which reads ``captured``.
        captured: float64, requiring gradients.
        grad_out: (B, Hq, n_queries, value_dim), the gradient of out.
        grad_lse: (B, Hq, n_queries), the gradient of lse, or None.
        scale: Factor of q . k; 1 / sqrt(head_dim) if None.
    """
    with number_dtype(inputs[0].dtype):
        return _expected(inputs, mask, score, captured, grad_out, grad_lse, scale)


@contextmanager
def number_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Makes an integer times a float what it is in kernels for ``dtype``: their dtype of
    accumulation, where eager PyTorch takes its default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if dtype is torch.float64 else torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _expected(
    inputs: Sequence[torch.Tensor],
    mask: Mod,
    score: Mod,
    captured: Sequence[torch.Tensor],
    grad_out: torch.Tensor,
    grad_lse: torch.Tensor | None,
    scale: float | None,
) -> Expected:
    q, k, v = (x.detach().double().requires_grad_() for x in inputs)
    wanted = (q, k, v, *captured)
    if 0 in (*q.shape[:3], k.shape[2]):
        zeros = [torch.zeros_like(x) for x in wanted]
        return Expected(zeros, zeros, 0.0)
    go = grad_out.double()
    result = reference_attention(q, k, v, mask=mask, score=score, scale=scale, enable_gqa=True)
    is_empty = result.lse == -math.inf
    loss = (result.out * go).sum()
    if grad_lse is not None:
        # An empty row has an lse without a derivative; a kernel's gradient is 0 there.
        kept = torch.where(is_empty, 0.0, grad_lse.double())
        loss = loss + (torch.where(is_empty, 0.0, result.lse) * kept).sum()
    gradients = _grads(loss, wanted)
    return Expected(gradients, *_sizes(q, k, v, mask, score, captured, go, grad_lse, scale))


def _grads(loss: torch.Tensor, wanted: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    if not (wanted and loss.requires_grad):
        return [torch.zeros_like(x) for x in wanted]
    found = torch.autograd.grad(loss, wanted, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True)]


def _sizes(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: Mod,
    score: Mod,
    captured: Sequence[torch.Tensor],
    grad_out: torch.Tensor,
    grad_lse: torch.Tensor | None,
    scale: float | None,
) -> tuple[list[torch.Tensor], float]:
    factor = q.shape[3] ** -0.5 if scale is None else scale
    keys, values = _heads(k, q).detach(), _heads(v, q).detach()
    plain = (q.detach() @ keys.transpose(2, 3) * factor).requires_grad_()
    modified = plain if score is None else reference_scores(score, plain)
    visible = torch.ones(plain.shape, dtype=torch.bool, device=plain.device)
    if mask is not None:
        n_batch, n_heads, n_queries, n_keys = plain.shape
        visible = reference_mask(mask, n_batch, n_heads, n_queries, n_keys, plain.device)
    masked = torch.where(visible & (modified != -math.inf), modified, -math.inf).detach()
    weights = masked.softmax(dim=3).nan_to_num(0.0)
    by_weight = grad_out.abs() @ values.abs().transpose(2, 3)
    by_score = weights * (by_weight + (weights * by_weight).sum(dim=3, keepdim=True))
    if grad_lse is not None:
        by_score = by_score + weights * grad_lse.double().abs()[..., None]
    slope, *_ = _grads(torch.where(visible, modified, 0.0).sum(), [plain])
    slope = slope.nan_to_num(0.0, 0.0, 0.0).abs()
    # A small derivative may be a difference of large numbers, as 1 - tanh(x) ** 2 is.
    by_plain = by_score * (slope + 0.01 * slope.max()) * abs(factor)
    sizes = [
        by_plain @ keys.abs(),
        _folded(by_plain.transpose(2, 3) @ q.detach().abs(), k),
        _folded(weights.transpose(2, 3) @ grad_out.abs(), v),
    ]
    of_captured = [torch.zeros_like(x) for x in captured]
    generator = torch.Generator().manual_seed(0)
    # What is added up has any signs: a few random ones tell how much it is.
    for _ in range(4):
        signs = torch.randint(0, 2, by_score.shape, generator=generator) * 2.0 - 1.0
        signs = signs.to(by_score.device)
        loss = torch.where(visible, modified * by_score * signs, 0.0).sum()
        for total, part in zip(of_captured, _grads(loss, captured), strict=True):
            torch.maximum(total, 4 * part.nan_to_num(0.0, 0.0, 0.0).abs(), out=total)
    # Elements that are added into one sum all count for each of them.
    sizes += [torch.full_like(x, float(x.max()) if x.numel() else 0.0) for x in of_captured]
    finite = masked[masked.isfinite()]
    largest = float(torch.cat([finite, plain.detach().reshape(-1)]).abs().max())
    return sizes, largest


def assert_gradients_close(
    names: Sequence[str],
    found: Sequence[torch.Tensor],
    expected: Expected,
    dtype: torch.dtype,
    head_dim: int,
    *,
    is_single: bool = False,
) -> None:
    """Passes if each gradient is as near to its oracle as rounding allows.

    Errors are measured by the sum of absolute values of what is added up: one rounding to
    ``dtype`` of each of these, and relative errors of weights, which are those of scores.

    Args:
        names: What each gradient is of, for the message.
        found: The gradients of the kernel.
        expected: What ``expected_gradients`` gave.
        dtype: Of q, k and v.
        head_dim: Width of q and k.
        is_single: A score is computed in float32 even for float64 inputs, as what it makes of
            captured float32 is.

    Raises:
        AssertionError: with the name and size of the largest difference.
    """
    unit = 2.0**-53 if dtype is torch.float64 and not is_single else 2.0**-24
    storage = torch.finfo(dtype).eps
    relative = 4 * storage + 8 * unit * (math.sqrt(head_dim) + 16) * max(1, expected.largest_score)
    for name, actual, wanted, size in zip(
        names, found, expected.gradients, expected.sizes, strict=True
    ):
        assert actual.shape == wanted.shape, f"{name}: {actual.shape} is not {wanted.shape}"
        if not actual.numel():
            continue
        values = actual.to(wanted.device, torch.float64)
        allowed = relative * size + storage * wanted.abs() + 1e-30 + torch.finfo(dtype).tiny
        # Autograd multiplies 0 by what is infinite where a branch is not taken: no oracle there.
        excess = torch.where(wanted.isfinite(), (values - wanted).abs() / allowed, 0.0)
        worst = float(excess.nan_to_num(math.inf).max())
        place = tuple((excess.nan_to_num(math.inf) == worst).nonzero()[0].tolist())
        assert worst <= 1, (
            f"gradient of {name}{list(place)} is {float(values[place]):.9g}, the reference "
            f"{float(wanted[place]):.9g}, {worst:.3g} times what rounding allows"
        )


def _heads(x: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    heads = x.repeat_interleave(q.shape[1] // x.shape[1], dim=1)
    return heads.expand(q.shape[0], *heads.shape[1:])


def _folded(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    total = torch.unflatten(grad, 1, (x.shape[1], -1)).sum(dim=2)
    return total if x.shape[0] == total.shape[0] else total.sum(dim=0, keepdim=True)
