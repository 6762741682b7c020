"""Every stage of a compilation as text."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

import attnc
from attnc.analysis.counts import share_text
from attnc.errors import BlockMaskLengthError, InspectionOptionError
from attnc.stages import Inspection

WINDOW = 100
SMALL = (1, 1, 256, 256, 32)  # for the same kernels as in test_inspect.py
lengths = torch.tensor([200, 30, 154])
doc = torch.repeat_interleave(torch.arange(3), lengths)


@attnc.kernel
def window(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    is_past = q_idx >= kv_idx
    return is_past & (q_idx - kv_idx < WINDOW)


@attnc.kernel(mask=window)
def softcap(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return 20.0 * torch.tanh(score / 20.0)


def documents(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return doc[q_idx] == doc[kv_idx]


def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


def shape(n: int) -> tuple[int, int, int, int, int]:
    return (1, 2, n, n, 64)


def test_traced_shows_operations_under_the_users_lines() -> None:
    """Each source line that computes something is there once, with what it computes."""
    lines = Inspection.of(window).traced().splitlines()

    places = [line for line in lines if f"{__name__.split('.')[-1]}.py:" in line]
    assert [place.split("  ")[-1] for place in places] == [
        "is_past = q_idx >= kv_idx",
        "return is_past & (q_idx - kv_idx < WINDOW)",
    ]
    first, second = (lines.index(place) for place in places)
    assert lines[first + 1].split(" = ")[1] == "q_idx >= kv_idx"
    assert lines[second + 1].split(" = ")[1] == "q_idx - kv_idx"
    assert lines[-1].startswith("  -> v")


def test_ir_names_what_is_an_argument_at_run_time() -> None:
    """The constant of the window and the captured tensor are listed as arguments."""
    assert "p0 = 100" in Inspection.of(window).ir()
    assert "t0: int64[384]" in Inspection.of(documents).ir()
    assert "p0" not in Inspection.of(causal).ir()


def test_kernel_properties_are_the_stages() -> None:
    """``ir``, ``explain`` and ``source`` of a Kernel are those of its Inspection."""
    inspection = Inspection.of(softcap)

    assert softcap.ir == inspection.ir()
    assert softcap.explain() == inspection.explain()
    assert softcap.source() == inspection.cpp()
    assert softcap.source("sm_90") == Inspection.of(softcap, target="sm_90").triton()


def test_derivative_is_by_score_and_by_captured_elements() -> None:
    """The derivative of a softcap shares its tanh; that by a slope is the distance."""
    slopes, weights = torch.ones(2), torch.ones(2, 3)

    def biased(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return score + slopes[h] * (q_idx - kv_idx) + weights[h].sum()

    assert Inspection.of(softcap).derivative() == (
        "by score:\n    x0 = tanh(score / 20.0)\n    1.0 - x0 * x0"
    )
    assert Inspection.of(biased).derivative() == (
        "by score:\n    1.0\n\n"
        "by t0[h]:\n    float32(q_idx - kv_idx)\n\n"
        "by t1[h, r0] for r0 in range(3):\n    1.0"
    )
    assert "no score_mod" in Inspection.of(window).derivative()


def test_math_has_the_derivatives() -> None:
    """Under the score; a mask has none."""
    text = Inspection.of(softcap).math()

    assert text.index("score =\n") < text.index("derivative of it by score =\n")
    assert "1.0 - x0 * x0" in text
    assert "derivative" not in Inspection.of(window).math()


def test_math_states_the_interval_of_keys() -> None:
    """For a window: a query sees ``p0`` keys up to itself, as an inequality in ``kv_idx``."""
    text = Inspection.of(window).math()

    assert "With p0 = 100" in text
    assert re.search(r"q_idx \+ 1\) <= kv_idx < ", text)
    for bound in ("start", "full_start", "full_stop", "stop"):
        assert re.search(rf"^ +{bound} += ", text, re.MULTILINE)


def test_math_says_why_there_is_no_formula() -> None:
    """A document mask has no closed form, and the text gives the plan's reason."""
    text = Inspection.of(documents, shape=shape(384)).math()

    assert "table" in text
    assert "start " not in text


def test_block_counts_are_those_of_the_analysis() -> None:
    """Full, partial and empty tiles in the text are what ``analyze`` counts on those tiles."""
    inspection = Inspection.of(documents, shape=shape(384), target="sm_90")
    text = inspection.blocks()

    found = re.search(r"in tiles of (\d+) x (\d+)", text)
    assert found is not None
    expected = attnc.analyze(documents, 1, 2, 384, 384, (int(found[1]), int(found[2])))
    for count, name in (
        (expected.n_full, "full"),
        (expected.n_partial, "partial"),
        (expected.n_empty, "empty"),
    ):
        assert re.search(rf"^ *{count}  {name} ", text, re.MULTILINE)
    assert expected.picture() in text
    assert f"{expected.flops_saved:.1%} of the work of all tiles is saved" in text


def test_plan_gives_a_reason_for_each_decision() -> None:
    """Decisions and reasons alternate; the row value of a document mask is computed per row."""
    text = Inspection.of(documents).plan()

    assert text.count("\n- ") == text.count("\n    because ") > 0
    assert re.search(r"once per row:\n +\w+ = t0\[q_idx\]", text)


def test_sources_are_those_of_the_target() -> None:
    """``source`` is C++ for CPUs and Triton for GPUs, whatever was asked before."""
    on_cpu = Inspection.of(softcap, target="cpu-avx2")
    on_gpu = Inspection.of(softcap, target="sm_90")

    assert on_cpu.source() == on_cpu.cpp()
    assert on_gpu.source() == on_gpu.triton()
    assert 'extern "C"' in on_cpu.source()
    assert "@triton.jit" in on_gpu.source()
    compile(on_gpu.source(), "<kernel>", "exec")


@pytest.mark.parametrize(("target", "mark"), [("sm_80", ".target sm_80"), ("gfx942", "gfx942")])
def test_assembly_is_for_the_target(target: str, mark: str) -> None:
    """PTX and AMDGCN are compiled on this machine for another one."""
    inspection = Inspection.of(causal, target=target, shape=SMALL)

    assert mark in inspection.ptx()


def test_resources_tell_of_each_loop() -> None:
    """A causal kernel has a loop over FULL tiles without mask, and one over PARTIAL tiles with."""
    text = Inspection.of(causal, target="sm_80", shape=SMALL).resources()

    full, partial = (
        re.search(rf"over {kind} tiles(?:.|\n)*?(\d+) operations of the mask", text)
        for kind in ("FULL", "PARTIAL")
    )
    assert full is not None
    assert partial is not None
    assert int(full[1]) == 0 < int(partial[1])
    assert "mma.sync" in text


def test_block_mask_is_inspected_as_it_is() -> None:
    """A Kernel with a BlockMask: the plan reads its table, and the tiles shown are its own."""
    block_mask = attnc.create_block_mask(documents, None, None, 384, 384)
    kernel = attnc.kernel(lambda score, b, h, q_idx, kv_idx: score * 2, mask=block_mask)
    inspection = Inspection.of(kernel, shape=shape(384))

    assert "a block mask was given" in inspection.plan()
    assert inspection.analysis(128).table == block_mask.table


def test_block_mask_of_other_lengths_is_refused() -> None:
    """A BlockMask holds for one pair of lengths: the default shape does not fit."""
    block_mask = attnc.create_block_mask(documents, None, None, 384, 384)
    kernel = attnc.kernel(lambda score, b, h, q_idx, kv_idx: score, mask=block_mask)

    with pytest.raises(BlockMaskLengthError):
        Inspection.of(kernel)


def test_frozen_block_mask_has_a_formula() -> None:
    """A BlockMask of a function without captured tensors keeps its loop bounds."""
    block_mask = attnc.create_block_mask(causal, None, None, 384, 384)
    kernel = attnc.kernel(lambda score, b, h, q_idx, kv_idx: score + h, mask=block_mask)

    assert "start " in Inspection.of(kernel, shape=shape(384)).math()


@pytest.mark.parametrize(
    "options",
    [{"target": "sm_91"}, {"dtype": "float8"}, {"shape": (1, 1, 0, 5, 64)}, {"shape": (1, 1)}],
    ids=str,
)
def test_impossible_options_are_refused(options: Any) -> None:
    """An unknown machine or dtype, or a shape without a call, is an error that names it."""
    (value,) = options.values()

    with pytest.raises(InspectionOptionError, match=re.escape(repr(value))):
        Inspection.of(causal, **options)


def test_operations_that_join_masks_have_no_line_of_attnc() -> None:
    """What the user wrote is shown by line; what `&` adds is said to be joined."""
    first = attnc.kernel(lambda b, h, q, kv: q >= kv)

    text = Inspection.of(first & (lambda b, h, q, kv: q - kv < 9)).traced()

    assert "decorator.py" not in text
    assert "joined by attnc" in text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0.0%"),
        (1e-9, "under 0.1%"),
        (0.5, "50.0%"),
        (1 - 1e-9, "over 99.9%"),
        (1.0, "100.0%"),
    ],
)
def test_shares_are_not_all_or_nothing_by_rounding(share: float, text: str) -> None:
    """100 % means all tiles, 0 % none."""
    assert share_text(share) == text
