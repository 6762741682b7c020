"""The examples: each runs, and so does the command in its docstring."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from typer.testing import CliRunner

from attnc.cli.app import app

ROOT = Path(__file__).parent.parent
# The demo embeds hundreds of sentences with a pretrained model: `make demo` runs it. Training takes
# minutes: the tests at the end run a few steps of it.
LONG = ("embed_sentences", "train_bytes")
EXAMPLES = sorted(p for p in (ROOT / "examples").glob("*.py") if p.stem not in LONG)


def documented_command(example: Path) -> list[str]:
    """Arguments of the ``attnc`` line in the docstring of an example."""
    docstring = ast.get_docstring(ast.parse(example.read_text())) or ""
    lines = re.findall(r"^    attnc (.+)$", docstring, re.MULTILINE)
    assert len(lines) == 1, f"{example.name} has {len(lines)} command lines in its docstring"
    return shlex.split(lines[0])


each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)


@each_example
def test_example_runs_and_tells_something(example: Path) -> None:
    """Each example agrees with dense attention, which it asserts itself, and prints a result."""
    command = [sys.executable, str(example)]

    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


@each_example
def test_documented_command_works(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command in the docstring of each example runs, and is about that example."""
    arguments = documented_command(example)
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT / "examples")  # restores sys.path afterwards

    result = CliRunner().invoke(app, arguments)

    assert any(argument.startswith(f"examples/{example.name}:") for argument in arguments)
    # With --expected the planted mistake is found.
    assert result.exit_code == int("--expected" in arguments), result.output
    assert result.stdout.strip()


@each_example
def test_example_is_short(example: Path) -> None:
    """One idea per example: fewer than 60 lines."""
    assert len(example.read_text().splitlines()) < 60


@pytest.fixture
def train_bytes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example that trains a transformer."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    return importlib.import_module("train_bytes")


def test_training_goes_as_with_dense_attention(train_bytes: ModuleType) -> None:
    """Equal models on equal batches: the same loss at each step, and it falls."""
    runs = train_bytes.train(("attnc", "sdpa"), 12, 400, 2)

    losses = {name: torch.tensor(run.losses) for name, run in runs.items()}
    torch.testing.assert_close(losses["attnc"], losses["sdpa"], rtol=1e-4, atol=0)
    assert losses["attnc"][-1] < losses["attnc"][0] - 1
    learned = [layer.bias.detach() for layer in runs["attnc"].model.layers]
    assert all((bias != 0).any(dim=1).all() for bias in learned), "each head has learned a bias"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--steps", "0"], "at least 1"),
        (["--batch", "1000"], "rows of 1024 bytes: too few"),
        (["--length", "900000"], "0 rows of 900000 bytes: too few"),
    ],
)
def test_training_tells_what_the_text_cannot_fill(
    train_bytes: ModuleType, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A batch of more rows than the text has would never come."""
    with pytest.raises(SystemExit):
        train_bytes.main(options)
    assert told in capsys.readouterr().err


def test_packed_topics_start_anew(train_bytes: ModuleType) -> None:
    """Positions count from the byte before a topic, which is where its number changes too."""
    rows = torch.tensor([[5, 6, 0, 7, 8, 0, 9]])

    batch = train_bytes.Batch.of(rows)

    assert batch.targets.tolist() == [[6, 0, 7, 8, 0, 9]]
    assert batch.document.tolist() == [[0, 0, 1, 1, 1, 2]]
    assert batch.position.tolist() == [[0, 1, 0, 1, 2, 0]]


def test_training_writes_its_losses_and_a_picture(
    train_bytes: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both attentions by turns, from the command line: a figure for each and their ratio."""
    train_bytes.main(
        f"--attention both --steps 2 --length 200 --batch 1 --output {tmp_path}".split()
    )

    content = json.loads((tmp_path / "train_bytes.json").read_text())
    assert [len(run["losses"]) for run in content["runs"].values()] == [2, 2]
    attnc, sdpa = content["runs"]["attnc"], content["runs"]["sdpa"]
    assert attnc["held_out"] == pytest.approx(sdpa["held_out"], rel=1e-3)
    assert content["sdpa_over_attnc"] > 0
    assert "bits per byte" in capsys.readouterr().out
    picture = tmp_path / "train_bytes.png"
    assert not picture.exists() or picture.read_bytes().startswith(b"\x89PNG")
