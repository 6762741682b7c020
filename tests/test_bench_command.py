"""``attnc bench``: what is timed, who is refused, and what the figures mean."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import commands
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import attnc
from attnc.bench.contest import GEMM, hold, ratio_of, spread
from attnc.bench.contestants import Absent, Contestant, contestant_attnc, contestants
from attnc.bench.measure import Times
from attnc.bench.problem import Oracle, Problem
from attnc.bench.report import table

MASKS = """
import attnc
import torch

slopes = torch.tensor([0.5, 0.25])
bias = torch.zeros(2, requires_grad=True)
bounds = [4]
size = [3]


def causal(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


def prefix(b, h, q_idx, kv_idx):
    return (q_idx >= kv_idx) | (kv_idx < 5)


@attnc.kernel(mask=prefix)
def alibi(score, b, h, q_idx, kv_idx):
    return score + slopes[h] * (kv_idx - q_idx)


@attnc.kernel(mask=causal)
def learned(score, b, h, q_idx, kv_idx):
    return score + bias[h] * (kv_idx - q_idx)


def capped(score, b, h, q_idx, kv_idx):
    return 2 * torch.tanh(score / 2)


def short(b, h, q_idx, kv_idx):
    return bounds[1] > q_idx


def fickle(b, h, q_idx, kv_idx):
    size[0] += 1
    return (q_idx - kv_idx < size[0]) & (q_idx >= kv_idx)
"""
SMALL = ("--shape", "1,2,40,40,16", "--seconds", "0", "--against", "sdpa", "--device", "cpu")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a file of functions."""
    return commands.work_in(tmp_path, monkeypatch, masks=MASKS)


def invoke(*arguments: str) -> Any:
    return commands.invoke("bench", *arguments)


def mistake(*arguments: str) -> str:
    return commands.mistake("bench", *arguments)


def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


def problem_of(mod: Any, **options: Any) -> Problem:
    return Problem(mod, 1, 2, 1, 30, 40, 16, **options)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("causal", "scaled_dot_product_attention, is_causal=True"),
        ("prefix", "scaled_dot_product_attention, dense boolean mask"),
        ("alibi", "scaled_dot_product_attention, dense mask with the bias"),
    ],
)
def test_json_has_figures_machine_and_command(name: str, how: str, folder: Path) -> None:
    """What was compared, on what, and figures that agree with each other."""
    result = invoke(f"masks.py:{name}", *SMALL, "--json", "bench.json")

    assert result.exit_code == 0, result.output
    assert how in result.stdout
    content = json.loads((folder / "bench.json").read_text())
    assert content["function"] == f"masks.py:{name}"
    assert content["command"].split()[0] == "attnc"
    assert content["attnc"] == attnc.__version__
    assert {"processor", "torch", "n_threads"} <= content["machine"].keys()
    assert content["shape"] == {
        "batch": 1, "heads": 2, "kv_heads": 2, "n_queries": 40, "n_keys": 40, "head_dim": 16,
    }  # fmt: skip
    n_visible = 2 * sum(range(1, 41)) + (0 if name == "causal" else 2 * (4 + 3 + 2 + 1))
    assert content["n_visible"] == n_visible
    assert content["flops"] == 2 * 2 * 16 * n_visible
    ours, sdpa = content["contestants"]
    assert (ours["name"], sdpa["name"], sdpa["how"]) == ("attnc", "sdpa", how)
    for entry in (ours, sdpa):
        assert entry["state"] == "timed"
        assert entry["error"]["out"] <= content["tolerance"]
        assert entry["n_calls"] >= 5
        assert entry["first_call_s"] > 0
        assert entry["ms"]["low"] <= entry["ms"]["median"] <= entry["ms"]["high"]
        rate = content["flops"] / entry["ms"]["median"] * 1e3 / 1e9
        assert entry["of_peak"] == pytest.approx(rate / content["peak"]["gflops"], rel=1e-3)
    quotient = sdpa["ms"]["median"] / ours["ms"]["median"]
    assert sdpa["over_attnc"]["value"] == pytest.approx(quotient, rel=1e-3)


@given(st.lists(st.tuples(*[st.floats(1e-6, 1e3)] * 2), min_size=1, max_size=20))
def test_ratio_is_the_quotient_of_the_medians(rounds: list[tuple[float, float]]) -> None:
    """And its interval is ordered, and one point where every round is alike."""
    theirs, ours = (Times(seconds) for seconds in zip(*rounds, strict=True))

    ratio = ratio_of(theirs, ours)

    quotient = statistics.median(theirs.seconds) / statistics.median(ours.seconds)
    assert ratio.value == quotient
    assert ratio.low <= ratio.high
    alike = ratio_of(Times((3.0,) * 9), Times((2.0,) * 9))
    assert (alike.low, alike.value, alike.high) == (1.5, 1.5, 1.5)
    low, high = spread(ours)
    assert low <= ours.median <= high


def test_contestants_that_are_wrong_are_reported_and_not_timed() -> None:
    """One that forgets the mask, one that fails, one that is right: each is what it is."""
    problem = problem_of(causal)
    q, k, v = problem.inputs
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def fails() -> torch.Tensor:
        raise ValueError("no such kernel\nand more")

    result = hold(
        problem,
        [
            contestant_attnc(problem),
            Contestant("maskless", "without the mask", lambda: sdpa(q, k, v, enable_gqa=True)),
            Contestant("failing", "nothing", fails),
            Absent("missing", "it is not installed"),
        ],
        enough_s=0.0,
    )

    states = {entry.name: entry.state for entry in result.entries}
    assert states == {
        "attnc": "timed", "maskless": "wrong", "failing": "absent", "missing": "absent",
    }  # fmt: skip
    wrong = result.entries[1]
    assert wrong.times is None
    assert wrong.error is not None
    assert wrong.error.largest > result.tolerance
    text = table(result)
    assert "maskless: WRONG by " in text
    assert "failing: does not take part: ValueError: no such kernel\n" in text
    assert "missing: does not take part: it is not installed" in text


@pytest.mark.parametrize("wrong", ["q", "k", "v", "bias"])
def test_wrong_gradients_are_found(wrong: str) -> None:
    """A contestant whose output is right and one of whose gradients is not is wrong."""
    bias = torch.zeros(2, requires_grad=True)
    mod = attnc.kernel(mask=causal)(
        lambda score, b, h, q_idx, kv_idx: score + bias[h] * (kv_idx - q_idx)
    )
    problem = problem_of(mod, backward=True)
    q, k, v = problem.inputs
    tensors = {"q": q, "k": k, "v": v, "bias": bias}
    tensors[wrong] = tensors[wrong].detach()

    def forward() -> torch.Tensor:
        q, k, v, shift = tensors.values()

        def score(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return score + shift[h] * (kv_idx - q_idx)

        out = attnc.attention(q, k, v, mask=causal, score=score, enable_gqa=True)
        assert isinstance(out, torch.Tensor)
        unused = sum(x.sum() for x in (*problem.inputs, bias))  # so that each has a gradient
        return out + 0 * unused

    oracle = Oracle(problem)

    errors = oracle.error_of(forward).gradients
    assert oracle.error_of(contestant_attnc(problem).forward).largest <= oracle.tolerance()
    place = list(tensors).index(wrong)
    assert [error > oracle.tolerance() for error in errors] == [n == place for n in range(4)]


def test_flex_is_said_to_have_no_backward_on_cpus() -> None:
    """It is absent with that reason; SDPA takes a learned bias inside its time."""
    bias = torch.zeros(2, requires_grad=True)
    mod = attnc.kernel(mask=causal)(lambda score, b, h, q_idx, kv_idx: score + bias[h])

    _, flex, sdpa = contestants(problem_of(mod, backward=True), ("flex", "sdpa"))

    assert flex == Absent("flex", "PyTorch's flex_attention has no backward pass on CPUs")
    assert isinstance(sdpa, Contestant)
    assert sdpa.how.endswith("dense mask with the bias, made in the call")


def test_sdpa_is_absent_where_its_bias_would_fill_the_memory() -> None:
    """Nothing as large is made to find out; a mask takes a quarter of that."""
    mod = attnc.kernel(mask=causal)(lambda score, b, h, q_idx, kv_idx: score + h * kv_idx)
    problem = Problem(mod, 1, 16, 16, 6000, 6000, 16)

    _, sdpa = contestants(problem, ("sdpa",))

    told = "a dense bias (1, 16, 6000, 6000) would take 2.3e+09 bytes"
    assert sdpa == Absent("sdpa", told)


def test_sdpa_is_absent_where_a_score_mod_does_more_than_add(folder: Path) -> None:
    """The reason is printed, and attnc is timed all the same."""
    result = invoke("masks.py:capped", *SMALL)

    assert result.exit_code == 0, result.output
    told = "sdpa: does not take part: it takes a bias, but this score_mod does more than add one"
    assert told in result.stdout


def test_backward_is_timed_with_learned_tensors(folder: Path) -> None:
    """Gradients of q, k, v and the bias are compared, and counted as five products more."""
    result = invoke("masks.py:learned", *SMALL, "--backward", "--json", "bench.json")

    assert result.exit_code == 0, result.output
    content = json.loads((folder / "bench.json").read_text())
    assert content["flops"] == 7 * 2 * 16 * content["n_visible"]
    assert [entry["state"] for entry in content["contestants"]] == ["timed", "timed"]
    assert [len(entry["error"]["gradients"]) for entry in content["contestants"]] == [4, 4]


def test_a_function_that_changes_is_found_wrong(folder: Path) -> None:
    """attnc computes another mask than the one that was asked before: exit code 1, no time."""
    result = invoke("masks.py:fickle", *SMALL)

    assert result.exit_code == 1, result.output
    assert "attnc: WRONG by " in result.stdout


def test_the_machines_rate_takes_its_turn() -> None:
    """What a share is a share of is measured in the same rounds."""
    problem = problem_of(causal)
    steps: list[tuple[str, float]] = []

    result = hold(
        problem,
        [contestant_attnc(problem)],
        enough_s=0.2,
        on_step=lambda text, share: steps.append((text, share)),
    )

    assert result.peak is not None
    assert "in turns with the others" in result.peak.source
    assert GEMM not in [entry.name for entry in result.entries]
    assert 0 < (result.share_of_peak(result.ours) or 0) < 1.5
    shares = [share for _, share in steps]
    assert shares == sorted(shares)
    assert shares[-1] <= 1


def test_picture_is_written(folder: Path) -> None:
    """A PNG, where matplotlib is there."""
    pytest.importorskip("matplotlib")
    result = invoke("masks.py:causal", *SMALL, "--picture", "bench.png")

    assert result.exit_code == 0, result.output
    assert (folder / "bench.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--against", "cudnn"), "--against 'cudnn': use one of flex, sdpa."),
        (("--dtype", "int8"), "--dtype 'int8': use one of float32, bfloat16, float16, float64."),
        (
            ("--shape", "1,4,8,8,16", "--kv-heads", "3"),
            "--kv-heads 3: it must divide the 4 query heads of --shape.",
        ),
        (("--json", "no/file.json"), "--json 'no/file.json': there is no folder no."),
        (("--json", "."), "--json '.': it is a folder; name a file."),
        (("--picture", "bench.txt"), "--picture 'bench.txt': name a PNG, such as bench.png."),
    ],
)
def test_mistakes_are_told_before_anything_is_timed(
    arguments: tuple[str, ...], told: str, folder: Path
) -> None:
    """One line, exit code 2."""
    assert mistake("masks.py:causal", *arguments) == told


def test_a_function_that_raises_is_told(folder: Path) -> None:
    """An error in the user's function is one line about it."""
    told = mistake("masks.py:short", *SMALL)

    assert told.startswith("masks.py:short cannot be used: IndexError: list index ")


def test_real_command_prints_a_table_without_colours(folder: Path) -> None:
    """The installed command, in a pipe."""
    command = [str(Path(sys.executable).with_name("attnc")), "bench", "masks.py:causal", *SMALL]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stdout.startswith("masks.py:causal, forward, shape 1,2,40,40,16, float32, cpu\n")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # inductor warns of what is its own business
def test_compiled_flex_takes_part(folder: Path) -> None:
    """Both of its block sizes are compiled, right, and timed."""
    result = invoke(
        "masks.py:alibi", "--shape", "1,2,256,256,16", "--seconds", "0", "--device", "cpu",
        "--against", "flex", "--json", "bench.json",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    content = json.loads((folder / "bench.json").read_text())
    states = {entry["name"]: entry["state"] for entry in content["contestants"]}
    assert states == {"attnc": "timed", "flex 128": "timed", "flex (64, 128)": "timed"}, (
        result.output
    )
