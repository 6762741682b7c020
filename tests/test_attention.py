"""The public call: shapes, dtypes, devices of thought, and what it refuses."""

import os
import statistics
import subprocess
import sys
import time

import pytest
import torch

from attnc import attention, create_block_mask
from attnc.errors import (
    BackendError,
    DeviceError,
    InputDTypeError,
    InputTypeError,
    ShapeError,
)
from attnc.runtime.dispatch import captured_on_device
from attnc.runtime.reference import reference_attention


def causal(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


def tensors(*shapes, dtype=torch.float32):
    torch.manual_seed(2)
    return [torch.randn(shape, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize("length", [0, 1, 127, 129])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_lengths_and_dtypes(length, dtype) -> None:
    """Output in q's dtype, statistics in that of accumulation."""
    q, k, v = tensors((2, 3, length, 16), (2, 3, 65, 16), (2, 3, 65, 8), dtype=dtype)

    out, lse = attention(q, k, v, mask=causal, return_lse=True)

    expected = reference_attention(q, k, v, mask=causal)
    assert out.dtype is dtype
    assert lse.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 2e-2)
    torch.testing.assert_close(out.double(), expected.out, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(lse.double(), expected.lse, atol=tolerance, rtol=tolerance)


def test_no_keys_at_all() -> None:
    """Rows without a key give 0 and -inf."""
    q, k, v = tensors((1, 2, 5, 16), (1, 2, 0, 16), (1, 2, 0, 4))
    out, lse = attention(q, k, v, return_lse=True)
    assert out.shape == (1, 2, 5, 4)
    assert not out.any()
    assert torch.equal(lse, torch.full((1, 2, 5), -torch.inf))


def test_one_batch_of_keys_serves_all() -> None:
    """Bkv = 1 and shared heads, with the memory order of a (B, S, H, D) model."""
    q = tensors((3, 40, 6, 16))[0].transpose(1, 2)
    k, v = tensors((1, 50, 2, 16), (1, 50, 2, 16))
    k, v = k.transpose(1, 2), v.transpose(1, 2)

    out = attention(q, k, v, enable_gqa=True)

    expected = reference_attention(q, k, v, enable_gqa=True).out
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)
    assert out.stride() == q.stride()


def test_a_changed_closure_is_seen() -> None:
    """Constants, globals, defaults and captured tensors are read anew at each call."""
    q, k, v = tensors(*[(1, 1, 80, 16)] * 3)
    size = 5
    ids = torch.arange(80) // 10

    def mask(b, h, q_idx, kv_idx):
        return (abs(q_idx - kv_idx) < size) & (ids[q_idx] == ids[kv_idx])

    for size in (5, 50):  # noqa: B007
        for width in (10, 40):
            ids.copy_(torch.arange(80) // width)
            out = attention(q, k, v, mask=mask)
            expected = reference_attention(q, k, v, mask=mask).out
            torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)


def test_the_same_call_gives_the_same_bits() -> None:
    """Whatever the order in which threads take their work."""
    q, k, v = tensors(*[(2, 4, 300, 32)] * 3)
    first = attention(q, k, v, mask=causal)
    assert all(torch.equal(first, attention(q, k, v, mask=causal)) for _ in range(5))


def test_autocast_is_followed() -> None:
    """Under autocast float32 inputs are computed in its dtype, as PyTorch does."""
    q, k, v = tensors(*[(1, 1, 20, 16)] * 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert attention(q, k, v).dtype is torch.bfloat16


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 3, 16),) * 3, "need 4 dimensions"),
        (((1, 2, 4, 16), (1, 2, 4, 8), (1, 2, 4, 8)), "differ in head_dim"),
        (((1, 2, 4, 16), (1, 2, 4, 16), (1, 2, 5, 16)), "k and v differ"),
        (((3, 2, 4, 16), (2, 2, 4, 16), (2, 2, 4, 16)), "differ in batch"),
        (((1, 4, 4, 16), (1, 2, 4, 16), (1, 2, 4, 16)), "Pass enable_gqa=True"),
    ],
)
def test_wrong_shapes_are_named(shapes, message) -> None:
    """One line with the three shapes and what to do."""
    with pytest.raises(ShapeError, match=message):
        attention(*tensors(*shapes))


def test_heads_must_divide() -> None:
    """Three key heads cannot serve four query heads."""
    with pytest.raises(ShapeError, match="Hq must be a multiple of Hkv"):
        attention(*tensors((1, 4, 4, 16), (1, 3, 4, 16), (1, 3, 4, 16)), enable_gqa=True)


def test_dtypes_must_agree() -> None:
    """Mixed and integer inputs are refused."""
    q, k, v = tensors(*[(1, 1, 4, 16)] * 3)
    with pytest.raises(InputDTypeError, match=r"k is torch\.float16"):
        attention(q, k.half(), v)
    with pytest.raises(InputDTypeError, match=r"q is torch\.int64"):
        attention(q.long(), k.long(), v.long())


@pytest.mark.parametrize("key", [None, [[1.0]], torch.zeros(1, 2, 9, 16).numpy()])
def test_inputs_must_be_tensors(key) -> None:
    """None, lists and NumPy arrays are named by their class."""
    q, v = tensors((1, 2, 9, 16), (1, 2, 9, 16))
    with pytest.raises(InputTypeError, match=r"k is (None|a list|a numpy.ndarray), v is "):
        attention(q, key, v)


def test_the_sign_of_zero_is_content() -> None:
    """A table made for 0.0 does not serve -0.0, although the two are equal."""
    q, k, v = tensors((1, 2, 150, 16), (1, 2, 150, 16), (1, 2, 150, 16))
    limits = torch.zeros(150)

    def mask(b, h, q_idx, kv_idx):
        return (1 / limits[kv_idx] > 0) | (q_idx >= kv_idx)

    attention(q, k, v, mask=mask)
    limits.neg_()

    expected = reference_attention(q, k, v, mask=causal).out.float()
    torch.testing.assert_close(attention(q, k, v, mask=mask), expected)


def test_views_that_negate_are_read_as_such() -> None:
    """z.conj().imag is a view of z with the opposite sign."""
    z = torch.complex(*torch.randn(2, 3, 1, 2, 100, 16))
    q, k, v = z.conj().imag
    bias = z[0, 0, 0].conj().imag
    assert q.is_neg()
    assert bias.is_neg()

    def score(score, b, h, q_idx, kv_idx):
        return score + bias[q_idx, 0] * bias[kv_idx, 0] + bias[kv_idx, 1]

    def mask(b, h, q_idx, kv_idx):
        return bias[q_idx, 0] <= bias[kv_idx, 1]

    out = attention(q, k, v, mask=mask, score=score)

    expected = reference_attention(*(-z.imag), mask=mask, score=score).out
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)


def test_numbers_beyond_float32_are_infinite() -> None:
    """A constant that float32 cannot hold is inf, in the analysis as in the kernel."""
    q, k, v = tensors((1, 2, 200, 16), (1, 2, 200, 16), (1, 2, 200, 16))
    for limit in (1e300, -1e300):

        def mask(b, h, q_idx, kv_idx, limit=limit):
            return (q_idx - kv_idx < limit) & (q_idx >= kv_idx)

        out = attention(q, k, v, mask=mask)

        expected = reference_attention(q, k, v, mask=causal).out.float()
        torch.testing.assert_close(out, expected if limit > 0 else torch.zeros_like(out))


def test_backends_are_checked(monkeypatch) -> None:
    """An unknown name, and a GPU backend for CPU tensors."""
    q, k, v = tensors(*[(1, 1, 4, 16)] * 3)
    with pytest.raises(BackendError, match="use one of cpu, triton, reference"):
        attention(q, k, v, backend="cuda")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(BackendError, match="TRITON_INTERPRET=1"):
        attention(q, k, v, backend="triton")


def test_the_reference_is_a_backend() -> None:
    """ATTNC_BACKEND=reference answers the same questions."""
    q, k, v = tensors(*[(1, 2, 40, 16)] * 3)
    block_mask = create_block_mask(causal, None, None, 40, 40)
    expected, expected_lse = attention(q, k, v, mask=causal, return_lse=True)
    for mask in (causal, block_mask):
        out, lse = attention(q, k, v, mask=mask, return_lse=True, backend="reference")
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(lse, expected_lse, atol=1e-5, rtol=1e-5)


def test_fifty_masks_in_one_process_stay_fast() -> None:
    """No recompile limit: the last masks take as long as the first ones, one kernel serves all."""
    q, k, v = tensors(*[(1, 1, 64, 16)] * 3)

    def seconds(size: int) -> float:
        start = time.perf_counter()
        attention(q, k, v, mask=lambda b, h, i, j: abs(i - j) < size)
        return time.perf_counter() - start

    times = [seconds(size) for size in range(2, 53)][1:]
    assert statistics.median(times[-20:]) < 3 * statistics.median(times[:20])


def test_integers_that_wrap_around_are_followed() -> None:
    """Where int32 overflows, the tiles are found by analysis instead of by closed form."""
    q, k, v = tensors((1, 1, 200, 16), (1, 1, 200, 16), (1, 1, 200, 16))

    def wrapping(b, h, q_idx, kv_idx):
        return q_idx + (2**31 - 60) > kv_idx

    out = attention(q, k, v, mask=wrapping)

    visible = torch.arange(200)[:, None] < 60
    expected = reference_attention(q, k, v, mask=visible.expand(1, 1, 200, 200)).out
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("write", ["numpy", "data", "inference"])
def test_writes_that_no_version_counter_sees_are_seen(write) -> None:
    """The table of a captured tensor follows its content."""
    q, k, v = tensors(*[(1, 1, 150, 16)] * 3)
    with torch.inference_mode(write == "inference"):
        ids = torch.zeros(150, dtype=torch.int64)

    def documents(b, h, q_idx, kv_idx):
        return ids[q_idx] == ids[kv_idx]

    attention(q, k, v, mask=documents)
    with torch.inference_mode(write == "inference"):
        target = {"numpy": ids.numpy(), "data": ids.data, "inference": ids}[write]
        target[70:] = 1
    out = attention(q, k, v, mask=documents)

    expected = reference_attention(q, k, v, mask=documents).out
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)


def test_numbers_on_the_cpu_go_to_the_device_of_q() -> None:
    """PyTorch combines 0-dim CPU tensors with tensors of any device; others must be beside q."""
    q = torch.empty(1, device="meta")

    (number,) = captured_on_device([torch.tensor(3)], q)

    assert number.device == q.device
    with pytest.raises(DeviceError, match="captured tensor 0"):
        captured_on_device([torch.zeros(1)], q)


def test_masks_see_the_device_they_are_made_for() -> None:
    """``q_idx.device`` is the device that create_block_mask was given."""
    seen = []

    def mask(b, h, q_idx, kv_idx):
        seen.append(q_idx.device)
        return q_idx >= kv_idx

    create_block_mask(mask, 1, 1, 128, 128, device="meta")

    assert seen[0] == torch.device("meta")


def test_a_kernel_from_disk_needs_neither_sympy_nor_jinja(tmp_path) -> None:
    """A second process reads the kernel: what makes kernels is not even imported."""
    program = (
        "import sys, torch, attnc; q = torch.ones(1, 1, 40, 16);"
        "attnc.attention(q, q, q, mask=lambda b, h, i, j: (i >= j) & (i - j < 9));"
        "print(sorted({'sympy', 'jinja2', 'triton', 'torch._dynamo', 'attnc.bounds'}"
        " & set(sys.modules)))"
    )
    environment = {**os.environ, "ATTNC_CACHE_DIR": str(tmp_path), "ATTNC_BACKEND": "cpu"}
    command = [sys.executable, "-c", program]
    made, read = (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert "sympy" in made
    assert read.strip() == "[]"


def test_the_memory_order_of_q_is_kept_for_wider_values() -> None:
    """A (B, S, H, D) model gets (B, S, H, D_v) back, as from PyTorch."""
    q, k = (torch.randn(2, 40, 3, 16).transpose(1, 2) for _ in range(2))
    v = torch.randn(2, 40, 3, 24).transpose(1, 2)

    assert attention(q, k, v).stride() == v.stride()
