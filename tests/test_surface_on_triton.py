"""The public surface through the Triton backend, on CPU tensors in Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
#: What is said there of imports and of PyTorch's kernels holds whatever the backend.
_OF_NO_BACKEND = ("needs_neither_sympy_nor_jinja", "stay_fast", "to_torch_runs_in_pytorch")


@pytest.mark.parametrize(
    "file",
    [
        "test_attention.py",
        "test_kernel.py",
        pytest.param("test_block_mask.py", marks=pytest.mark.slow),
        pytest.param("test_flex.py", marks=pytest.mark.slow),
    ],
)
def test_every_test_of_the_surface_passes_on_triton(file: str) -> None:
    """The same tests that the CPU backend passes, without changing one."""
    chosen = " and ".join(f"not {name}" for name in _OF_NO_BACKEND)
    environment = {**os.environ, "ATTNC_BACKEND": "triton", "TRITON_INTERPRET": "1"}
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--show-capture=no", "-k", chosen, file],
        cwd=HERE,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:]
