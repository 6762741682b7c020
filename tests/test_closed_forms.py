"""Loop bounds in closed form reach both kernels: no mask data exists at run time."""

import pytest
import torch

import attnc.blocks
from attnc import attention
from attnc.bounds import print_bound
from attnc.plan import Plan, Spec, make_plan
from attnc.program import build_program
from attnc.render.cpp import render as render_cpp
from attnc.render.triton import render as render_triton
from attnc.runtime.reference import reference_attention
from attnc.target import GPU_TARGETS, CpuTarget, Target

PREFIX = torch.tensor([100, 37])


def full(b, h, q_idx, kv_idx):
    return q_idx >= 0


def causal(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


def window(b, h, q_idx, kv_idx):
    return (q_idx >= kv_idx) & (q_idx - kv_idx < 90)


def prefix(b, h, q_idx, kv_idx):
    return (q_idx >= kv_idx) | (kv_idx < 70)


def prefix_per_batch(b, h, q_idx, kv_idx):
    return (q_idx >= kv_idx) | (kv_idx < PREFIX[b])


def chunk(b, h, q_idx, kv_idx):
    return (q_idx >= kv_idx) & (q_idx // 50 == kv_idx // 50)


MASKS = [full, causal, window, prefix, prefix_per_batch, chunk]


def plan_of(mask, target: Target) -> Plan:
    program = build_program(mask, None)
    spec = Spec(
        mask=program.lifted.exprs[0],
        score=None,
        slots=program.slots,
        params=program.lifted.dtypes,
        dtype="float32",
        head_dim=64,
        value_dim=64,
        target=target,
    )
    return make_plan(spec)


@pytest.mark.parametrize("mask", MASKS)
def test_kernels_compute_their_bounds(mask) -> None:
    """Neither kernel has a table among its arguments; both contain the bounds of the plan."""
    for target, render, language, table in (
        (CpuTarget("avx512"), render_cpp, "cpp", "args.offsets["),
        (GPU_TARGETS["sm_90"], render_triton, "triton", "table_"),
    ):
        plan = plan_of(mask, target)
        source = render(plan)
        assert plan.closed_form is not None
        assert table not in source
        for run in plan.closed_form.runs:
            widened = print_bound(run.stop, language).replace("p0", "wide_p0")
            assert print_bound(run.stop, language) in source or widened in source


def test_a_mask_of_documents_has_a_table_in_both() -> None:
    """The check above can fail: this mask's kernels do read a table."""
    ids = torch.arange(300) // 40
    cpu, gpu = (
        plan_of(lambda b, h, q, kv: ids[q] == ids[kv], target)
        for target in (CpuTarget("avx512"), GPU_TARGETS["sm_90"])
    )
    assert "args.offsets[" in render_cpp(cpu)
    assert "table_" in render_triton(gpu)


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("mask", MASKS)
def test_no_tile_is_classified_at_run_time(mask, backend, monkeypatch) -> None:
    """The result is right while classification is out of order."""

    def out_of_order(*args, **kwargs):
        raise AssertionError("tiles were classified")

    monkeypatch.setattr(attnc.blocks, "classify", out_of_order)
    if backend == "triton":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    torch.manual_seed(3)
    q, k, v = torch.randn(2, 1, 200, 16), torch.randn(2, 1, 230, 16), torch.randn(2, 1, 230, 16)

    out = attention(q, k, v, mask=mask, backend=backend)

    expected = reference_attention(q, k, v, mask=mask).out
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)


def test_one_kernel_serves_all_windows_and_lengths() -> None:
    """The digest of a kernel knows neither the window nor the lengths."""

    def digest(size: int) -> str:
        return plan_of(lambda b, h, q, kv: q - kv < size, CpuTarget("avx512")).spec.digest()

    assert digest(5) == digest(5000)
