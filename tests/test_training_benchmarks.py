"""The benchmark of backward passes: it runs, its oracle is right, and its targets judge."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.backward import memory_targets, targets
from benchmarks.cases import Problem
from benchmarks.memory import Peaks, peak_bytes
from benchmarks.training_cases import (
    TRAINING_CASES,
    GradientOracle,
    bucket,
    grad_out_of,
    leaves_of,
)
from benchmarks.training_contest import by_attnc, by_sdpa, row_of

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_benchmark_of_backward_runs_and_writes_json_and_markdown(tmp_path: Path) -> None:
    """The real thing at a tiny size: rows, memory of processes of their own, and targets."""
    arguments = "--lengths 128 --dims 16 --dtypes float32 --cases causal --rounds 1 --threads 1"
    command = [sys.executable, "-m", "benchmarks.backward", *arguments.split()]
    command += ["--memory-lengths", "128", "--output", str(tmp_path)]

    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr
    content = json.loads((tmp_path / "backward.json").read_text())
    [row] = content["rows"]
    assert set(row["ms"]) == {"attnc", "sdpa", "attnc, backward", "sdpa, backward", "gemm"}
    assert row["sdpa_over_attnc"] == pytest.approx(
        row["ms"]["sdpa"]["median"] / row["ms"]["attnc"]["median"], rel=0.01
    )
    assert {found["side"] for found in content["memory"]} == {"attnc", "sdpa"}
    assert all(found["peak_bytes"]["128"] > 2**24 for found in content["memory"])
    assert [target["name"] for target in content["targets"]] == ["SDPA / attnc"]
    assert "| causal, fp32, D=16, S=128 |" in (tmp_path / "backward.md").read_text()


@pytest.mark.parametrize("case", TRAINING_CASES)
def test_both_sides_compute_the_gradients_of_the_oracle(case: str) -> None:
    """attnc and SDPA, dense masks and biases included, agree with float64 autograd."""
    problem = Problem(case, "float32", 16, 300, 300, heads=3, kv_heads=3)
    oracle = GradientOracle(problem)

    for side in (by_attnc, by_sdpa):
        errors = oracle.errors(side(problem).gradients())

        leaves = leaves_of(problem)
        assert set(errors) == set(leaves)
        for name, leaf in leaves.items():
            assert errors[name] < (2e-5 if leaf.dtype is torch.float32 else 4e-3), name


def test_oracle_notices_a_wrong_gradient() -> None:
    """A gradient that lacks one key's part is not taken for right."""
    problem = Problem("ALiBi, learned, causal", "float32", 16, 64, 64, heads=2, kv_heads=2)
    found = by_sdpa(problem).gradients()
    wrong = {**found, "k": found["k"].index_fill(2, torch.tensor([3]), 0)}

    errors = GradientOracle(problem).errors(wrong)

    assert errors["k"] > 1e-3
    assert max(errors[name] for name in ("q", "v", "bias")) < 2e-5


def test_row_of_a_learned_bias_is_compared_with_none() -> None:
    """Backward without the bias has its turn, and the ratio is of these two."""
    problem = Problem("T5 bias, learned, causal", "float32", 16, 64, 64, heads=2, kv_heads=2)

    row = row_of(problem, 1, 0.0)

    ms = {name: taken["median"] for name, taken in row["ms"].items()}
    assert row["backward_over_plain"] == pytest.approx(
        ms["attnc, backward"] / ms["attnc without bias, backward"], rel=0.01
    )
    assert set(row["error"]["attnc"]) == {"q", "k", "v", "bias"}


def test_inputs_are_the_same_at_each_call() -> None:
    """What the sides and the oracle differentiate are equal tensors."""
    problem = Problem("T5 bias, learned, causal", "bfloat16", 16, 8, 8, heads=2, kv_heads=2)

    for name, leaf in leaves_of(problem).items():
        assert torch.equal(leaf, leaves_of(problem)[name])
    assert torch.equal(grad_out_of(problem), grad_out_of(problem))


@given(st.integers(0, 10_000))
def test_buckets_ascend(distance: int) -> None:
    """T5: a farther key is in the same bucket or a later one, 31 being the last."""
    here, next_one = bucket(torch.tensor([distance, distance + 1])).tolist()

    assert here <= next_one <= 31
    assert here == distance if distance < 16 else here >= 16


@given(st.integers(0, 10**9), st.integers(1, 10**5), st.integers(1, 100))
def test_growth_of_memory_tells_linear_from_quadratic(
    base: int, per_token: int, per_pair: int
) -> None:
    """1 for a peak that is linear in the length whatever was there before, 2 for a square."""
    lengths = (256, 512, 1024, 2048)
    problem = Problem("causal", "float32", 64, 256, 256)
    linear = Peaks("attnc", problem, {n: base + per_token * n for n in lengths})
    square = Peaks("attnc", problem, {n: base + per_pair * n * n for n in lengths})

    assert linear.growth() == pytest.approx(1)
    assert square.growth() == pytest.approx(2)
    assert linear.bytes_per_token() == pytest.approx(per_token)
    assert [target.is_met for target in memory_targets([linear, square])] == [True, False]


def test_peak_counts_what_was_freed() -> None:
    """Memory that was held and given back is in the peak."""
    held = torch.ones(64 << 20, dtype=torch.uint8)
    with_it = peak_bytes()
    del held

    # The system counts in batches of pages, some for each thread.
    assert peak_bytes() >= with_it - (4 << 20) > 64 << 20


def test_targets_of_backward_name_their_problem() -> None:
    """A goal for each problem that has one, and for every learned bias."""
    problems = [
        Problem("causal", "bfloat16", 64, 2048, 2048),
        Problem("full", "float32", 64, 2048, 2048),
        Problem("T5 bias, learned, causal", "float32", 64, 2048, 2048),
    ]
    rows = [
        {"sdpa_over_attnc": 1.7},
        {"sdpa_over_attnc": 0.5},
        {"sdpa_over_attnc": 9.0, "backward_over_plain": 1.4},
    ]

    found = [target.cells() for target in targets(problems, rows)]

    assert found == [
        ["SDPA / attnc", ">= 1.80", "1.70", "missed", "causal, bf16, D=64, S=2048"],
        [
            "backward / without bias",
            *("<= 1.50", "1.40", "met"),
            "T5 bias, learned, causal, fp32, D=64, S=2048",
        ],
    ]
