"""CPU kernels: shapes, layouts, values, captured tensors, threads, generated text."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cpu_kernels import Result, load, program_of, run, spec_of

from attnc import attention
from attnc.errors import NoCompilerError, NoCompilerWarning
from attnc.plan import make_plan
from attnc.render.cpp import render_many
from attnc.runtime import cpu
from attnc.runtime.build import COMMON_FLAGS
from attnc.runtime.isa import ISA_FLAGS, runnable_isas
from attnc.runtime.reference import ReferenceResult, reference_attention
from attnc.runtime.tiled import TiledKernel

ISAS = runnable_isas()
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3, torch.float64: 1e-12}


def causal(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


def window(b, h, q_idx, kv_idx):
    return (q_idx >= kv_idx) & (q_idx - kv_idx < 70)


def softcap(score, b, h, q_idx, kv_idx):
    return 20 * torch.tanh(score / 20)


def alibi(score, b, h, q_idx, kv_idx):
    return score - (q_idx - kv_idx) * torch.exp2(-(h + 1.0))


MODS: dict[str, tuple[Any, Any]] = {
    "full": (None, None),
    "causal": (causal, None),
    "window": (window, None),
    "softcap": (causal, softcap),
    "alibi": (causal, alibi),
}


def tensors(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def assert_close(actual: Result, expected: ReferenceResult, dtype: torch.dtype) -> None:
    tolerance = TOLERANCE[dtype]
    statistic = 1e-12 if dtype is torch.float64 else 2e-5
    for name, limit in (("out", tolerance), ("lse", statistic), ("max_scores", statistic)):
        torch.testing.assert_close(
            getattr(actual, name).double(),
            getattr(expected, name),
            atol=limit,
            rtol=limit,
            equal_nan=True,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize("isa", ISAS)
def test_lengths_dtypes_and_mods(isa: str) -> None:
    """Tiles that are whole, ragged, single or missing; every dtype; all instruction sets."""
    cases = [(dtype, mods) for dtype in DTYPES for mods in MODS.values()]
    programs = [program_of(*mods, dtype) for dtype, mods in cases]
    specs = [
        spec_of(program, dtype=dtype, isa=isa)
        for program, (dtype, _) in zip(programs, cases, strict=True)
    ]
    for (dtype, mods), program, kernel in zip(cases, programs, load(specs), strict=True):
        mask, score = mods
        for n_queries, n_keys in ((0, 5), (5, 0), (1, 1), (127, 129), (129, 127), (64, 192)):
            sizes = ((2, 4, n_queries, 16), (2, 2, n_keys, 16), (2, 2, n_keys, 16))
            q, k, v = tensors(*sizes, dtype=dtype)
            expected = reference_attention(q, k, v, mask=mask, score=score, enable_gqa=True)
            assert_close(run(kernel, program, q, k, v), expected, dtype)


@pytest.mark.parametrize("isa", ISAS)
def test_head_sizes(isa: str) -> None:
    """Any width of keys and values, also different ones, whole vectors or not."""
    sizes = [(1, 1), (3, 5), (64, 64), (80, 80), (128, 64), (192, 128), (40, 200)]
    program = program_of(causal, None)
    specs = [spec_of(program, head_dim=d, value_dim=dv, isa=isa) for d, dv in sizes]
    for (d, dv), kernel in zip(sizes, load(specs), strict=True):
        q, k, v = tensors((1, 2, 100, d), (1, 2, 100, d), (1, 2, 100, dv))
        expected = reference_attention(q, k, v, mask=causal)
        assert_close(run(kernel, program, q, k, v), expected, torch.float32)


def test_layouts() -> None:
    """Strides are arbitrary: transposed heads, every other row, expanded, last dimension strided."""
    program = program_of(causal, None)
    kernel = load([spec_of(program)])[0]
    q, k, v = tensors((2, 70, 4, 16), (2, 4, 16, 70), (1, 1, 70, 16))
    layouts = [
        (q.transpose(1, 2), k.transpose(2, 3), v.expand(2, 4, 70, 16)),
        (q.transpose(1, 2)[:, :, ::2], k.transpose(2, 3)[:1, :2], v.expand(1, 2, 70, 16)),
        (q[:1, :1].expand(2, 70, 4, 16).transpose(1, 2), k.transpose(2, 3), v.expand(2, 4, 70, 16)),
    ]
    for q, k, v in layouts:
        expected = reference_attention(q, k, v, mask=causal, enable_gqa=True)
        assert_close(run(kernel, program, q, k, v), expected, torch.float32)


def test_rows_without_keys_are_exact() -> None:
    """Out 0, lse and maximum -inf; the rows beside them are right."""
    q, k, v = tensors(*[(1, 2, 150, 16)] * 3)
    functions: list[tuple[Any, Any]] = [
        (lambda b, h, q_idx, kv_idx: (q_idx % 3 == 0) & (kv_idx > 80), None),
        (None, lambda s, b, h, q_idx, kv_idx: torch.where(q_idx < 70, -math.inf, s)),
        (lambda b, h, q_idx, kv_idx: kv_idx > q_idx + 100, None),
    ]
    programs = [program_of(*mods) for mods in functions]
    kernels = load([spec_of(program) for program in programs])
    for (mask, score), program, kernel in zip(functions, programs, kernels, strict=True):
        result = run(kernel, program, q, k, v)
        expected = reference_attention(q, k, v, mask=mask, score=score)
        assert_close(result, expected, torch.float32)
        is_empty = expected.lse == -math.inf
        assert is_empty.any()
        assert not result.out[is_empty].any()
        assert torch.equal(result.lse == -math.inf, is_empty)


def test_huge_scores() -> None:
    """Scores of a million neither overflow nor lose the maximum."""
    q, k, v = tensors(*[(1, 1, 130, 16)] * 3)
    program = program_of(causal, None)
    kernel = load([spec_of(program)])[0]
    for scale in (1e6, -1e6, 1e30, 0.0):
        expected = reference_attention(q, k, v, mask=causal, scale=scale)
        actual = run(kernel, program, q, k, v, scale)
        torch.testing.assert_close(actual.out.double(), expected.out, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(actual.lse.double(), expected.lse, atol=1e-5, rtol=1e-5)


def test_what_is_not_visited_never_matters() -> None:
    """NaN in EMPTY tiles and beyond the lengths stays there; in a visited score it shows."""
    q, k, v = tensors(*[(1, 1, 200, 16)] * 3)
    program = program_of(causal, None)
    kernel = load([spec_of(program)])[0]
    clean = run(kernel, program, q[:, :, :100], k[:, :, :100], v[:, :, :100])
    k[:, :, 130:], v[:, :, 130:] = math.nan, math.nan

    ragged = run(kernel, program, q[:, :, :100], k[:, :, :100], v[:, :, :100])
    dirty = run(kernel, program, q, k, v)

    assert torch.equal(ragged.out, clean.out)
    assert torch.equal(dirty.out[:, :, :100], clean.out)
    assert dirty.out[0, 0, 131].isnan().all()
    assert dirty.lse[0, 0, 131].isnan()
    assert dirty.max_scores[0, 0, 131].isnan()


CAPTURED = ("bool", "uint8", "int8", "int16", "int64", "bfloat16", "float16", "float64")


def test_captured_tensors_of_any_kind() -> None:
    """Every storage dtype, strides of any kind, indices out of range, no elements at all."""
    q, k, v = tensors((2, 3, 90, 16), (2, 3, 90, 16), (2, 3, 90, 16))
    base = torch.arange(2 * 90 * 90).view(90, 180) % 7

    def score_of(table: torch.Tensor) -> Callable[..., Any]:
        return lambda s, b, h, q_idx, kv_idx: s + table[q_idx, kv_idx]

    tables = [base.to(getattr(torch, name)).t()[::2] for name in CAPTURED]
    scores = [score_of(table) for table in tables]
    programs = [program_of(None, score) for score in scores]
    kernels = load([spec_of(program) for program in programs])
    for score, program, kernel in zip(scores, programs, kernels, strict=True):
        expected = reference_attention(q, k, v, score=score)
        assert_close(run(kernel, program, q, k, v), expected, torch.float32)


def test_indices_out_of_range() -> None:
    """A negative index counts from the end, the rest is clamped; without elements it is 0."""
    q, k, v = tensors(*[(1, 1, 80, 16)] * 3)
    values, nothing = torch.arange(10.0), torch.zeros(0)

    def score(s, b, h, q_idx, kv_idx):
        return s + values[q_idx - 40] + nothing[kv_idx]

    program = program_of(None, score)
    actual = run(load([spec_of(program)])[0], program, q, k, v)

    place = torch.arange(80) - 40
    bias = values[torch.where(place < 0, place + 10, place).clamp(0, 9)]
    expected = reference_attention(q, k, v, score=lambda s, b, h, q_idx, kv_idx: s + bias[q_idx])
    assert_close(actual, expected, torch.float32)


def test_threads_do_not_change_the_bits() -> None:
    """An item is computed by one thread, whichever it is."""
    q, k, v = tensors((2, 4, 300, 32), (2, 2, 300, 32), (2, 2, 300, 32))
    before = torch.get_num_threads()
    results = []
    try:
        for n_threads in (1, 2, 5):
            torch.set_num_threads(n_threads)
            results += [attention(q, k, v, mask=causal, enable_gqa=True) for _ in range(2)]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


def test_works_in_a_forked_child() -> None:
    """After a fork OpenMP's threads are gone; the child starts its own."""
    program = """
        import os, torch
        from attnc import attention
        torch.set_num_threads(2)
        q = torch.randn(2, 2, 200, 16)
        mask = lambda b, h, q_idx, kv_idx: q_idx >= kv_idx
        expected = attention(q, q, q, mask=mask)
        child = os.fork()
        if child == 0:
            os._exit(0 if torch.equal(attention(q, q, q, mask=mask), expected) else 1)
        assert os.waitpid(child, 0)[1] == 0
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False, timeout=60)
    assert done.returncode == 0


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
@pytest.mark.parametrize("isa", ISA_FLAGS)
def test_generated_text_compiles_without_warnings(compiler: str, isa: str, tmp_path: Any) -> None:
    """-Wall -Wextra -Werror, for masks and scores that use every level of the schedule."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    documents = torch.zeros(300, dtype=torch.int64)
    slopes = torch.ones(8)

    def mask(b, h, q_idx, kv_idx):
        same = documents[q_idx] == documents[kv_idx]
        return same & ((q_idx - kv_idx < 50 * (h + 1)) | (kv_idx % 7 == 0))

    def score(s, b, h, q_idx, kv_idx):
        decay = slopes[h] * torch.sqrt(q_idx + 1.0)
        return 20 * torch.tanh((s - decay * torch.log(kv_idx + 2.0)) / 20)

    programs = [program_of(*mods) for mods in [*MODS.values(), (mask, score)]]
    specs = [
        spec_of(program, isa=isa, dtype=dtype, short_queries=short)
        for program in programs
        for dtype, short in ((torch.float32, False), (torch.bfloat16, True))
    ]
    source = tmp_path / "unit.cpp"
    source.write_text(render_many([make_plan(spec) for spec in specs]))
    # A unit brings what any of its kernels might need; g++ does not mind.
    unused = ["-Wno-unused-function", "-Wno-unused-const-variable"]
    flags = ["-Wall", "-Wextra", "-Werror", *unused, "-O1", *COMMON_FLAGS, *ISA_FLAGS[isa]]
    done = subprocess.run(
        [compiler, *flags, str(source), "-o", str(tmp_path / "unit.so")],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_without_a_compiler_there_is_a_slow_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """One warning with the reason, or an error under strict; the values are the same."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(cpu, "_warned", False)
    program = program_of(window, alibi)
    with pytest.raises(NoCompilerError, match="CXX=no-such-compiler"):
        cpu.load_cpu_kernel(spec_of(program), strict=True)
    with pytest.warns(NoCompilerWarning, match="no C\\+\\+ compiler found"):
        kernel = cpu.load_cpu_kernel(spec_of(program))
    assert isinstance(kernel, TiledKernel)
    assert isinstance(cpu.load_cpu_kernel(spec_of(program)), TiledKernel)  # no second warning

    q, k, v = tensors((2, 4, 130, 16), (1, 2, 150, 16), (1, 2, 150, 16))
    expected = reference_attention(q, k, v, mask=window, score=alibi, enable_gqa=True)
    assert_close(run(kernel, program, q, k, v), expected, torch.float32)


@pytest.mark.parametrize("uses_table", [False, True])
def test_the_slow_path_follows_tables_and_bounds(uses_table: bool) -> None:
    """Both ways of finding the tiles, and rows that see nothing."""
    ids = torch.arange(200) // 37

    def documents(b, h, q_idx, kv_idx):
        return (ids[q_idx] == ids[kv_idx]) & (q_idx != 5)

    mask = documents if uses_table else window
    program = program_of(mask, None)
    kernel = TiledKernel(make_plan(spec_of(program)))
    assert kernel.uses_table is uses_table
    q, k, v = tensors(*[(1, 2, 200, 16)] * 3)
    expected = reference_attention(q, k, v, mask=mask)
    assert_close(run(kernel, program, q, k, v), expected, torch.float32)
