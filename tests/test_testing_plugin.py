"""The pytest plugin, in pytest runs of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

TESTS = """
import torch

def window(b, h, q_idx, kv_idx):
    return (q_idx >= kv_idx) & (q_idx - kv_idx <= 8)

def meant(b, h, q_idx, kv_idx):
    return (q_idx >= kv_idx) & (q_idx - kv_idx < 8)

def test_right(attnc_check):
    report = attnc_check(meant, properties="causal", laws="expected,total")
    print("backends", report.backends, "examples", report.n_examples)

def test_wrong(attnc_check):
    attnc_check(window, expected=meant, laws="expected")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "test_masks.py").write_text(TESTS)
    return tmp_path


def run(folder: Path, *options: str, **variables: str) -> str:
    """What pytest prints, with the plugin."""
    # Once, whether or not this installation is older than the entry point.
    plugins = ["-p", "no:attnc", "-p", "attnc.testing.plugin", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *plugins, *options]
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run(
        [*command, str(folder)],
        cwd=folder,
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout + result.stderr


def test_failures_show_the_laws_and_the_reproduction(folder: Path) -> None:
    """The wrong mask fails with its counterexample, the right one passes."""
    shown = run(folder, "-rP", "--attnc-examples", "7", "--attnc-backend", "reference")

    assert "1 failed, 1 passed" in shown
    assert "Smallest counterexample found: b=0, h=0, q_idx=8, kv_idx=0" in shown
    assert "at=InputsRecipe(shape=Shape(n_queries=9, n_keys=1))" in shown
    assert "expected  broken" in shown
    assert "backends ('reference',) examples 7" in shown
    assert "causal    proved (linear arithmetic, for all lengths)" in shown


@pytest.mark.slow
def test_workers_of_xdist_take_the_options(folder: Path) -> None:
    pytest.importorskip("xdist")

    shown = run(folder, "-n", "2", "-rP", "--attnc-seed", "5", "--attnc-backend", "reference")

    assert "1 failed, 1 passed" in shown
    assert "q_idx=8, kv_idx=0" in shown


@pytest.mark.slow
def test_a_backend_that_cannot_run_is_named(folder: Path) -> None:
    """Asked for by name, a backend fails a test where it is missing."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("Triton runs here")
    shown = run(folder, "-k", "right", "--attnc-backend", "triton")

    needs = "triton needs a GPU, or TRITON_INTERPRET=1 in the environment."
    assert f"--attnc-backend triton: {needs}" in shown
    assert "1 failed" in shown


def test_pytest_starts_without_torch_where_the_fixture_is_not_used(tmp_path: Path) -> None:
    """Of those who have attnc installed and test something else, no time is taken."""
    (tmp_path / "test_other.py").write_text(
        "import sys\n"
        "def test_nothing_is_imported(pytestconfig):\n"
        "    assert pytestconfig.pluginmanager.hasplugin('attnc.testing.plugin')\n"
        "    assert not {'torch', 'hypothesis.strategies', 'attnc.testing.case'} & {*sys.modules}\n"
    )

    shown = run(tmp_path, "-p", "no:hypothesispytest")

    assert "1 passed" in shown, shown


def test_the_entry_point_is_declared() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

    assert project["entry-points"]["pytest11"] == {"attnc": "attnc.testing.plugin"}
