"""The documentation: what pages show runs, and the site is whole and needs no network."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pages
import pytest

from attnc.runtime import cpu

#: Other people's warnings, each with the page that meets it.
IGNORED_WARNINGS = (
    "flex_attention called without torch.compile",  # migration.md runs PyTorch's as it is
)


@pytest.fixture(scope="session")
def runner() -> Iterator[subprocess.Popen[str]]:
    """The program that does what pages show."""
    program = Path(__file__).parent / "page_runner.py"
    with subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def pages_with_code() -> list[object]:
    return [
        pytest.param(page, id=page.relative_to(pages.ROOT).as_posix())
        for page in pages.PAGES
        if pages.steps_of(page)
    ]


@pytest.mark.parametrize("page", pages_with_code())
def test_page_does_what_it_shows(
    page: Path, runner: subprocess.Popen[str], tmp_path: Path
) -> None:
    """Every block of a page, in order, in one namespace and one folder; printed text is compared."""
    (tmp_path / "examples").symlink_to(pages.ROOT / "examples")
    request = {
        "page": str(page),
        "folder": str(tmp_path),
        "steps": [asdict(step) for step in pages.steps_of(page)],
        "optimization": cpu.OPTIMIZATION,
        "ignored_warnings": IGNORED_WARNINGS,
    }
    assert runner.stdin is not None
    assert runner.stdout is not None

    runner.stdin.write(json.dumps(request) + "\n")
    runner.stdin.flush()
    failure = json.loads(runner.stdout.readline())

    if failure is not None:
        pytest.fail(failure, pytrace=False)
