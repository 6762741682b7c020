"""Laws of the function itself: it can be computed, and its compiled form is the same function."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from attnc import ir, prove
from attnc.errors import AttncError
from attnc.evaluate import evaluate
from attnc.prove import Proof
from attnc.runtime.reference import reference_mask, reference_scores
from attnc.testing.case import Case
from attnc.testing.gradients import number_dtype
from attnc.testing.laws.registry import Failure, law
from attnc.testing.recipes import Limits
from attnc.testing.subject import Subject


def _has_pairs(case: Case) -> bool:
    return 0 not in case.grid


@law("total", "the function can be computed at every pair, inside its tensors", applies=_has_pairs)
def total(case: Case) -> Iterator[Failure]:
    try:
        _ = case.mask_values, case.scores
    except AttncError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever a user's function raises is a finding)
        yield Failure(f"{type(error).__name__}: {error}")
        return
    yield from reads_outside(case)


def reads_outside(case: Case) -> Iterator[Failure]:
    """Captured tensors that are read outside their bounds, where kernels clamp the index."""
    shape = case.shape
    sizes: dict[str, Any] = {
        "B": shape.n_batch,
        "H": shape.n_heads,
        "Q_LEN": shape.n_queries,
        "KV_LEN": shape.n_keys,
    }
    for mod, where in ((case.subject.mask, None), (case.subject.score, case.subject.mask)):
        if mod is None:
            continue
        proof = prove.in_bounds(mod, where=where, **sizes)
        if proof.holds is False:
            yield Failure(proof.detail, pair_of(proof))


def pair_of(proof: Proof) -> tuple[int, ...] | None:
    """The counterexample's coordinates, as far as it has them."""
    found = proof.counterexample
    return None if found is None else tuple(n for n in found if n is not None)


def _differ(subject: Subject, limits: Limits) -> Proof | None:
    """A counterexample; what is expected may be written in a style that kernels have not."""
    if subject.mask is None or subject.expected is None or subject.score is not None:
        return None
    try:
        proof = prove.equal(subject.mask, subject.expected, **sizes_of(limits))
    except AttncError:
        return None
    return proof if proof.holds is False else None


def sizes_of(limits: Limits) -> dict[str, Any]:
    """Arguments of proofs."""
    return {
        "B": limits.n_batch,
        "H": limits.n_heads,
        "Q_LEN": limits.length,
        "KV_LEN": limits.length,
        "budget": 1 << 24,
    }


@law(
    "expected",
    "the function is what it is expected to be",
    applies=lambda case: case.subject.expected is not None and _has_pairs(case),
    proof=_differ,
)
def expected(case: Case) -> Iterator[Failure]:
    subject = case.subject
    assert subject.expected is not None
    with number_dtype(case.dtype):
        if subject.score is None:
            wanted = reference_mask(subject.expected, *case.grid, subject.device)
            yield from difference(case.mask_values, wanted)
            return
        scores = _any_scores(case)
        wanted = reference_scores(subject.expected, scores)
    yield from difference(case.scored(scores), wanted)


@law(
    "compiled-mask",
    "the compiled mask is the function",
    applies=lambda case: case.subject.mask is not None and _has_pairs(case),
)
def compiled_mask(case: Case) -> Iterator[Failure]:
    program = case.subject.program
    assert program.mask is not None
    yield from difference(_on_grid(case, program.mask), case.mask_values)


@law(
    "compiled-score",
    "the compiled score is the function",
    applies=lambda case: case.subject.score is not None and _has_pairs(case),
)
def compiled_score(case: Case) -> Iterator[Failure]:
    program = case.subject.program
    assert program.score is not None
    scores = _any_scores(case)
    with torch.no_grad():
        values = _on_grid(case, program.score, scores)
    # The expression is that of kernels for float64.
    with torch.no_grad(), number_dtype(torch.float64):
        assert case.subject.score is not None
        wanted = reference_scores(case.subject.score, scores)
    yield from difference(values, wanted)


@law(
    "numbers",
    "the score of every visible pair is a number below infinity",
    applies=lambda case: case.subject.score is not None and _has_pairs(case),
)
def numbers(case: Case) -> Iterator[Failure]:
    is_wrong = case.mask_values & (case.scores.isnan() | (case.scores == math.inf))
    for point in nearest(is_wrong):
        yield Failure(f"It is {case.scores[point].item()}.", point)


def difference(actual: torch.Tensor, wanted: torch.Tensor) -> Iterator[Failure]:
    """The pair nearest to the origin where two tensors (B, Hq, n_queries, n_keys) differ."""
    if actual.dtype == torch.bool:
        differs = actual != wanted
    else:
        # Parts of a score may be computed in float32, whatever the dtype of the score.
        differs = ~torch.isclose(actual, wanted, rtol=1e-4, atol=1e-4, equal_nan=True)
    for point in nearest(differs):
        found, ought = actual[point].item(), wanted[point].item()
        yield Failure(f"It is {found}, and ought to be {ought}.", point)


def nearest(where: torch.Tensor) -> Iterator[tuple[int, ...]]:
    """The true pair that is easiest to think about, the nearest to the origin; none if all are
    false."""
    places = where.nonzero()
    if len(places):
        yield tuple(places[places[:, 2:].sum(dim=1).argmin()].tolist())


def _any_scores(case: Case) -> torch.Tensor:
    """Scores of every sign, float64, the same ones for every function."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(case.grid, dtype=torch.float64, generator=generator)
    return (3 * scores).to(case.subject.device)


def _on_grid(case: Case, expr: ir.Expr, score: torch.Tensor | None = None) -> torch.Tensor:
    """Values of ``expr`` (B, Hq, n_queries, n_keys)."""
    axes = []
    for place, size in enumerate(case.grid):
        sizes = [1, 1, 1, 1]
        sizes[place] = size
        axes.append(torch.arange(size, dtype=torch.int32, device=case.subject.device).view(sizes))
    b, h, q_idx, kv_idx = axes
    tensors = case.subject.program.tensors
    values = evaluate(expr, b=b, h=h, q_idx=q_idx, kv_idx=kv_idx, score=score, tensors=tensors)
    return values.expand(case.grid)
