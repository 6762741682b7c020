"""Which backends make kernels here."""

from __future__ import annotations

import torch

from attnc.errors import NoCompilerError
from attnc.runtime.build import find_compiler
from attnc.runtime.dispatch import interprets


def available_backends(device: str = "cpu") -> tuple[str, ...]:
    """Backends that make kernels for tensors on ``device`` here.

    On the CPU "cpu" needs a C++ compiler and "triton" the environment variable TRITON_INTERPRET=1.
    """
    if torch.device(device).type != "cpu":
        return ("triton",)
    return ("cpu",) * _has_compiler() + ("triton",) * interprets()


def _has_compiler() -> bool:
    try:
        find_compiler()
    except NoCompilerError:
        return False
    return True


def what_is_missing(backend: str) -> str:
    """What ``backend`` needs to run on CPU tensors."""
    if backend == "cpu":
        return "a C++ compiler"
    return "a GPU, or TRITON_INTERPRET=1 in the environment"
