"""Who takes part: attnc, and PyTorch's own ways to compute the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask

from attnc.attend import attention
from attnc.bench.measure import compiled_flex
from attnc.bench.problem import Problem
from attnc.mods import Mod
from attnc.prove import equal
from attnc.runtime.reference import reference_mask, reference_scores
from attnc.trace.location import call_mod

ATTNC = "attnc"
#: Whose ways ``contestants`` gives.
PEERS = ("flex", "sdpa")
_BLOCK_SIZES: dict[str, int | tuple[int, int]] = {"flex 128": 128, "flex (64, 128)": (64, 128)}
_MAX_DENSE = 1 << 31  # bytes of a dense mask or bias; making a bias takes some times as much

Forward = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Contestant:
    """One way to compute a problem.

    Attributes:
        name: Unique; contestants of one peer begin with its name.
        how: What is called, in words.
        forward: Computes the output.
    """

    name: str
    how: str
    forward: Forward


@dataclass(frozen=True)
class Absent:
    """A contestant that cannot take part.

    Attributes:
        name: As in ``Contestant``.
        reason: Why, in words.
    """

    name: str
    reason: str


def contestant_attnc(problem: Problem) -> Contestant:
    """attnc as its users call it: what the mask needs is part of the time."""
    q, k, v = problem.inputs
    mask, score, scale = problem.mask, problem.score, problem.scale

    def forward() -> torch.Tensor:
        out = attention(
            q, k, v, mask=mask, score=score, scale=scale, enable_gqa=problem.shares_heads
        )
        assert isinstance(out, torch.Tensor)
        return out

    backend = "C++" if problem.device == "cpu" else "Triton"
    return Contestant(ATTNC, f"attnc.attention, {backend} kernels", forward)


def contestants(problem: Problem, peers: tuple[str, ...]) -> list[Contestant | Absent]:
    """Who computes ``problem``: attnc, then each of ``peers``, whose masks are made here, untimed."""
    found: list[Contestant | Absent] = [contestant_attnc(problem)]
    for peer in peers:
        found += _flexes(problem) if peer == "flex" else [_sdpa(problem)]
    return found


def _flexes(problem: Problem) -> list[Contestant | Absent]:
    if problem.backward and problem.device == "cpu":
        reason = "PyTorch's flex_attention has no backward pass on CPUs"
        return [Absent("flex", reason)]
    keywords: dict[str, Any] = {"score_mod": problem.score, "scale": problem.scale}
    if problem.mask is None:
        return [_flex(problem, "flex", "no block mask", keywords)]
    found: list[Contestant | Absent] = []
    for name, size in _BLOCK_SIZES.items():
        try:
            blocks = create_block_mask(
                problem.mask,
                problem.n_batch,
                problem.n_heads,
                problem.n_queries,
                problem.n_keys,
                problem.device,
                size,
            )
        except Exception as error:  # noqa: BLE001 - whatever PyTorch makes of the function
            found.append(Absent(name, f"create_block_mask: {first_line(error)}"))
        else:
            how = f"BLOCK_SIZE {size}"
            found.append(_flex(problem, name, how, {**keywords, "block_mask": blocks}))
    return found


def _flex(problem: Problem, name: str, how: str, keywords: dict[str, Any]) -> Contestant:
    q, k, v = problem.inputs
    flex = compiled_flex()
    return Contestant(
        name,
        f"torch.compile(flex_attention), {how}",
        lambda: flex(q, k, v, enable_gqa=problem.shares_heads, **keywords),
    )


def _sdpa(problem: Problem) -> Contestant | Absent:
    """With its own causal flag, a dense boolean mask, or mask and bias as a dense float mask."""
    if problem.score is not None and not problem.adds:
        return Absent("sdpa", "it takes a bias, but this score_mod does more than add one")
    kwargs: dict[str, Any] = {"scale": problem.scale, "enable_gqa": problem.shares_heads}
    is_square = problem.n_queries == problem.n_keys
    if problem.score is None and problem.mask is None:
        return _called(problem, "no mask", dict, kwargs)
    if problem.score is None and is_square and _is_causal(problem):
        return _called(problem, "is_causal=True", lambda: {"is_causal": True}, kwargs)
    shape = _dense_shape(problem)
    n_bytes = torch.Size(shape).numel() * (1 if problem.score is None else 4)
    if n_bytes > _MAX_DENSE:
        what = "mask" if problem.score is None else "bias"
        return Absent("sdpa", f"a dense {what} {shape} would take {n_bytes:.1e} bytes")
    visible = None
    if problem.mask is not None:
        visible = reference_mask(_as_users(problem.mask), *shape, device=problem.device)
    if problem.score is None:
        return _called(problem, "dense boolean mask", lambda: {"attn_mask": visible}, kwargs)
    score = _as_users(problem.score)

    def bias() -> dict[str, torch.Tensor]:
        dense = reference_scores(score, torch.zeros((), device=problem.device).expand(shape))
        dense = dense if visible is None else dense.masked_fill(~visible, -torch.inf)
        return {"attn_mask": dense.to(problem.inputs[0].dtype)}

    if problem.backward and problem.learned:
        return _called(problem, "dense mask with the bias, made in the call", bias, kwargs)
    with torch.no_grad():
        made = bias()
    return _called(problem, "dense mask with the bias", lambda: made, kwargs)


def _dense_shape(problem: Problem) -> tuple[int, int, int, int]:
    """Of a mask or bias: batches and heads are 1 where neither mask nor score tells them apart."""
    exprs = (problem.program.mask, problem.program.score)
    extents = [problem.extents(expr) for expr in exprs if expr is not None]
    n_batch, n_heads = (max(sizes) for sizes in zip(*extents, strict=True))
    return n_batch, n_heads, problem.n_queries, problem.n_keys


def _called(
    problem: Problem, how: str, given: Callable[[], dict[str, Any]], kwargs: dict[str, Any]
) -> Contestant:
    q, k, v = problem.inputs
    sdpa = torch.nn.functional.scaled_dot_product_attention
    name = f"scaled_dot_product_attention, {how}"
    return Contestant("sdpa", name, lambda: sdpa(q, k, v, **given(), **kwargs))


def _is_causal(problem: Problem) -> bool:
    """Whether the mask is the causal one, proved for these lengths."""
    proof = equal(
        problem.mask,
        lambda b, h, q_idx, kv_idx: q_idx >= kv_idx,
        B=problem.n_batch,
        H=problem.n_heads,
        Q_LEN=problem.n_queries,
        KV_LEN=problem.n_keys,
    )
    return proof.holds is True


def _as_users(mod: Mod) -> Mod:
    """``mod``; where it raises, the traceback tells that it is the user's function."""
    return lambda *arguments: call_mod(mod, arguments)


def first_line(error: Exception) -> str:
    """What an error says first; its class if that is nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
