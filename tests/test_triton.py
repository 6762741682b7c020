"""Triton kernels in Triton's interpreter: every result equals dense float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from triton_kernels import assert_equals_oracle, interpret, qkv

from attnc.run_table import Kind, RunTable
from attnc.testing import InputsRecipe, MaskRecipe, ScoreRecipe, inputs, masks, score_mods

pytestmark = pytest.mark.usefixtures("interpreter")

WITHOUT_SHRINKING = [Phase.explicit, Phase.reuse, Phase.generate]


def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


def window(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return (q_idx >= kv_idx) & (q_idx - kv_idx < 40)


@pytest.mark.parametrize("n_queries", [1, 127, 129])
@pytest.mark.parametrize("n_keys", [0, 1, 64, 127, 129])
@pytest.mark.parametrize("mask", [None, causal, window])
def test_any_lengths(n_queries: int, n_keys: int, mask: Any) -> None:
    """Lengths need not be multiples of the tile, and rows without keys are 0 and -inf."""
    assert_equals_oracle(*qkv(n_queries, n_keys), mask=mask)


def test_no_queries_is_no_launch() -> None:
    """Without queries there is nothing to store."""
    assert interpret(*qkv(0, 5)).out.shape == (1, 1, 0, 16)


@pytest.mark.parametrize(("head_dim", "value_dim"), [(1, 1), (3, 5), (80, 64), (64, 80), (16, 128)])
def test_any_widths(head_dim: int, value_dim: int) -> None:
    """Widths are padded to what a matrix product takes, and may differ."""
    assert_equals_oracle(*qkv(33, 70, head_dim, value_dim), mask=causal)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_any_dtype(dtype: torch.dtype) -> None:
    """Every dtype gives what its precision allows, with a score_mod too."""
    assert_equals_oracle(
        *qkv(40, 130, dtype=dtype),
        mask=window,
        score=lambda s, b, h, q, kv: 5 * torch.tanh(s / 5) + 0.01 * (kv - q),
    )


def test_grouped_heads_and_broadcast_keys() -> None:
    """Query heads share key heads in groups, and one batch of keys may serve all."""
    shapes = qkv(20, 70, n_batch=3, n_heads=6, kv_batch=1, kv_heads=2)
    assert_equals_oracle(*shapes, score=lambda s, b, h, q, kv: s + h * 0.5 - b)


def test_any_strides() -> None:
    """Tensors need not be contiguous in any dimension, the innermost included."""
    q, k, v = (x.transpose(2, 3).contiguous().transpose(2, 3) for x in qkv(40, 70, n_heads=2))
    wide = v.repeat_interleave(2, dim=3)[..., ::2]
    assert_equals_oracle(q, k, wide, mask=causal)


def test_wide_offsets() -> None:
    """Offsets of 64 bits give the same bits."""
    tensors = qkv(40, 130, n_heads=2)
    bias = torch.linspace(-1, 1, 130)

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return s + bias[kv]

    narrow = interpret(*tensors, mask=window, score=score)
    wide = interpret(*tensors, mask=window, score=score, wide_index=True)

    assert torch.equal(narrow.out, wide.out)
    assert torch.equal(narrow.lse, wide.lse)


def test_rows_without_visible_keys_are_zero() -> None:
    """A row that sees nothing has out 0, lse -inf and max -inf."""
    result = assert_equals_oracle(*qkv(70, 70), mask=lambda b, h, q, kv: (q > 30) & (kv >= 40))

    assert torch.equal(result.out[:, :, :31], torch.zeros(1, 1, 31, 16))
    assert (result.max_scores[:, :, :31] == -math.inf).all()


@pytest.mark.parametrize("size", [1e4, 1e30, 3e38])
def test_huge_scores(size: float) -> None:
    """Scores near the end of float32's range neither overflow nor become NaN."""
    assert_equals_oracle(*qkv(20, 70), score=lambda s, b, h, q, kv: (kv % 3 - 1) * size)


def test_a_score_of_minus_infinity_is_masked() -> None:
    """Whole tiles and rows of -inf count as masked; a finite score among them is seen."""

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return torch.where((kv < 64) | (q == 3), -math.inf, s)

    assert_equals_oracle(*qkv(20, 130), score=score)


def test_what_is_not_visible_does_not_matter() -> None:
    """NaN in keys and values of EMPTY tiles and beyond the lengths reaches no result."""
    q, k, v = qkv(64, 128)
    long_k, long_v = (torch.cat([x, torch.full_like(x, torch.nan)], dim=2) for x in (k, v))
    k, v = long_k[:, :, :100], long_v[:, :, :100]  # in memory, NaN follows
    long_k[:, :, 100:], long_v[:, :, 100:] = torch.nan, torch.nan
    k[:, :, 64:], v[:, :, 64:] = torch.nan, torch.nan

    result = interpret(q, k, v, mask=lambda b, h, q, kv: kv <= torch.minimum(q, q * 0 + 63))

    assert result.out.isfinite().all()
    assert result.lse.isfinite().all()


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
        torch.float16, torch.bfloat16, torch.float32, torch.float64,
    ],
)  # fmt: skip
def test_captured_tensors_of_any_dtype(dtype: torch.dtype) -> None:
    """A captured tensor may have any dtype and strides, and its indices may be negative."""
    table = torch.arange(-30, 60).reshape(15, 6).to(dtype).T

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return s + table[q % 6, kv % 15] * 0.125 + table[-1 - q % 6, kv % 15 - 15] * 0.25

    assert_equals_oracle(*qkv(20, 70), score=score)


def test_a_table_is_followed() -> None:
    """With a table, tiles outside are skipped, and the mask holds in PARTIAL ones only."""
    q, k, v = qkv(64, 150)
    kinds = np.array([[[[Kind.FULL, Kind.EMPTY, Kind.FULL]]]], np.int8)
    table = RunTable.from_dense(kinds, n_queries=64, n_keys=150, block_m=64, block_n=64)

    result = interpret(q, k, v, mask=causal, table=table, from_table=True)

    visible = torch.ones(64, 150, dtype=torch.bool)
    visible[:, 64:128] = False
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=visible)
    torch.testing.assert_close(result.out, expected)


def test_documents_by_table() -> None:
    """Tiles of a mask that reads a tensor come from a table, the ragged last one included."""
    documents = torch.tensor([0] * 70 + [1] * 50 + [2] * 30)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (documents[q] == documents[kv]) & (q >= kv)

    assert_equals_oracle(*qkv(150, 150, n_heads=2), mask=mask)


@pytest.mark.parametrize("size", [40, 41, 2**31 - 1])
def test_one_kernel_serves_every_window(size: int) -> None:
    """The size of a window is an argument, and bounds near 2**31 do not wrap around."""

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (q >= kv) & (q - kv < size)

    assert_equals_oracle(*qkv(130, 130), mask=mask)


def test_comparisons_of_scalars_meet_tiles() -> None:
    """A comparison of floats that depends on the head alone combines with one of the tile."""
    slopes = torch.tensor([0.25, 0.75])

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (slopes[h] > 0.5) & (q >= kv) | slopes[h].to(torch.bool) & (kv < 3)

    assert_equals_oracle(*qkv(20, 70, n_heads=2), mask=mask)


@settings(max_examples=25, phases=WITHOUT_SHRINKING)
@given(masks(), inputs(dtypes=("float32", "float16", "bfloat16", "float64")))
def test_random_masks_equal_the_oracle(mask: MaskRecipe, recipe: InputsRecipe) -> None:
    """Whatever the mask, shape, dtype and strides: the kernel gives what dense float64 gives."""
    assert_equals_oracle(*recipe.build(), mask=mask.build())


@settings(max_examples=25, phases=WITHOUT_SHRINKING)
@given(score_mods(), inputs(dtypes=("float32", "float64")))
def test_random_score_mods_equal_the_oracle(score: ScoreRecipe, recipe: InputsRecipe) -> None:
    """Whatever the score_mod: the kernel gives what dense float64 gives."""
    assert_equals_oracle(*recipe.build(), score=score.build())


@pytest.mark.parametrize("scale", [-0.7, 0.0, 3.0])
@pytest.mark.parametrize("score", [None, lambda s, b, h, q, kv: s / 3 + 0.1 * (kv - q)])
def test_any_scale(scale: float, score: Any) -> None:
    """The greatest product need not be the greatest score."""
    assert_equals_oracle(*qkv(20, 70), mask=window, score=score, scale=scale)


def test_a_compared_score_is_the_score() -> None:
    """A score_mod that compares scores sees what it would see in eager PyTorch."""

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return torch.where(s > 0.0, s * 2.0 + 1.0, s / 3.0 - 1.0)

    assert_equals_oracle(*qkv(20, 70), score=score)
