"""Zeros that cost nothing until they are used: fresh pages of the operating system."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence

import torch


def cleared(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Zeros on the CPU, in memory that the system clears page by page when it is first written.

    For large ones: ``torch.zeros`` writes every element once more, and the pages of elements that
    stay 0 may not have to exist at all.
    """
    n_bytes = math.prod(shape) * dtype.itemsize
    flags = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)
    try:
        memory = mmap.mmap(-1, n_bytes, flags) if flags else mmap.mmap(-1, n_bytes)
    except (OSError, ValueError):  # the system's limits, or nothing to map
        return torch.zeros(shape, dtype=dtype)
    return torch.frombuffer(memory, dtype=dtype).view(shape)
