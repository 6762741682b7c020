"""The command ``attnc`` in this process, and a folder of files for it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from attnc.cli.app import app


def invoke(*arguments: str) -> Any:
    """What ``attnc`` does with ``arguments``."""
    return CliRunner().invoke(app, arguments, prog_name="attnc")


def mistake(*arguments: str) -> str:
    """The message for wrong input: one line on standard error, exit code 2, no traceback."""
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("attnc: error: ")
    return line.removeprefix("attnc: error: ")


def work_in(folder: Path, monkeypatch: pytest.MonkeyPatch, **sources: str) -> Path:
    """``folder``, where commands run, with a file for each of ``sources``.

    What is imported from them is forgotten afterwards.
    """
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder
