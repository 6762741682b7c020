"""Triton kernels launched for real, where there is a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import attnc
from attnc.runtime.reference import reference_attention
from attnc.testing import assert_close_to_reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]


def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


def softcap(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return 20 * torch.tanh(score / 20)


def documents(device: str) -> Callable[..., Any]:
    ids = torch.arange(1000, device=device) // 150

    def same_document(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (ids[q_idx] == ids[kv_idx]) & (q_idx >= kv_idx)

    return same_document


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("head_dim", [64, 80, 128])
@pytest.mark.parametrize("name", ["causal", "softcap", "documents"])
def test_kernels_equal_the_oracle(name: str, head_dim: int, dtype: torch.dtype) -> None:
    """Ragged lengths and grouped heads give what dense float64 gives."""
    generator = torch.Generator("cuda").manual_seed(0)
    q, k, v = (
        torch.randn(2, heads, 1000, head_dim, generator=generator, device="cuda").to(dtype)
        for heads in (4, 2, 2)
    )
    mask = documents("cuda") if name == "documents" else causal
    score = softcap if name == "softcap" else None

    out, lse = attnc.attention(
        q, k, v, mask=mask, score=score, enable_gqa=True, return_lse=True, backend="triton"
    )

    expected = reference_attention(q, k, v, mask=mask, score=score, enable_gqa=True)
    assert_close_to_reference(out, lse, expected, dtype, head_dim=head_dim, n_keys=1000)


def test_one_binary_serves_other_lengths() -> None:
    """Lengths and constants are arguments: other ones compile nothing new."""
    from attnc.runtime.triton import _kernels

    def attend(n: int, size: int) -> int:
        q, k, v = (torch.randn(1, 2, n, 64, device="cuda", dtype=torch.float16) for _ in range(3))

        def window(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return (q_idx >= kv_idx) & (q_idx - kv_idx < size)

        attnc.attention(q, k, v, mask=window)
        return sum(
            len(cache)
            for kernel in _kernels.values()
            for cache, *_ in kernel.function.device_caches.values()
        )

    assert attend(512, 100) == attend(1024, 77) == attend(2048, 1000)


def test_numbers_may_be_on_the_cpu() -> None:
    """PyTorch takes 0-dim CPU tensors with CUDA tensors; q_idx.device is where q is."""
    q, k, v = (torch.randn(1, 2, 200, 64, device="cuda") for _ in range(3))
    size, cap = torch.tensor(50), torch.tensor(5.0, device="cuda")

    def window(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        first = torch.tensor([0, 3], device=q_idx.device)
        return (q_idx - kv_idx).abs() < size + first[h]

    def capped(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return cap * torch.tanh(score / cap)

    out, lse = attnc.attention(q, k, v, mask=window, score=capped, return_lse=True)

    expected = reference_attention(q, k, v, mask=window, score=capped)
    assert_close_to_reference(out, lse, expected, q.dtype, head_dim=64, n_keys=200)


def test_blocks_of_numbers_on_the_gpu_are_found() -> None:
    """A mask whose only captured tensor is a number on the GPU."""
    size = torch.tensor(70, device="cuda")

    def modular(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (q_idx * kv_idx) % size < 3

    block_mask = attnc.create_block_mask(modular, 1, 1, 300, 300)

    assert block_mask.kv_indices.device == size.device
