"""What check prints can be pasted into an empty file: run there, it fails in the same way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import attnc
from attnc.errors import CheckFailedError
from attnc.testing import Case, Limits, MaskRecipe, check

WINDOW = 8
DOCUMENTS = torch.tensor([0] * 5 + [1] * 30 + [2] * 5)


def window(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    """The mistake: <= in place of <."""
    return (q_idx >= kv_idx) & (q_idx - kv_idx <= WINDOW)


def window_as_meant(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    distance = q_idx - kv_idx
    return (distance >= 0) & (distance < WINDOW)


def rounded_chunks(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    """The mistake: 1 / 41 has no float32, so that 41 lies in chunk 0."""
    return (q_idx * (1 / 41)).to(torch.int32) == (kv_idx * (1 / 41)).to(torch.int32)


def chunks(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx // 41 == kv_idx // 41


def documents(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    """The mistake: inside a document, a token sees those after it."""
    return DOCUMENTS[q_idx] == DOCUMENTS[kv_idx]


@attnc.kernel
def next_document(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    """The mistake: there is no token after the last one."""
    return DOCUMENTS[q_idx + 1] == DOCUMENTS[kv_idx]


def logarithm(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    """The mistake: 0 * log(0) is 0 * -inf."""
    return score + (q_idx != kv_idx) * torch.log(abs(q_idx - kv_idx) * 1.0)


def sees_itself(case: Case) -> None:
    """every query sees the key at its own place"""
    n = min(case.grid[2:])
    assert case.visible[:, :, range(n), range(n)].all(), "a query does not see itself"


def strict(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx > kv_idx


def makers() -> dict[str, Callable[[], Any]]:
    """A check of each wrong function."""
    slopes = torch.tensor([0.5, 0.25])
    return {
        "off by one": lambda: check(window, expected=window_as_meant, backends=[]),
        "rounding": lambda: check(rounded_chunks, expected=chunks, backends=[]),
        "leaks the future": lambda: check(documents, properties="causal", backends=[]),
        "reads outside": lambda: check(
            next_document, properties="in-bounds", limits=Limits(1, 1, 40), backends=[]
        ),
        "lengths beyond a table": lambda: check(
            documents, limits=Limits(1, 1, 50), properties="in-bounds", backends=[]
        ),
        "0 times infinity": lambda: check(logarithm, backends=[]),
        "a user's law": lambda: check(strict, properties=[sees_itself], backends=[]),
        "heads differ": lambda: check(
            lambda score, b, h, q_idx, kv_idx: score * slopes[h],
            properties="equivariant-heads",
            backends=[],
        ),
        "a recipe": lambda: check(
            MaskRecipe("q_idx >= kv_idx"), expected=lambda b, h, q, kv: q > kv, backends=[]
        ),
        "a combination": lambda: check(
            attnc.kernel(window) & (lambda b, h, q, kv: kv > 2),
            properties=["rows-nonempty"],
            backends=[],
        ),
    }


#: What is found at the smallest place.
POINTS = {
    "off by one": (0, 0, 8, 0),
    "rounding": (0, 0, 0, 41),
    "leaks the future": (0, 0, 0, 1),
    "0 times infinity": (0, 0, 0, 0),
    "reads outside": (0, 0, 39, 0),
    "heads differ": (0, 1, 0, 0),
}


#: Runs programs one by one, each with nothing but its own text; prints how it failed.
PASTE = """
import runpy, sys
for path in sys.argv[1:]:
    try:
        runpy.run_path(path)
    except Exception as error:
        print(path, type(error).__name__, str(error).splitlines()[:2])
"""


def test_reproductions_fail_as_the_checks(tmp_path: Path) -> None:
    """The same law, the same place, in another process."""
    expected = []
    for number, (name, make) in enumerate(makers().items()):
        with pytest.raises(CheckFailedError) as caught:
            make()
        found = caught.value
        assert found.fields["point"] == POINTS.get(name, found.fields["point"])
        program = tmp_path / f"pasted_{number}.py"
        program.write_text(found.fields["reproduction"])
        assert "the function in" not in program.read_text(), name
        lines = str(found).splitlines()[:2]
        lines[0] = lines[0].partition(": ")[2]
        expected.append((str(program), lines))

    command = [sys.executable, "-c", PASTE, *(path for path, _ in expected)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    shown = [line for line in run.stdout.splitlines() if line.startswith(str(tmp_path))]
    assert len(shown) == len(expected), run.stdout + run.stderr
    for line, (path, (law, details)) in zip(shown, expected, strict=True):
        assert line.startswith(f"{path} CheckFailedError "), line
        assert law in line
        assert details in line
