"""Gradients of random programs; many programs share one translation unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cpu_kernels import load, program_of, run, run_backward, spec_of
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from attnc.plan import Wanted
from attnc.program import Program
from attnc.runtime.gradients import differentiable_slots
from attnc.runtime.isa import runnable_isas
from attnc.testing import InputsRecipe, MaskRecipe, ScoreRecipe, inputs, masks, score_mods
from attnc.testing.gradients import assert_gradients_close, expected_gradients

Case = tuple[MaskRecipe | None, ScoreRecipe | None, InputsRecipe]

DTYPES = ("float32", "float64", "bfloat16", "float16")
# Backward kernels know no tiles of AMX.


def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


ISAS = st.sampled_from([isa for isa in runnable_isas() if isa != "amx"])
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]


def cases(n_programs: int) -> st.SearchStrategy[list[Case]]:
    case = st.tuples(st.none() | masks(), st.none() | score_mods(), inputs(dtypes=DTYPES))
    return st.lists(case, min_size=n_programs, max_size=n_programs)


@settings(max_examples=3, phases=PHASES)
@given(cases(25), ISAS)
def test_gradients_of_random_programs_equal_the_oracle(unit: list[Case], isa: str) -> None:
    """Whatever mask, score_mod, shape, dtype and strides: kernels give what autograd gives through
    dense float64, for q, k, v and every captured tensor."""
    assert_unit_equals_the_oracle(unit, isa)


@pytest.mark.slow
@settings(max_examples=8, phases=PHASES)
@given(cases(40), ISAS)
def test_gradients_of_many_random_programs_equal_the_oracle(unit: list[Case], isa: str) -> None:
    """The same for 800 programs."""
    assert_unit_equals_the_oracle(unit, isa)


@pytest.mark.parametrize("isa", [isa for isa in runnable_isas() if isa != "amx"])
def test_keys_that_no_query_sees_have_no_gradient(isa: str) -> None:
    """Exactly 0, wherever the last visible column falls among those that are added together."""
    lengths, n_keys = (1, 2, 3, 5, 7, 9, 17, 31, 33), 48
    programs = [program_of(causal, None, dtype) for dtype in (torch.float32, torch.float64)]
    wanted = (None, Wanted(True, True, True))
    specs = [
        spec_of(program, dtype=dtype, isa=isa, gradients=gradients)
        for program, dtype in zip(programs, (torch.float32, torch.float64), strict=True)
        for gradients in wanted
    ]
    kernels = load(specs)
    for n in (*lengths, *lengths[::-1]):  # a short one after a long one finds its numbers
        for number, dtype in enumerate((torch.float32, torch.float64)):
            q, k, v, grad = (torch.randn(1, 1, size, 16, dtype=dtype) for size in (n, 48, 48, n))
            forward, backward = kernels[2 * number : 2 * number + 2]
            result = run(forward, programs[number], q, k, v)
            found = run_backward(backward, programs[number], q, k, v, result, grad, None)
            assert not found[1][:, :, n:n_keys].any()
            assert not found[2][:, :, n:n_keys].any()


def captured_floats(program: Program, score: Callable[..., Any] | None) -> dict[int, str]:
    """Slots that gradients flow back to, with the names by which the function knows them."""
    slots = sorted(differentiable_slots(program.score))
    names = {} if score is None else score.__globals__
    return {slot: next(n for n, x in names.items() if x is program.tensors[slot]) for slot in slots}


def assert_unit_equals_the_oracle(unit: list[Case], isa: str) -> None:
    programs = []
    specs = []
    for mask_recipe, score_recipe, recipe in unit:
        dtype = getattr(torch, recipe.dtype)
        mask, score = (
            None if part is None else part.build() for part in (mask_recipe, score_recipe)
        )
        program = program_of(mask, score, dtype)
        captured = captured_floats(program, score)
        programs.append((program, mask, score, captured))
        for gradients in (None, Wanted(True, True, True, tuple(captured))):
            specs.append(
                spec_of(
                    program,
                    dtype=dtype,
                    head_dim=recipe.shape.head_dim,
                    value_dim=recipe.shape.value_dim,
                    isa=isa,
                    short_queries=recipe.shape.n_queries <= 16,
                    gradients=gradients,
                )
            )
    kernels = load(specs)
    for number, (program, mask, score, captured) in enumerate(programs):
        forward, backward = kernels[2 * number : 2 * number + 2]
        q, k, v = unit[number][2].build()
        if q.numel() == 0 or k.shape[2] == 0:
            continue  # dispatch runs no kernel for these
        result = run(forward, program, q, k, v)
        generator = torch.Generator().manual_seed(number)
        grad_out = torch.randn(result.out.shape, generator=generator).to(q.dtype)
        grad_lse = torch.randn(result.lse.shape, generator=generator).to(result.lse.dtype)
        found = run_backward(
            backward, program, q, k, v, result, grad_out, grad_lse, tuple(captured)
        )
        leaves = []
        for name in captured.values():
            leaf = score.__globals__[name].double().requires_grad_()
            score.__globals__[name] = leaf
            leaves.append(leaf)
        expected = expected_gradients((q, k, v), mask, score, leaves, grad_out, grad_lse)
        try:
            names = ("q", "k", "v", *captured.values())
            assert_gradients_close(
                names, found, expected, q.dtype, q.shape[3], is_single=bool(captured)
            )
        except AssertionError as error:
            raise AssertionError(f"{unit[number]}: {error}") from None
