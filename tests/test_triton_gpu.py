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


def attend_and_check(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, mask: Any = causal, score: Any = None
) -> None:
    """Passes if the kernel's results are those of dense float64."""
    options = {"mask": mask, "score": score, "enable_gqa": True}
    out, lse = attnc.attention(q, k, v, return_lse=True, **options)
    expected = reference_attention(q, k, v, **options)
    sizes = {"head_dim": q.shape[3], "n_keys": k.shape[2]}
    assert_close_to_reference(out, lse, expected, q.dtype, **sizes)


def normal(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    generator = torch.Generator("cuda").manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, device="cuda").to(dtype)


def test_long_sequences() -> None:
    """32,768 keys; the first and last 64 queries see what dense float64 gives."""
    length = 32768
    q, k, v = (normal(1, 1, length, 64) for _ in range(3))
    out = attnc.attention(q, k, v, mask=causal)

    for start in (0, length - 64):
        rows = slice(start, start + 64)

        def shifted(b: Any, h: Any, q_idx: Any, kv_idx: Any, start: int = start) -> Any:
            return q_idx + start >= kv_idx

        expected = reference_attention(q[:, :, rows], k, v, mask=shifted).out
        torch.testing.assert_close(out[:, :, rows].double(), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_any_memory_order(dtype: torch.dtype) -> None:
    """Heads behind the length, every second element, an offset that no vector load likes."""
    q = normal(2, 300, 4, 64, dtype=dtype).transpose(1, 2)
    k = normal(2, 4, 300, 128, dtype=dtype)[..., ::2]
    v = normal(2 * 4 * 300 * 64 + 1, dtype=dtype)[1:].view(2, 4, 300, 64)

    attend_and_check(q, k, v)


def test_the_same_kernel_takes_other_layouts() -> None:
    """What is compiled for one alignment and one set of strides is not launched for another."""
    q, k, v = (normal(1, 2, 256, 64) for _ in range(3))
    shifted = normal(1 + q.numel())[1:].view_as(q)
    for _ in range(2):
        attend_and_check(q, k, v)
        attend_and_check(q, k, shifted)
        attend_and_check(q, k.transpose(2, 3).contiguous().transpose(2, 3), v)


@pytest.mark.parametrize("scale", [-0.5, 0.0])
def test_any_scale(scale: float) -> None:
    """The greatest product need not be the greatest score."""
    q, k, v = (normal(1, 2, 200, 64, dtype=torch.float32) for _ in range(3))

    out = attnc.attention(q, k, v, mask=causal, scale=scale)

    expected = reference_attention(q, k, v, mask=causal, scale=scale).out
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-4)


def test_other_streams() -> None:
    """A call runs on the current stream, in order with what made its inputs there."""
    q, k, v = (normal(1, 2, 512, 64) for _ in range(3))
    expected = attnc.attention(q, k, v, mask=causal)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())

    with torch.cuda.stream(stream):
        late = torch.zeros_like(q)
        torch.cuda._sleep(50_000_000)
        late.copy_(q)
        out = attnc.attention(late, k, v, mask=causal)
    stream.synchronize()

    assert torch.equal(out, expected)


def test_cuda_graphs() -> None:
    """After a first call, one can be captured; its replay reads what the inputs then hold."""
    q, k, v = (normal(1, 2, 512, 64) for _ in range(3))
    ids = torch.arange(512, device="cuda") // 100

    def window(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (q_idx >= kv_idx) & (q_idx - kv_idx < 100)

    def capped(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return softcap(score, b, h, q_idx, kv_idx) + 0.1 * (ids[q_idx] - ids[kv_idx])

    attnc.attention(q, k, v, mask=window, score=capped)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = attnc.attention(q, k, v, mask=window, score=capped)
    q.copy_(normal(1, 2, 512, 64) * 2)

    graph.replay()

    assert torch.equal(out, attnc.attention(q, k, v, mask=window, score=capped))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU only")
def test_another_gpu() -> None:
    """A call runs where its inputs are, whichever GPU is the current one."""
    q, k, v = (normal(1, 2, 300, 64) for _ in range(3))
    expected = attnc.attention(q, k, v, mask=causal)

    out = attnc.attention(*(x.to("cuda:1") for x in (q, k, v)), mask=causal)

    assert out.device == torch.device("cuda:1")
    torch.testing.assert_close(out.to(q.device), expected)
