"""Laws of the compiler's front, over random programs: tracer, evaluator, simplifier, analysis."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from hypothesis import event, given
from hypothesis import strategies as st

from attnc.blocks import classify
from attnc.evaluate import evaluate
from attnc.ir import DType, Expr
from attnc.run_table import Kind
from attnc.runtime.reference import reference_mask, reference_scores
from attnc.simplify import simplify
from attnc.testing import MaskRecipe, ScoreRecipe, Shape, masks, score_mods, shapes
from attnc.trace import SlotTable, trace_mask, trace_score


def _values(expr: Expr, shape: Shape, tensors: list[torch.Tensor], score: Any = None) -> Any:
    n_batch, n_heads, n_queries, n_keys = _grid(shape)

    def axis(size: int, place: int) -> torch.Tensor:
        sizes = [1, 1, 1, 1]
        sizes[place] = size
        return torch.arange(size, dtype=torch.int32).reshape(sizes)

    return evaluate(
        expr,
        b=axis(n_batch, 0),
        h=axis(n_heads, 1),
        q_idx=axis(n_queries, 2),
        kv_idx=axis(n_keys, 3),
        score=score,
        tensors=tensors,
    ).expand(n_batch, n_heads, n_queries, n_keys)


def _grid(shape: Shape) -> tuple[int, int, int, int]:
    return shape.n_batch, shape.n_heads, shape.n_queries, shape.n_keys


@given(masks(max_depth=4), shapes())
def test_traced_mask_is_the_function(recipe: MaskRecipe, shape: Shape) -> None:
    """The expression, simplified or not, has the value of the function at every point, exactly."""
    function = recipe.build()
    slots = SlotTable()
    expected = reference_mask(function, *_grid(shape))

    expr = trace_mask(function, slots).expr

    assert torch.equal(_values(expr, shape, slots.tensors), expected)
    assert torch.equal(_values(simplify(expr), shape, slots.tensors), expected)


@given(score_mods(max_depth=4), shapes(), st.integers(0, 3))
def test_traced_score_is_the_function(recipe: ScoreRecipe, shape: Shape, seed: int) -> None:
    """In float64 to the rounding of float32 parts, which tables and int * float have."""
    function = recipe.build()
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(_grid(shape), dtype=torch.float64, generator=generator)
    expected = reference_scores(function, scores)

    for dtype, tolerance in ((DType.FLOAT64, 1e-5), (DType.FLOAT32, 1e-4)):
        slots = SlotTable()
        expr = trace_score(function, slots, dtype).expr
        for form in (expr, simplify(expr)):
            values = _values(form, shape, slots.tensors, scores)
            assert values.dtype == (torch.float64 if dtype is DType.FLOAT64 else torch.float32)
            torch.testing.assert_close(
                values.double(), expected, rtol=tolerance, atol=tolerance, equal_nan=True
            )


# What the domains are for; `--hypothesis-show-statistics` tells how often each is drawn.
_PATTERNS = {
    "a quotient or remainder": r"//|%",
    "bits": r" [&^|] \d|<<|>>|\^ kv",
    "an axis of a grid": r"// \d+ % \d+|// \d+ - kv_idx",
    "a nested gather": r"\w\[[^\[\]]*\w\[",
    "a gather": r"t\d",
    "a choice": r"where|minimum|maximum|clamp",
    "a quotient of floats": r" / ",
}


@given(masks(), shapes(), st.sampled_from([(16, 16), (128, 64), (64, 128), (7, 5)]))
def test_tiles_are_what_they_hold(recipe: MaskRecipe, shape: Shape, block: tuple[int, int]) -> None:
    """Sound and exact: EMPTY has no visible pair, FULL no hidden one, PARTIAL both."""
    function = recipe.build()
    slots = SlotTable()
    mask = simplify(trace_mask(function, slots).expr)
    dense = reference_mask(function, *_grid(shape)).numpy()

    result = classify(
        mask,
        slots.tensors,
        n_batch=shape.n_batch,
        n_heads=shape.n_heads,
        n_queries=shape.n_queries,
        n_keys=shape.n_keys,
        block_m=block[0],
        block_n=block[1],
    )

    table = result.table
    for name, pattern in _PATTERNS.items():
        if re.search(pattern, recipe.source):
            event(f"draws {name}")
    event("evaluates tiles" if result.n_evaluated else "decides by intervals")
    expected = _kinds(dense, block)
    assert np.array_equal(np.broadcast_to(table.to_dense(), expected.shape), expected)


def _kinds(dense: Any, block: tuple[int, int]) -> Any:
    """Class of each tile (B, H, n_q_blocks, n_kv_blocks) by looking at all its elements."""
    n_queries, n_keys = dense.shape[2:]
    rows = range(0, n_queries, block[0])
    columns = range(0, n_keys, block[1])
    kinds = np.zeros((*dense.shape[:2], len(rows), len(columns)), dtype=np.int8)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            tile = dense[:, :, row : row + block[0], column : column + block[1]]
            kinds[:, :, i, j] = np.where(tile.any((2, 3)), int(Kind.PARTIAL), 0)
            kinds[:, :, i, j] = np.where(tile.all((2, 3)), int(Kind.FULL), kinds[:, :, i, j])
    return kinds
