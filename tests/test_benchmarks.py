"""The benchmarks as a part of the project: they run, say what they found, and refuse to mislead."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from attnc import analyze, attention
from benchmarks.cases import CASES, Oracle, Problem
from benchmarks.contest import candidates
from benchmarks.measure import (
    MIN_ROUNDS,
    NotCompiledError,
    compiled_flex,
    geometric_mean,
    in_turns,
    markdown_table,
    thread_count,
)
from benchmarks.shapes import problems
from benchmarks.targets import targets

ROOT = Path(__file__).parents[1]
ROW_FIELDS = {
    *("case", "dtype", "head_dim", "n_queries", "n_keys", "batch", "heads", "kv_heads"),
    *("ms", "n_rounds", "gflops", "gemm_gflops", "of_gemm", "error", "flex", "flex_over_attnc"),
    *("error_over_flex", "sdpa_over_attnc"),
}


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
def test_benchmark_runs_and_writes_json_and_markdown(tmp_path: Path) -> None:
    """The real thing at a tiny size: rows with times, limits, errors, and targets judged by them."""
    arguments = "--lengths 128 --dims 16 --dtypes float32 --cases causal --rounds 1 --no-picture"
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.cpu", *arguments.split(), "--output", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    content = json.loads((tmp_path / "cpu.json").read_text())
    [row] = content["rows"]
    assert set(row) == ROW_FIELDS
    assert set(row["ms"]) == {"attnc", "flex 128", "flex (64, 128)", "sdpa", "gemm"}
    assert row["flex_over_attnc"] == pytest.approx(
        min(row["ms"][name]["median"] for name in ("flex 128", "flex (64, 128)"))
        / row["ms"]["attnc"]["median"],
        rel=0.01,
    )
    assert row["error"]["attnc"]["largest"] < 1e-5
    assert content["machine"]["n_threads"] >= 1
    assert {target["name"] for target in content["targets"]} >= {
        "flex / attnc, geometric mean",
        "SDPA / attnc, causal fp32, each",
        "error / flex's",
    }
    assert "| causal, fp32, D=16, S=128 |" in (tmp_path / "cpu.md").read_text()
    assert not (tmp_path / "cpu.png").exists()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_that_is_not_compiled_is_refused() -> None:
    """Where dynamo runs flex_attention as it stands, there is an error and no time."""
    q = torch.randn(1, 1, 128, 16)
    flex = compiled_flex()

    with (
        torch.compiler.set_stance("force_eager"),
        pytest.raises(NotCompiledError, match="without compiling"),
    ):
        flex(q, q, q)


def test_compiling_while_timing_is_refused() -> None:
    """A candidate whose shapes change from call to call is not timed."""
    sizes = iter(range(8, 100))
    doubled = torch.compile(lambda x: 2 * x, dynamic=False, backend="eager")

    with pytest.raises(NotCompiledError, match="compiled again"):
        in_turns({"doubled": lambda: doubled(torch.ones(next(sizes)))}, 2)


def test_errors_of_candidates_pass_through() -> None:
    """What a candidate raises while it is timed is not mistaken for a recompilation."""
    values = iter([1])

    with pytest.raises(StopIteration):
        in_turns({"next": lambda: next(values)}, 2)


@given(st.integers(1, 4), st.integers(1, 12), st.integers(1, 3))
def test_every_candidate_has_as_many_turns(n_calls: int, n_rounds: int, n_warmups: int) -> None:
    """All candidates run in all rounds; the warm-ups do not count."""
    runs = dict.fromkeys(map(str, range(n_calls)), 0)

    def call_of(name: str) -> Any:
        def call() -> None:
            runs[name] += 1

        return call

    times = in_turns(
        {name: call_of(name) for name in runs}, n_rounds, n_warmups=n_warmups, clock=_timeless
    )

    assert set(runs.values()) == {n_rounds + n_warmups}
    assert {len(taken.seconds) for taken in times.values()} == {n_rounds}


def _timeless(call: Any) -> float:
    call()
    return 0.0


def test_slow_rounds_end_early() -> None:
    """Past the time allowed there are the least number of rounds and no more."""
    times = in_turns({"nothing": lambda: None}, 100, enough_s=0.0)

    assert len(times["nothing"].seconds) == MIN_ROUNDS


@pytest.mark.parametrize("case", CASES)
def test_oracle_counts_and_computes_what_attnc_does(case: str) -> None:
    """The benchmark's own dense float64 and its count of pairs agree with the library's."""
    problem = Problem(case, "float32", 16, 256, 256, heads=2, kv_heads=2)
    mods = problem.mods()

    out = attention(*problem.inputs(), mask=mods.mask, score=mods.score)

    assert Oracle(problem).error(out).largest < 1e-5
    visible = mods.mask or (lambda b, h, q_idx, kv_idx: q_idx >= 0)
    tiles = analyze(visible, 1, 1, 256, 256, BLOCK_SIZE=1)
    assert problem.flops() == 4 * 16 * 2 * tiles.n_full


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_oracle_holds_for_shared_heads_and_single_queries(dtype: str) -> None:
    """Grouped heads and one query: SDPA is as near to the oracle as its dtype allows."""
    problem = Problem("full", dtype, 32, 1, 200, heads=8, kv_heads=2)
    q, k, v = problem.inputs()

    out = scaled_dot_product_attention(q, k, v, enable_gqa=True)

    assert Oracle(problem).error(out).largest < 4 * torch.finfo(q.dtype).eps


def test_sdpa_takes_part_with_a_dense_mask_where_it_has_no_flag() -> None:
    """A window is SDPA's by a dense mask, and the same result; a changed score is not SDPA's."""
    problem = Problem("window 256", "float32", 16, 512, 512)
    calls = candidates(problem)

    assert Oracle(problem).error(calls["sdpa, dense mask"]()).largest < 1e-5
    assert not any(
        "sdpa" in name for name in candidates(Problem("ALiBi+causal", "float32", 16, 64, 64))
    )


def test_other_shapes_have_labels_of_their_own() -> None:
    """No two rows of the table of shapes read alike."""
    labels = [problem.label() for problem in problems()]

    assert len(set(labels)) == len(labels)


def _row(case: str, dtype: str, **figures: float) -> dict[str, Any]:
    sizes = {"batch": 1, "heads": 8, "n_keys": 64, "head_dim": 16}
    return {"case": case, "dtype": dtype, **sizes, **figures}


def test_targets_judge_the_worst_row_and_name_it() -> None:
    """Least and largest by row; a missed target is told as such."""
    rows = [
        _row("causal", "float32", flex_over_attnc=4.0, sdpa_over_attnc=1.0, error_over_flex=1.0),
        _row("window 256", "float32", flex_over_attnc=1.0, error_over_flex=2.5),
    ]

    found = {target.name: target for target in targets(rows, ["A", "B"])}

    assert found["flex / attnc, geometric mean"].is_met
    assert found["flex / attnc, each case"].cells()[2:] == ["1.00", "missed", "B"]
    assert not found["SDPA / attnc, causal fp32, each"].is_met
    assert found["error / flex's"].cells() == ["error / flex's", "<= 2.00", "2.50", "missed", "B"]
    assert "full fp32, share of sgemm" not in found


def test_picture_is_written(tmp_path: Path) -> None:
    """Rows of two dtypes, one without flex, become a PNG."""
    pytest.importorskip("matplotlib")
    from benchmarks.picture import draw

    rows = [
        _row("causal", "float32", flex_over_attnc=2.0, of_gemm=0.5),
        _row("causal", "bfloat16", of_gemm=0.5),
    ]

    draw(rows, tmp_path / "picture.png")

    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@given(st.lists(st.floats(0.01, 100), min_size=1))
def test_geometric_mean_scales(values: list[float]) -> None:
    """Twice the values, twice the mean; between the least and the largest."""
    mean = geometric_mean(values)

    assert geometric_mean(2 * value for value in values) == pytest.approx(2 * mean)
    assert min(values) * (1 - 1e-9) <= mean <= max(values) * (1 + 1e-9)
    assert math.isnan(geometric_mean([]))


def test_markdown_table_is_aligned() -> None:
    """All lines are as wide as the widest cells."""
    assert markdown_table(["a", "b"], [["xx", "1"], ["y", "22"]]) == (
        "| a  |  b |\n| -- | -: |\n| xx |  1 |\n| y  | 22 |\n"
    )


def test_thread_count_is_put_back() -> None:
    """Within: what was asked; afterwards: what was there."""
    before = torch.get_num_threads()

    with thread_count(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_benchmark_of_orders_compares_equal_results() -> None:
    """A small case of it: windows on 16 x 16 in raster and in window order."""
    from attnc import library
    from benchmarks.layouts import Case, measured, row_of

    result = measured(Case("windows", library.windows((16, 16), 4), (16, 16)), 1, 8, n_rounds=1)

    assert result["visited"]["best"] <= result["visited"]["raster"]
    assert all(taken["median"] > 0 for taken in result["ms"].values())
    assert len(row_of(result)) == 6
