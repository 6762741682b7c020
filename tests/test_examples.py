"""The examples: each runs, and so does the command in its docstring."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attnc.cli.app import app

ROOT = Path(__file__).parent.parent
# The demo embeds hundreds of sentences with a pretrained model: `make demo` runs it.
EXAMPLES = sorted(p for p in (ROOT / "examples").glob("*.py") if p.stem != "embed_sentences")


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
