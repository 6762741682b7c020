"""Derivatives of score_mods: PyTorch's autograd is the oracle, in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from derivatives import F32, F64, Mod, derivative_of
from hypothesis import given
from hypothesis import strategies as st

from attnc.derivative import Scatter, differentiate
from attnc.evaluate import evaluate
from attnc.ir import (
    H_IDX,
    Binary,
    BinaryOp,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    Gather,
    Reduce,
    RowIndex,
    Score,
    Select,
    walk,
)
from attnc.printer import format_expr
from attnc.runtime.reference import reference_scores
from attnc.simplify import simplify
from attnc.testing import ScoreRecipe, Shape, score_mods, shapes
from attnc.trace import SlotTable, trace_score


@contextmanager
def float64_by_default() -> Iterator[None]:
    """So that PyTorch computes ``q_idx * 0.5`` in float64, as float64 kernels do."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def axes(sizes: tuple[int, ...]) -> dict[str, Any]:
    """b, h, q_idx, kv_idx that broadcast to ``sizes``."""
    names = ("b", "h", "q_idx", "kv_idx")
    return {
        name: torch.arange(size).reshape([size if i == place else 1 for i in range(4)])
        for place, (name, size) in enumerate(zip(names, sizes, strict=True))
    }


def with_rows(expr: Expr, rows: dict[int, int]) -> Expr:
    """``expr`` in one round of the loops around it."""
    done: dict[Expr, Expr] = {}
    for node in walk(expr):
        done[node] = node.rebuild(tuple(done[child] for child in node.children))
        if isinstance(node, RowIndex) and node.number in rows:
            done[node] = Const(rows[node.number], DType.INT32)
    return done[expr]


def scattered(
    scatter: Scatter, upstream: torch.Tensor, scores: torch.Tensor, tensors: list[torch.Tensor]
) -> torch.Tensor:
    """What ``scatter`` adds to the gradient of its tensor, in float64."""
    tensor = tensors[scatter.slot]
    gradient = torch.zeros(tensor.shape, dtype=torch.float64)
    at = axes(tuple(scores.shape))
    for rounds in itertools.product(*(range(row.extent) for row in scatter.rows)):
        rows = dict(zip((row.number for row in scatter.rows), rounds, strict=True))

        def value(expr: Expr, rows: dict[int, int] = rows) -> torch.Tensor:
            result = evaluate(with_rows(expr, rows), **at, score=scores, tensors=tensors)
            return result.expand(scores.shape)

        places = []
        for index, size in zip(scatter.indices, tensor.shape, strict=True):
            place = value(index).long()
            places.append(torch.where(place < 0, place + size, place).clamp(0, size - 1).flatten())
        values = (value(scatter.factor) * upstream).flatten()
        if places:
            gradient.index_put_(tuple(places), values, accumulate=True)
        else:
            gradient += values.sum()
    return gradient


def assert_is_autograd(fn: Mod, scores: torch.Tensor, tolerance: float = 1e-10) -> None:
    """All derivatives of ``fn`` at ``scores`` (B, H, n_queries, n_keys) are those of PyTorch."""
    found, tensors = derivative_of(fn)
    wanted = [x for x in tensors if x.is_floating_point()]
    generator = torch.Generator().manual_seed(1)
    upstream = torch.rand(scores.shape, generator=generator, dtype=torch.float64) + 0.5
    inputs = [scores.clone().requires_grad_(), *(x.requires_grad_() for x in wanted)]
    try:
        with float64_by_default():
            out = reference_scores(fn, inputs[0])
        if not out.requires_grad:
            expected: tuple[torch.Tensor | None, ...] = (None,) * len(inputs)
        else:
            expected = torch.autograd.grad(out, inputs, upstream, allow_unused=True)
    finally:
        for x in wanted:
            x.requires_grad_(False)

    mine = evaluate(found.score, **axes(tuple(scores.shape)), score=scores, tensors=tensors)
    close: dict[str, Any] = {"rtol": tolerance, "atol": tolerance, "equal_nan": True}
    by_score = torch.zeros_like(scores) if expected[0] is None else expected[0]
    torch.testing.assert_close(mine.expand(scores.shape) * upstream, by_score, **close)
    gradients = {id(x): torch.zeros(x.shape, dtype=torch.float64) for x in wanted}
    for scatter in found.captured:
        assert scatter.factor.dtype is F64
        gradients[id(tensors[scatter.slot])] += scattered(scatter, upstream, scores, tensors)
    for x, gradient in zip(wanted, expected[1:], strict=True):
        by_x = torch.zeros(x.shape) if gradient is None else gradient
        torch.testing.assert_close(gradients[id(x)], by_x.double(), **close)


def scores_of(*sizes: int, seed: int = 0) -> torch.Tensor:
    """Ordinary scores, every third one at a place where programs have kinks."""
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(sizes, dtype=torch.float64, generator=generator)
    kinks = torch.tensor([0.0, -0.0, -4.0, 6.0, -6.0, 2.0, 1.0, -1.0])
    places = torch.randint(0, len(kinks), sizes, generator=generator)
    at_kink = torch.randint(0, 3, sizes, generator=generator) == 0
    return torch.where(at_kink, kinks.double()[places], scores)


def in_float64(recipe: ScoreRecipe) -> ScoreRecipe:
    wide = (replace(t, dtype="float64") if "float" in t.dtype else t for t in recipe.tensors)
    return replace(recipe, tensors=tuple(wide))


@given(score_mods(max_depth=4), shapes(), st.integers(0, 3))
def test_derivative_is_that_of_autograd(recipe: ScoreRecipe, shape: Shape, seed: int) -> None:
    """Of random programs: by the score at every place, and by every element of every tensor."""
    sizes = (shape.n_batch, shape.n_heads, min(shape.n_queries, 40), min(shape.n_keys, 40))
    scores = scores_of(*sizes, seed=seed)

    assert_is_autograd(in_float64(recipe).build(), scores)


@given(score_mods(max_depth=3), st.integers(0, 3))
def test_narrow_tensors_have_derivatives_of_the_accumulation(
    recipe: ScoreRecipe, seed: int
) -> None:
    """Tensors in float32 and below: PyTorch sums their gradients in their own dtype, roughly."""
    if any(t.dtype in ("bfloat16", "float16") for t in recipe.tensors):
        wider = (replace(t, dtype="float32") if "float" in t.dtype else t for t in recipe.tensors)
        recipe = replace(recipe, tensors=tuple(wider))

    assert_is_autograd(recipe.build(), scores_of(2, 3, 9, 11, seed=seed), tolerance=1e-3)


# --- rows -----------------------------------------------------------------------------


def _row_mods() -> dict[str, Mod]:
    generator = torch.Generator().manual_seed(5)
    w = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    square = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    ties = torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    return {
        "sum": lambda s, b, h, q, kv: s + w[h].sum() ** 2,
        "dot": lambda s, b, h, q, kv: s * torch.dot(w[h], w[b]),
        "dot of itself": lambda s, b, h, q, kv: s + torch.dot(w[q], w[q]).sqrt(),
        "mean": lambda s, b, h, q, kv: s * w[kv].mean(),
        "norm": lambda s, b, h, q, kv: s + w[h].norm() * 2,
        "norm of zeros": lambda s, b, h, q, kv: s + ties[h].norm(),
        "amax with ties": lambda s, b, h, q, kv: s * ties[h].amax(),
        "both extremes with ties": lambda s, b, h, q, kv: s * ties[h].amin() + ties[b].amax(),
        "score inside": lambda s, b, h, q, kv: torch.tanh(w[h] * s).sum() + (w[q] + s).amax(),
        "score added": lambda s, b, h, q, kv: (w[h] + s).sum(),
        "min and max": lambda s, b, h, q, kv: s * w[h].min() + w[q].max(),
        "matrix": lambda s, b, h, q, kv: s + (square[h] @ square).sum() * 0.1,
        "matrix squared": lambda s, b, h, q, kv: s + (square[h] @ square).pow(2).sum(),
        "two extents": lambda s, b, h, q, kv: s + w[h].sum() * w[h, :3].pow(2).sum(),
        "nested extremes": lambda s, b, h, q, kv: s + (square + square[h]).amax(0).sum(),
        "sums of sums": lambda s, b, h, q, kv: (
            s + ((square * square[h]).sum(1) ** 2).sum() * ((square * square[h]).sum(1) ** 3).sum()
        ),
        "choice inside": lambda s, b, h, q, kv: torch.where(w[h] > s, w[h] * s, 0.5 * s).sum(),
        "choice outside": lambda s, b, h, q, kv: torch.where(q > kv, (w[h] * s).sum(), w[b].sum()),
        "counted": lambda s, b, h, q, kv: s * (w[h] > 0).sum() + w[h, 2],
    }


@pytest.mark.parametrize("name", _row_mods())
def test_rows_are_those_of_autograd(name: str) -> None:
    """Sums, products and extremes of rows; ties share evenly."""
    assert_is_autograd(_row_mods()[name], scores_of(2, 3, 3, 4))


@pytest.mark.parametrize("name", _row_mods())
def test_loops_are_written_as_they_nest(name: str) -> None:
    """No reduction stands inside of one of its own number, which a kernel could not tell apart."""
    found, _ = derivative_of(_row_mods()[name])

    for expr, rows in [(found.score, ()), *((s.factor, s.rows) for s in found.captured)]:
        loops = [node for node in walk(expr) if isinstance(node, Reduce)]
        for loop in loops:
            inside = {n.number for n in walk(loop.body) if isinstance(n, Reduce)}
            assert loop.number not in inside
        assert not {row.number for row in rows} & {loop.number for loop in loops}


# --- cost -----------------------------------------------------------------------------


def test_sharing_is_kept() -> None:
    """A 30-fold nested x * x has 2**30 paths, and a derivative of a few nodes for each level."""
    x: Expr = Score(F64)
    for _ in range(30):
        x = Binary(BinaryOp.MUL, x, x)

    found = differentiate(x, ()).score

    assert len(list(walk(found))) < 30 * 4
    value = evaluate(found, b=0, h=0, q_idx=0, kv_idx=0, score=torch.tensor(1.0))
    assert value.item() == 2.0**30


def test_cost_is_linear_in_depth() -> None:
    """Twice as many nested choices, twice as many nodes; 4,000 levels do not overflow."""

    def size(n: int) -> int:
        score = Score(F64)
        x: Expr = score
        for i in range(n):
            bound = Const(float(i), F64)
            is_above = Compare(CompareOp.GT, score, bound)
            x = Select(is_above, Binary(BinaryOp.MUL, x, score), bound)
        return len(list(walk(differentiate(x, ()).score)))

    assert size(400) < 2.2 * size(200)
    assert size(4000) < 11 * size(400)


# --- examples -------------------------------------------------------------------------


def test_softcap_shares_its_tanh() -> None:
    """``20 * tanh(score / 20)`` has the derivative ``1 - tanh(...) ** 2``, of the same tanh."""
    found, _ = derivative_of(lambda s, b, h, q, kv: 20 * torch.tanh(s / 20), F32)

    x = "tanh(score / 20.0)"
    assert format_expr(found.score) == f"1.0 - {x} * {x}"
    assert found.captured == ()


def test_alibi_slopes() -> None:
    """The derivative by the slope of a head is the distance."""
    slopes = torch.rand(8)
    found, _ = derivative_of(lambda s, b, h, q, kv: s - slopes[h] * (q - kv), F32)

    assert format_expr(found.score) == "1.0"
    (scatter,) = found.captured
    assert (scatter.slot, scatter.indices, scatter.rows) == (0, (H_IDX,), ())
    assert format_expr(scatter.factor) == "-float32(q_idx - kv_idx)"


def test_relative_position_buckets() -> None:
    """T5: the derivative by the bias of a bucket is 1; the index is the bucket."""
    bias = torch.randn(32, 8)

    def bucket(distance: Any) -> Any:
        far = 16 + (torch.log(distance / 16) / math.log(8) * 16).int()
        return torch.where(distance < 16, distance, torch.clamp(far, max=31))

    found, _ = derivative_of(
        lambda s, b, h, q, kv: s + bias[bucket(torch.clamp(q - kv, min=0)), h], F32
    )

    (scatter,) = found.captured
    assert format_expr(scatter.factor) == "1.0"
    assert scatter.indices[1] is H_IDX
    assert "min(" in format_expr(scatter.indices[0])


def test_graphormer_has_two_tables() -> None:
    """Distances and edge types choose from two tables; the integers have no gradient."""
    distance, edge = torch.randint(0, 9, (2, 5, 5)), torch.randint(0, 4, (2, 5, 5))
    spatial, by_edge = torch.randn(9, 8), torch.randn(4, 8)
    mod: Mod = lambda s, b, h, q, kv: (
        s + spatial[distance[b, q, kv], h] + 0.5 * by_edge[edge[b, q, kv], h]
    )
    slots = SlotTable()
    score = simplify(trace_score(mod, slots, F32).expr)

    found = differentiate(score, range(len(slots.tensors)))

    factors = {id(slots.tensors[s.slot]): format_expr(s.factor) for s in found.captured}
    assert factors == {id(spatial): "1.0", id(by_edge): "0.5"}
    gathers = {n for n in walk(score) if isinstance(n, Gather)}
    assert all(Gather(s.slot, s.indices, F32) in gathers for s in found.captured)


def test_only_wanted_tensors_are_differentiated() -> None:
    """A frozen tensor costs nothing, and without any the score's derivative is the same."""
    scale, bias = torch.rand(4), torch.rand(4)
    slots = SlotTable()
    score = trace_score(lambda s, b, h, q, kv: s * scale[h] + bias[kv], slots, F32).expr

    both, one, none = (differentiate(score, wanted) for wanted in ((0, 1), (1,), ()))

    assert [s.slot for s in both.captured] == [0, 1]
    assert one.captured == both.captured[1:]
    assert none.captured == ()
    assert both.score is one.score is none.score


def test_gather_used_twice_has_one_factor() -> None:
    """Contributions of one element are summed, and cancel where they do."""
    t = torch.rand(4)

    (twice,) = derivative_of(lambda s, b, h, q, kv: s + t[h] + t[h] * 2, F32)[0].captured
    cancelled = derivative_of(lambda s, b, h, q, kv: s + t[h] - t[h], F32)[0].captured

    assert format_expr(twice.factor) == "3.0"
    assert cancelled == ()


def test_score_that_is_not_read_has_derivative_zero() -> None:
    """So nothing flows back to queries and keys."""
    t = torch.rand(4)
    found, _ = derivative_of(lambda s, b, h, q, kv: t[q] * 2, F32)

    assert found.score is Const(0.0, F32)
    assert [format_expr(s.factor) for s in found.captured] == ["2.0"]


def test_constants_that_overflow_together_stay_apart() -> None:
    """In float32 1e25 * 1e25 is inf, but 1e25 * (1e25 * 0) is 0."""
    found, _ = derivative_of(lambda s, b, h, q, kv: torch.tanh(s * 1e25) * 1e25, F32)

    one = torch.tensor(1.0)
    assert evaluate(found.score, b=0, h=0, q_idx=0, kv_idx=0, score=one).item() == 0
