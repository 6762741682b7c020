"""Random programs through CPU kernels; many programs share one translation unit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from cpu_kernels import load, program_of, run, spec_of
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from attnc.runtime import cpu
from attnc.runtime.isa import ISA_FLAGS, runnable_isas
from attnc.runtime.reference import reference_attention
from attnc.testing import (
    InputsRecipe,
    MaskRecipe,
    ScoreRecipe,
    assert_close_to_reference,
    inputs,
    masks,
    score_mods,
)

Case = tuple[MaskRecipe | None, ScoreRecipe | None, InputsRecipe]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """What an integer times a float is, for eager torch; kernels use their dtype of accumulation."""
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


DTYPES = ("float32", "float64", "bfloat16", "float16")
ISAS = st.sampled_from(runnable_isas())
# Without shrinking: each step would compile a unit. The message names the one case that failed.
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]


def cases(n_programs: int, dtypes: tuple[str, ...] = DTYPES) -> st.SearchStrategy[list[Case]]:
    case = st.tuples(st.none() | masks(), st.none() | score_mods(), inputs(dtypes=dtypes))
    return st.lists(case, min_size=n_programs, max_size=n_programs)


@settings(max_examples=4, phases=PHASES)
@given(cases(40), ISAS)
def test_random_programs_equal_the_oracle(unit: list[Case], isa: str) -> None:
    """Whatever mask, score_mod, shape, dtype and strides: kernels give what dense float64 gives."""
    assert_unit_equals_the_oracle(unit, isa)


@pytest.mark.skipif("avx512_bf16" not in runnable_isas(), reason="no AVX512-BF16")
def test_tiles_of_amx_equal_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code around AMX's tile instructions, these in plain C++: it runs where there is no AMX."""
    flags = (*ISA_FLAGS["avx512_bf16"], "-DATTNC_EMULATE_AMX")
    monkeypatch.setitem(ISA_FLAGS, "amx", flags)
    monkeypatch.setattr(cpu, "runnable_isas", lambda: ("amx", *runnable_isas()))

    @settings(max_examples=2, phases=PHASES)
    @given(cases(30, ("bfloat16",)))
    def law(unit: list[Case]) -> None:
        assert_unit_equals_the_oracle(unit, "amx")

    law()


@pytest.mark.skipif("avx512_bf16" not in runnable_isas(), reason="no AVX512-BF16")
def test_masks_with_narrow_blocks_equal_the_oracle_for_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 16 keys leave tiles that are narrower than what AMX multiplies at the least."""
    flags = (*ISA_FLAGS["avx512_bf16"], "-DATTNC_EMULATE_AMX")
    monkeypatch.setitem(ISA_FLAGS, "amx", flags)
    monkeypatch.setattr(cpu, "runnable_isas", lambda: ("amx", *runnable_isas()))

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return q_idx >= kv_idx

    program = program_of(mask, None, torch.bfloat16)
    q, k, v = (torch.randn(1, 2, 100, 64).bfloat16() for _ in range(3))
    expected = reference_attention(q, k, v, mask=mask)
    for keys in (16, 32, 48):
        options = {"dtype": torch.bfloat16, "head_dim": 64, "isa": "amx", "from_table": True}
        (kernel,) = load([spec_of(program, **options, block_multiple=(64, keys))])

        result = run(kernel, program, q, k, v)

        assert_close_to_reference(result.out, result.lse, expected, q.dtype)


@pytest.mark.slow
@settings(max_examples=8, phases=PHASES)
@given(cases(60), ISAS)
def test_many_random_programs_equal_the_oracle(unit: list[Case], isa: str) -> None:
    """The same for 1,200 programs."""
    assert_unit_equals_the_oracle(unit, isa)


def assert_unit_equals_the_oracle(unit: list[Case], isa: str) -> None:
    programs = []
    for mask, score, recipe in unit:
        dtype = getattr(torch, recipe.dtype)
        functions = [None if part is None else part.build() for part in (mask, score)]
        programs.append((program_of(*functions, dtype), *functions))
    specs = [
        spec_of(
            program,
            dtype=getattr(torch, recipe.dtype),
            head_dim=recipe.shape.head_dim,
            value_dim=recipe.shape.value_dim,
            isa=isa,
            short_queries=recipe.shape.n_queries <= 16,
        )
        for (program, _, _), (_, _, recipe) in zip(programs, unit, strict=True)
    ]
    for kernel, (program, mask, score), case in zip(load(specs), programs, unit, strict=True):
        q, k, v = case[2].build()
        result = run(kernel, program, q, k, v)
        with default_dtype(torch.float64 if q.dtype is torch.float64 else torch.float32):
            expected = reference_attention(q, k, v, mask=mask, score=score, enable_gqa=True)
        norms = [float(x.double().norm(dim=-1).max()) if x.numel() else 0.0 for x in (q, k)]
        try:
            assert_close_to_reference(
                result.out,
                result.lse,
                expected,
                q.dtype,
                head_dim=q.shape[3],
                n_keys=k.shape[2],
                score_scale=norms[0] * norms[1] * q.shape[3] ** -0.5,
                value_scale=float(v.double().abs().max()) if v.numel() else 1.0,
            )
        except AssertionError as error:
            raise AssertionError(f"{case}: {error}") from None
