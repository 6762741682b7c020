"""Hypothesis profiles: ``default`` is quick and repeatable, ``fuzz`` searches further.

Select with ``HYPOTHESIS_PROFILE=fuzz``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings

# Workers of pytest-xdist share the cores: a thread that spins while it waits, as OpenMP's do, takes
# time from another's work. OpenMP reads this when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
import torch

# Without a GPU, Triton is here for its interpreter, which must be switched on when it is imported.
if not torch.cuda.is_available():
    with patch.dict(os.environ, TRITON_INTERPRET="1"):
        import triton  # noqa: F401

from attnc.runtime import cpu

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile(
    "default",
    derandomize=True,
    max_examples=50,
    deadline=None,
    suppress_health_check=_SLOW_IS_FINE,
)
settings.register_profile(
    "fuzz",
    derandomize=bool(os.environ.get("CI")),  # no change fails there by chance
    max_examples=1000,
    deadline=None,
    print_blob=True,
    suppress_health_check=_SLOW_IS_FINE,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

#: Modules whose kernels are built as users have them in the default run too; all are in the slow one.
_AS_USERS_HAVE_THEM = frozenset({"test_attention", "test_flex"})


@pytest.fixture(autouse=True, scope="module")
def _quick_builds(request: pytest.FixtureRequest) -> Iterator[None]:
    """Half the time: kernels are built with -O1 in the default run."""
    is_default = "not slow" in request.config.option.markexpr
    is_quick = is_default and request.module.__name__.rpartition(".")[2] not in _AS_USERS_HAVE_THEM
    with patch.object(cpu, "OPTIMIZATION", "-O1" if is_quick else cpu.OPTIMIZATION):
        yield


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter runs what the test launches."""
    from attnc.runtime.triton import is_interpreting

    if not is_interpreting():
        pytest.skip("Triton compiles for the GPU here: see test_triton_gpu.py")
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # read where a kernel is defined
