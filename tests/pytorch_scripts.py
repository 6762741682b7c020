"""Scripts that run against attnc and against PyTorch's own module, and how results are compared."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention import flex_attention as torch_flex

Script = Callable[[Any], Any]


LISTS = [
    f"{full}{axis}_{part}"
    for axis in ("kv", "q")
    for full in ("", "full_")
    for part in ("num_blocks", "indices")
]


newest = pytest.mark.skipif(
    not hasattr(torch_flex.BlockMask, "_adjust")
    or "dq_write_order" not in inspect.signature(torch_flex.BlockMask.from_kv_blocks).parameters,
    reason="PyTorch before 2.13 has fewer parameters and other slices",
)


def causal(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


def window(b, h, q_idx, kv_idx):
    return (q_idx - kv_idx).abs() < 40


def per_head(b, h, q_idx, kv_idx):
    return (q_idx - kv_idx < 30 * (h + 1)) & (q_idx >= kv_idx)


def alibi(score, b, h, q_idx, kv_idx):
    return score - (q_idx - kv_idx) / (h + 2)


def assert_same(ours: Any, theirs: Any) -> None:
    """Equal values, tensors of one dtype, shape and content, errors of the same family."""
    if isinstance(theirs, Exception):
        assert isinstance(ours, type(theirs)), (ours, theirs)
    elif isinstance(theirs, torch.Tensor):
        assert ours.dtype is theirs.dtype
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    elif isinstance(theirs, torch_flex.BlockMask):
        for name in LISTS:
            assert_same(getattr(ours, name), getattr(theirs, name))
        assert (ours.shape, ours.BLOCK_SIZE) == (theirs.shape, theirs.BLOCK_SIZE)
        assert ours.seq_lengths == theirs.seq_lengths
    elif isinstance(theirs, (tuple, list)):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert_same(mine, other)
    else:
        assert ours == theirs


def made_from_lists(m: Any, **options: Any) -> Any:
    number = torch.tensor([[[2, 1, 3], [1, 0, 2]]], dtype=torch.int32)
    index = torch.tensor(
        [[[[0, 3, 1, 2], [2, 0, 1, 3], [3, 2, 1, 0]], [[1, 0, 2, 3], [0, 1, 2, 3], [2, 1, 0, 3]]]],
        dtype=torch.int32,
    )
    full_number = torch.tensor([[[1, 0, 1], [2, 2, 0]]], dtype=torch.int32)
    full_index = index.flip(3).contiguous()
    return m.BlockMask.from_kv_blocks(number, index, full_number, full_index, **options)
