"""Kernels whose loop bounds are of each kind of closed form equal dense attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from cpu_kernels import load, program_of, run, run_backward, spec_of

from attnc import attention
from attnc.plan import Wanted, make_plan
from attnc.render.names import FORWARD, KEYS, QUERIES
from attnc.render.triton import render
from attnc.runtime.reference import reference_attention
from attnc.runtime.triton_compile import compile_offline
from attnc.target import GPU_TARGETS
from attnc.testing import assert_close_to_reference
from attnc.testing.gradients import assert_gradients_close, expected_gradients

Mask = Callable[[Any, Any, Any, Any], Any]
WINDOW = torch.tensor([30, 0, 100], dtype=torch.int32)
CHUNK = torch.tensor([48, -20, 7], dtype=torch.int32)
PREFIX = torch.tensor([2**63 - 1, 10, -(2**63)])
REAL_WINDOW = torch.tensor([30.5, float("nan"), float("inf")])


def dilated(b: Any, h: Any, q: Any, kv: Any) -> Any:
    return (q >= kv) & (q - kv < 150) & ((q - kv) % 4 == 0)


def global_anywhere(b: Any, h: Any, q: Any, kv: Any) -> Any:
    return ((kv >= 100) & (kv < 120)) | ((q - kv).abs() <= 20)


def window_of_head(b: Any, h: Any, q: Any, kv: Any) -> Any:
    return (q >= kv) & (q - kv < WINDOW[h])


def chunk_of_head(b: Any, h: Any, q: Any, kv: Any) -> Any:
    return q // CHUNK[h] == kv // CHUNK[h]


def real_window_of_head(b: Any, h: Any, q: Any, kv: Any) -> Any:
    return (q >= kv) & ((q - kv < REAL_WINDOW[h] * 1.5) | (kv < 3))


def prefix_beyond_all(b: Any, h: Any, q: Any, kv: Any) -> Any:
    return (kv < PREFIX[h]) | (q == kv)


def block_diffusion(b: Any, h: Any, q: Any, kv: Any) -> Any:
    half, block = 90, 16
    q_clean, kv_clean = q >= half, kv >= half
    q_part = torch.where(q_clean, (q - half) // block, q // block)
    kv_part = torch.where(kv_clean, (kv - half) // block, kv // block)
    own = (q_part == kv_part) & (q_clean == kv_clean)
    return own | ((q_part > kv_part) & kv_clean & ~q_clean) | ((q_part >= kv_part) & kv_clean)


def disc(b: Any, h: Any, q: Any, kv: Any) -> Any:
    dy, dx = q // 16 - kv // 16, q % 16 - kv % 16
    return dy * dy + dx * dx < 20


MASKS = (
    dilated,
    global_anywhere,
    window_of_head,
    chunk_of_head,
    real_window_of_head,
    prefix_beyond_all,
    block_diffusion,
    disc,
)


def inputs(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = (120, 140, 140)
    q, k, v = (torch.randn(1, 3, n, 16, generator=generator) for n in lengths)
    return q, k, v


def test_kernels_for_cpus_equal_the_oracle() -> None:
    """Results and gradients of the C++ kernels, none of which reads a table."""
    programs = [program_of(mask, None) for mask in MASKS]
    kernels = load(
        [
            spec_of(program, gradients=gradients)
            for program in programs
            for gradients in (None, Wanted(True, True, True))
        ]
    )
    for number, (mask, program) in enumerate(zip(MASKS, programs, strict=True)):
        forward, backward = kernels[2 * number : 2 * number + 2]
        assert not forward.uses_table
        assert not backward.uses_table
        q, k, v = inputs(number)
        result = run(forward, program, q, k, v)
        expected = reference_attention(q, k, v, mask=mask)
        scale = float(q.norm(dim=-1).max() * k.norm(dim=-1).max()) / 4
        assert_close_to_reference(
            result.out,
            result.lse,
            expected,
            q.dtype,
            head_dim=16,
            n_keys=k.shape[2],
            score_scale=scale,
            value_scale=float(v.abs().max()),
        )
        grad_out = torch.randn(result.out.shape, generator=torch.Generator().manual_seed(9))
        found = run_backward(backward, program, q, k, v, result, grad_out, None)
        gradients = expected_gradients((q, k, v), mask, None, (), grad_out, None)
        assert_gradients_close(("q", "k", "v"), found, gradients, q.dtype, 16)


@pytest.mark.parametrize("mask", MASKS)
def test_kernels_for_gpus_equal_the_oracle(mask: Mask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results and gradients of the Triton kernels in its interpreter."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    leaves = [x.requires_grad_() for x in inputs(3)]
    grad_out = torch.randn(leaves[0].shape, generator=torch.Generator().manual_seed(9))

    out = attention(*leaves, mask=mask, backend="triton")
    found = torch.autograd.grad(out, leaves, grad_out)

    wide = [x.detach().double().requires_grad_() for x in leaves]
    expected = reference_attention(*wide, mask=mask).out
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)
    for grad, wanted in zip(
        found, torch.autograd.grad(expected, wide, grad_out.double()), strict=True
    ):
        torch.testing.assert_close(grad.double(), wanted, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("gradients", [None, Wanted(True, True, True)])
@pytest.mark.parametrize("mask", MASKS)
def test_kernels_for_gpus_read_no_table(mask: Mask, gradients: Wanted | None) -> None:
    """Bounds of both directions are in the source."""
    spec = spec_of(program_of(mask, None), head_dim=64, gradients=gradients)

    source = render(make_plan(replace(spec, target=GPU_TARGETS["sm_90"])))

    assert "table_" not in source


@pytest.mark.parametrize(
    ("mask", "gradients"),
    [
        (block_diffusion, None),
        pytest.param(global_anywhere, Wanted(True, True, True), marks=pytest.mark.slow),
        pytest.param(real_window_of_head, None, marks=pytest.mark.slow),
        pytest.param(chunk_of_head, Wanted(True, True, True), marks=pytest.mark.slow),
    ],
)
def test_runs_in_order_compile_for_gpus(
    mask: Mask, gradients: Wanted | None, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that are put in order, divisors and thresholds of a head are legal Triton."""
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path))
    spec = spec_of(program_of(mask, None), dtype=torch.bfloat16, head_dim=64, gradients=gradients)

    functions = (FORWARD,) if gradients is None else (QUERIES, KEYS)

    for function in functions:
        assert compile_offline(spec, GPU_TARGETS["sm_90"], function).shared_bytes > 0
