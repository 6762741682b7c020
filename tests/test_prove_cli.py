"""``attnc prove``: what it prints, exit codes that CI can rely on, one line for each mistake."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import invoke, work_in

ROOT = Path(__file__).parent.parent

MASKS = """
import attnc
import torch

IDS = torch.arange(2000) // 70
NOISE = torch.rand(700, 700, generator=torch.Generator().manual_seed(2))
BIAS = torch.zeros(199)


def causal(b, h, q, kv):
    return kv <= q


def packed(b, h, q, kv):
    same = IDS[q] == IDS[kv]
    return (q >= kv) & same


def strict(b, h, q, kv):
    return kv < q


def prefix(b, h, q, kv):
    return (
        (kv <= q)
        | (kv < 70)
    )


def noisy(b, h, q, kv):
    return (q >= kv) | (NOISE[q, kv] * NOISE[kv, q] > 1)


@attnc.kernel(mask=prefix)
def biased(score, b, h, q, kv):
    return score + BIAS[q - kv + 99]


def raising(b, h, q, kv):
    return {}["missing"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a file of masks; what is imported from it is forgotten afterwards."""
    return work_in(tmp_path, monkeypatch, masks_to_prove=MASKS)


def prove(name: str, *arguments: str) -> Any:
    return invoke("prove", f"masks_to_prove.py:{name}", *arguments)


def line_of(text: str) -> int:
    return next(i for i, line in enumerate(MASKS.splitlines(), 1) if text in line)


def test_all_that_holds_is_told_with_how_and_exits_0(folder: Path) -> None:
    """One line for each property, in order, with the lengths that the proof covers."""
    result = prove(
        "packed", "--causal", "--rows-nonempty", "--in-bounds",
        "--implies", "masks_to_prove.py:causal", "--q-len", "2000",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    found = [re.sub(r" \([\d.]+ ms\)", "", line) for line in result.stdout.splitlines()]
    assert [re.split(r" {2,}", line) for line in found] == [
        ["causal", "holds", "linear arithmetic, for all lengths"],
        ["rows-nonempty", "holds", "intervals, for all lengths with KV_LEN >= Q_LEN"],
        ["in-bounds", "holds", "linear arithmetic, for these lengths"],
        ["implies masks_to_prove.py:causal", "holds", "linear arithmetic, for all lengths"],
    ]


def test_a_refuted_property_names_pair_term_and_line_and_exits_1(folder: Path) -> None:
    """A leak through a prefix: the first such pair, the condition to blame and where it stands."""
    result = prove("prefix", "--causal", "--rows-nonempty")

    assert result.exit_code == 1
    first, pair, place, second = result.stdout.splitlines()
    assert re.match(r"causal +refuted ", first)
    assert (
        pair == "  at b=0, h=0, q_idx=0, kv_idx=1: this later key is visible: `kv_idx < 70` is true"
    )
    assert place.endswith(f"masks_to_prove.py:{line_of('kv < 70')}: | (kv < 70)")
    assert re.match(r"rows-nonempty +holds +intervals, for all lengths with KV_LEN >= 1 ", second)


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("strict", ["--rows-nonempty"], "q_idx=0: this query sees no key"),
        ("causal", ["--symmetric"], "visible, but hidden with q_idx and kv_idx exchanged"),
        ("packed", ["--monotone"], "q_idx=69, kv_idx=0: visible, but hidden from q_idx=70"),
        ("packed", ["--in-bounds", "--q-len", "3000"], "of size 2000, but `q_idx` is 2000"),
        ("causal", ["--implies", "masks_to_prove.py:strict"], "visible in mask, hidden in other"),
        ("strict", ["--equal", "masks_to_prove.py:causal"], "visible in other, hidden in mask"),
        ("biased", ["--causal"], "`kv_idx < 70` is true"),
        ("biased", ["--in-bounds", "--q-len", "500"], "`q_idx - kv_idx + 99` is 199"),
    ],
)
def test_each_property_is_refuted_by_a_pair(
    folder: Path, name: str, arguments: list[str], told: str
) -> None:
    """Each option reaches its property; of a kernel the mask is asked, and both for bounds."""
    result = prove(name, *arguments)

    assert result.exit_code == 1, result.output
    assert told in result.stdout


def test_what_the_budget_leaves_open_exits_3_unless_something_is_refuted(folder: Path) -> None:
    """Undecided is neither success nor failure, and refuted comes before it."""
    sizes = ("--q-len", "700", "--budget", "40000")
    undecided = prove("noisy", "--causal", *sizes)
    both = prove("noisy", "--causal", "--equal", "masks_to_prove.py:strict", *sizes)
    enough = prove("noisy", "--causal", "--q-len", "700")

    assert undecided.exit_code == 3
    assert re.search(
        r"\n  [\d,]+ of 490,000 pairs are open; give a larger budget", undecided.stdout
    )
    assert both.exit_code == 1
    assert enough.exit_code == 0


def test_json_has_all_fields(folder: Path) -> None:
    """For programs: one object, whatever the answers are."""
    result = prove("prefix", "--causal", "--rows-nonempty", "--json", "--kv-len", "2048")

    assert result.exit_code == 1
    told = json.loads(result.stdout)
    causal, rows = told["properties"]
    assert told["target"] == "masks_to_prove.py:prefix"
    assert (causal["property"], causal["holds"]) == ("causal", False)
    assert causal["counterexample"] == [0, 0, 0, 1]
    assert (causal["line"], causal["source"]) == (line_of("kv < 70"), "| (kv < 70)")
    assert (rows["holds"], rows["counterexample"], rows["file"]) == (True, None, None)
    assert rows["max_length"] == 2**31 - 1
    assert 0 < rows["seconds"] < 60


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("packed", [], "prove 'masks_to_prove.py:packed': name what to prove"),
        ("packed", ["--symmetric", "--kv-len", "9"], "symmetric(KV_LEN=9): a pair and its mirror"),
        ("packed", ["--causal", "--q-len", "-4"], "causal(Q_LEN=-4): it must be from 0 to"),
        ("packed", ["--equal", "masks_to_prove.py:cause"], "Did you mean causal?"),
        ("raising", ["--causal"], "KeyError"),
        ("packed", ["--causal", "--budget", "many"], "Invalid value for '--budget'"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    folder: Path, name: str, arguments: list[str], message: str
) -> None:
    """What was typed wrong, or what the user's function raises, on standard error."""
    result = prove(name, *arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("attnc: error: ")
    assert message in line


def test_real_command_gives_its_exit_code_to_the_shell(folder: Path) -> None:
    """The console script, as CI runs it."""
    command = [str(Path(sys.executable).with_name("attnc")), "prove", "masks_to_prove.py:strict"]

    result = subprocess.run(
        [*command, "--rows-nonempty"], cwd=folder, capture_output=True, text=True, check=False
    )

    assert result.returncode == 1, result.stderr
    assert "\x1b" not in result.stdout
