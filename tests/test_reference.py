"""The oracle itself, against PyTorch's own implementations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import flex_attention as torch_flex

from attnc.runtime import reference
from attnc.runtime.reference import reference_attention, reference_mask, reference_scores


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _qkv(
    n_queries: int, n_keys: int, *, heads: int = 2, kv_heads: int = 2, kv_batch: int = 2
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        _random(2, heads, n_queries, 8, seed=1),
        _random(kv_batch, kv_heads, n_keys, 8, seed=2),
        _random(kv_batch, kv_heads, n_keys, 5, seed=3),
    )


@pytest.mark.parametrize(("n_queries", "n_keys"), [(1, 1), (17, 33), (64, 64), (33, 17)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_it_equals_scaled_dot_product_attention(
    n_queries: int, n_keys: int, is_causal: bool
) -> None:
    """Causal or full, square or not, with a value size of its own."""
    q, k, v = _qkv(n_queries, n_keys)
    mask = (lambda b, h, q_idx, kv_idx: q_idx >= kv_idx) if is_causal else None

    result = reference_attention(q, k, v, mask=mask)

    expected = F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
    torch.testing.assert_close(result.out, expected, rtol=1e-12, atol=1e-12)


def test_grouped_queries_read_their_key_head() -> None:
    """Query head h reads key head h // group, as with enable_gqa in PyTorch."""
    q, k, v = _qkv(9, 12, heads=6, kv_heads=2)

    result = reference_attention(q, k, v, enable_gqa=True, scale=0.3)

    expected = F.scaled_dot_product_attention(q, k, v, enable_gqa=True, scale=0.3)
    torch.testing.assert_close(result.out, expected, rtol=1e-12, atol=1e-12)


def test_grouped_queries_must_be_asked_for() -> None:
    """Unequal head counts without enable_gqa are a mistake, as in PyTorch."""
    q, k, v = _qkv(4, 4, heads=6, kv_heads=2)

    with pytest.raises(AssertionError, match="enable_gqa"):
        reference_attention(q, k, v)


def test_one_batch_of_keys_serves_all() -> None:
    """Keys and values of batch size 1 broadcast."""
    q, k, v = _qkv(9, 12, kv_batch=1)

    result = reference_attention(q, k, v)

    expected = reference_attention(q, k.expand(2, -1, -1, -1), v.expand(2, -1, -1, -1))
    torch.testing.assert_close(result.out, expected.out, rtol=1e-12, atol=1e-12)


_bias = _random(2, 200, seed=5)


def _relative(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score * 0.5 + _bias[h, q_idx - kv_idx + 100] - b


def _checkered(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return ((q_idx + kv_idx + h) % 3 != b) & (q_idx >= kv_idx)


def test_it_equals_eager_flex_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """The output is that of PyTorch's eager flex_attention, with both mods."""
    q, k, v = _qkv(40, 50)
    monkeypatch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)

    result = reference_attention(q, k, v, mask=_checkered, score=_relative)

    block_mask = torch_flex.create_block_mask(_checkered, 2, 2, 40, 50, device="cpu")
    expected = torch_flex.flex_attention(q, k, v, score_mod=_relative, block_mask=block_mask)
    torch.testing.assert_close(result.out, expected, rtol=1e-10, atol=1e-10)


def test_lse_and_max_are_of_the_modified_scores() -> None:
    """Natural logarithm, after scale, score_mod and mask."""
    q, k, v = _qkv(40, 50)

    result = reference_attention(q, k, v, mask=_checkered, score=_relative, scale=0.7)

    scores = reference_scores(_relative, q @ k.mT * 0.7)
    scores = scores.masked_fill(~reference_mask(_checkered, 2, 2, 40, 50), -math.inf)
    torch.testing.assert_close(result.lse, scores.logsumexp(dim=3), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(result.max_scores, scores.amax(dim=3), rtol=1e-12, atol=1e-12)


def test_dense_mask_equals_mask_mod() -> None:
    """A bool tensor, also a broadcast one, stands for the mask_mod it was made from."""
    q, k, v = _qkv(20, 30)
    expected = reference_attention(q, k, v, mask=_checkered)

    dense = reference_mask(_checkered, 2, 2, 20, 30)

    assert torch.equal(reference_attention(q, k, v, mask=dense).out, expected.out)
    padding = dense[:, :1, :1]
    assert torch.equal(
        reference_attention(q, k, v, mask=padding).out,
        reference_attention(q, k, v, mask=padding.expand(-1, 2, 20, -1)).out,
    )


def test_dense_mask_equals_create_mask() -> None:
    """reference_mask is PyTorch's create_mask."""
    expected = torch_flex.create_mask(_checkered, 2, 2, 20, 30, device="cpu")

    assert torch.equal(reference_mask(_checkered, 2, 2, 20, 30), expected)


def test_row_without_visible_key_is_zero() -> None:
    """Out 0, lse -inf, max -inf, whether by mask, by score or for want of keys."""
    q, k, v = _qkv(3, 4)
    by_mask = reference_attention(q, k, v, mask=lambda b, h, q_idx, kv_idx: q_idx == 1)
    by_score = reference_attention(
        q, k, v, score=lambda s, b, h, q_idx, kv_idx: torch.where(q_idx == 1, s, -math.inf)
    )
    no_keys = reference_attention(q, k[:, :, :0], v[:, :, :0])

    for result in (by_mask, by_score, no_keys):
        for row in (0, 2):
            assert (result.out[:, :, row] == 0).all()
            assert (result.lse[:, :, row] == -math.inf).all()
            assert (result.max_scores[:, :, row] == -math.inf).all()
    assert torch.equal(by_mask.out, by_score.out)
    assert by_mask.lse[:, :, 1].isfinite().all()


def test_invisible_values_never_matter() -> None:
    """NaN and inf of a masked key stay out; those of a visible one arrive as in arithmetic."""
    q, k, v = _qkv(3, 4)
    v[:, :, 2, 0] = math.nan
    v[:, :, 2, 1] = math.inf
    k[:, :, 2, 0] = math.nan
    expected = reference_attention(q[:, :, :2], k[:, :, :2], v[:, :, :2])

    result = reference_attention(
        q, k, v, mask=lambda b, h, q_idx, kv_idx: (kv_idx < 2) | (q_idx == 2)
    )

    torch.testing.assert_close(result.out[:, :, :2], expected.out, rtol=1e-12, atol=1e-12)
    assert result.out[:, :, 2].isnan().all()
    k[:, :, 2, 0] = 0.0
    last = reference_attention(q, k, v).out[:, :, 2]
    assert last[..., 0].isnan().all()
    assert (last[..., 1] == math.inf).all()
    assert last[..., 2:].isfinite().all()


def test_chunks_of_rows_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory bound changes nothing: q_idx and dense masks are those of the whole."""
    q, k, v = _qkv(23, 11)
    dense = reference_mask(_checkered, 2, 2, 23, 11)
    whole = reference_attention(q, k, v, mask=_checkered, score=_relative)

    monkeypatch.setattr(reference, "_CHUNK_ELEMENTS", 2 * 2 * 11 * 5)

    assert torch.equal(reference_mask(_checkered, 2, 2, 23, 11), dense)
    for mask in (_checkered, dense):
        chunked = reference_attention(q, k, v, mask=mask, score=_relative)
        torch.testing.assert_close(chunked.out, whole.out, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(chunked.lse, whole.lse, rtol=1e-12, atol=1e-12)


def test_scores_are_modified_at_their_coordinates() -> None:
    """reference_scores applies a score_mod to given scores from a given query on."""
    scores = _random(2, 2, 6, 7)

    result = reference_scores(_relative, scores, first_query=4)

    for b, h, row, kv in ((0, 0, 0, 0), (1, 1, 5, 6), (0, 1, 2, 3)):
        expected = scores[b, h, row, kv] * 0.5 + _bias[h, row + 4 - kv + 100] - b
        assert result[b, h, row, kv] == expected


def test_functions_may_ignore_everything() -> None:
    """A constant, tensor or Python value, counts for every point."""
    assert reference_mask(
        lambda b, h, q_idx, kv_idx: q_idx.new_ones((), dtype=torch.bool), 1, 2, 3, 4
    ).all()
    assert reference_mask(lambda b, h, q_idx, kv_idx: True, 1, 2, 3, 4).all()
    assert reference_mask(lambda b, h, q_idx, kv_idx: kv_idx < 9, 1, 2, 0, 4).shape == (1, 2, 0, 4)
