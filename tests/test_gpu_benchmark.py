"""The GPU benchmark's harness, tried on the CPU, and its offline comparison's reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so() -> None:
    """It neither fails nor writes anything."""
    result = run("--quick")

    assert result.stdout == "There is no GPU here that PyTorch can use; nothing was measured.\n"
    assert result.returncode == 0


def test_a_tiny_run_on_the_cpu(tmp_path: Path) -> None:
    """Every candidate of a case is checked and timed, and the limits beside them."""
    out = tmp_path / "gpu.json"
    options = ("--peers", "sdpa", "--cases", "causal", "documents", "--out", str(out))

    result = run("--tiny", "--device", "cpu", *options)

    assert result.returncode == 0, result.stderr
    content = json.loads(out.read_text())
    assert content["peaks"]["gemm_tflops"] > 0
    causal, documents = content["rows"]
    assert causal["ms"].keys() == {"attnc", "sdpa"}
    assert documents["ms"].keys() == {"attnc"}
    assert causal["max_error"]["attnc"] < 1e-5
    assert "causal" in out.with_suffix(".md").read_text()


FAILING = """
import sys
from dataclasses import replace
from pathlib import Path
from benchmarks.gpu import Cell, _run
good = Cell("full", 16, 32, 1, "cpu", (), 1)
sys.exit(_run([replace(good, head_dim=0), good], Path(sys.argv[1])))
"""


@pytest.mark.slow
def test_a_failing_case_loses_no_other(tmp_path: Path) -> None:
    """The error is kept with its case, the other case is measured, the exit code tells."""
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-c", FAILING, str(out)]

    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 1
    bad, good = json.loads(out.read_text())["rows"]
    assert "ShapeError" in bad["error"]
    assert good["ms"]["attnc"]["median"] > 0
    assert "FAILED full, D=0, S=32" in result.stdout
