"""One row of a table: attnc, compiled flex and SDPA take turns on the same problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask

import attnc
from benchmarks.cases import Oracle, Problem, causal
from benchmarks.measure import Call, NotCompiledError, compiled_flex, gemm_flops, in_turns

BLOCK_SIZES: dict[str, int | tuple[int, int]] = {"flex 128": 128, "flex (64, 128)": (64, 128)}
FLEX_WITHOUT = "flex, no block mask"
GEMM_SIZE = 2048  # rows, columns and depth of the product that stands for the limit
GEMM = "gemm"
ATTNC = "attnc"

Candidate = Callable[[], torch.Tensor]


def row_of(problem: Problem, n_rounds: int, enough_s: float) -> dict[str, Any]:
    """Times, attained rates and errors of all candidates on ``problem``, as written to JSON.

    ``flex`` names PyTorch's fastest way to call it: by block size, or without a block mask. A matrix product in the same dtype takes its
    turn too: it is the limit that ``of_gemm`` is a share of. A candidate of PyTorch's that cannot
    compute the problem is left out, and ``failed`` says why.

    Raises:
        NotCompiledError: PyTorch's flex_attention would have run without being compiled.
    """
    torch._dynamo.reset()
    with torch.no_grad():
        oracle = Oracle(problem)
        outs, failed, calls = {}, {}, {}
        for name, call in candidates(problem).items():
            try:
                outs[name] = call()  # compiles
            except NotCompiledError:
                raise
            except Exception as e:
                if name == ATTNC:
                    raise
                failed[name] = f"{type(e).__name__}: {e}".splitlines()[0]
            else:
                calls[name] = call
        errors = {name: oracle.error(out) for name, out in outs.items()}
        del outs
        multiply = gemm_flops(GEMM_SIZE, GEMM_SIZE, GEMM_SIZE, getattr(torch, problem.dtype))
        turns: dict[str, Call] = {**calls, GEMM: multiply}
        times = in_turns(turns, n_rounds, enough_s=enough_s)

    ours = times[ATTNC].median
    gemm_gflops = multiply() / times[GEMM].median / 1e9
    gflops = problem.flops() / ours / 1e9
    row: dict[str, Any] = {
        **problem.fields(),
        "ms": {name: taken.in_ms() for name, taken in times.items()},
        "n_rounds": len(times[ATTNC].seconds),
        "gflops": round(gflops, 1),
        "gemm_gflops": round(gemm_gflops, 1),
        "of_gemm": round(gflops / gemm_gflops, 4),
        "error": {name: asdict(error) for name, error in errors.items()},
    }
    flexes = [name for name in calls if name.startswith("flex")]
    flex = min(flexes, key=lambda name: times[name].median, default=None)
    if flex is not None:
        row["flex"] = flex
        row["flex_over_attnc"] = round(times[flex].median / ours, 4)
        row["error_over_flex"] = _ratio(errors[ATTNC].largest, errors[flex].largest)
    for name in ("sdpa", "sdpa, dense mask"):
        if name in calls:
            row[f"{name.replace(', ', '_').replace(' ', '_')}_over_attnc"] = round(
                times[name].median / ours, 4
            )
    if failed:
        row["failed"] = failed
    return row


def _ratio(ours: float, theirs: float) -> float:
    return round(ours / max(theirs, 1e-300), 4)


def candidates(problem: Problem) -> dict[str, Candidate]:
    """What is compared, ready to be called. flex's block masks are made here, outside its time.

    SDPA takes part where it has the mask itself, and with a dense boolean mask where there is no
    change of the scores.
    """
    q, k, v = problem.inputs()
    case = problem.mods()
    gqa = problem.heads != problem.kv_heads
    calls: dict[str, Candidate] = {
        ATTNC: lambda: attnc.attention(q, k, v, mask=case.mask, score=case.score, enable_gqa=gqa)
    }
    for name, block_size in BLOCK_SIZES.items():
        blocks = create_block_mask(
            case.mask or _everything,
            None,
            None,
            problem.n_queries,
            problem.n_keys,
            "cpu",
            block_size,
        )
        calls[name] = _flex(q, k, v, score_mod=case.score, block_mask=blocks, enable_gqa=gqa)
    if case.mask is None:
        calls[FLEX_WITHOUT] = _flex(q, k, v, score_mod=case.score, enable_gqa=gqa)
    if case.score is not None:
        return calls

    sdpa = torch.nn.functional.scaled_dot_product_attention
    if case.mask in (None, causal) and problem.n_queries in (1, problem.n_keys):
        is_causal = case.mask is causal
        calls["sdpa"] = lambda: sdpa(q, k, v, is_causal=is_causal, enable_gqa=gqa)
    elif case.mask is not None:
        positions = torch.arange(problem.n_queries)[:, None], torch.arange(problem.n_keys)
        dense = case.mask(0, 0, *positions)
        calls["sdpa, dense mask"] = lambda: sdpa(q, k, v, attn_mask=dense, enable_gqa=gqa)
    return calls


def _flex(*qkv: torch.Tensor, **kwargs: Any) -> Candidate:
    flex = compiled_flex()
    return lambda: flex(*qkv, **kwargs)  # type: ignore[no-any-return]


def _everything(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= 0
