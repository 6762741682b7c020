"""Which backends make kernels here."""

from __future__ import annotations

import os
import shutil

import torch


def available_backends(device: str = "cpu") -> tuple[str, ...]:
    """Backends that make kernels for tensors on ``device`` here.

    On the CPU "cpu" needs a C++ compiler and "triton" the environment variable TRITON_INTERPRET=1.
    """
    if torch.device(device).type != "cpu":
        return ("triton",)
    compilers = (os.environ.get("CXX", "c++").split()[0], "c++", "g++", "clang++")
    has_compiler = any(shutil.which(compiler) for compiler in compilers)
    interprets = os.environ.get("TRITON_INTERPRET", "0") in ("1", "true", "on")
    return ("cpu",) * has_compiler + ("triton",) * interprets


def what_is_missing(backend: str) -> str:
    """What ``backend`` needs to run on CPU tensors."""
    if backend == "cpu":
        return "a C++ compiler"
    return "a GPU, or TRITON_INTERPRET=1 in the environment"
