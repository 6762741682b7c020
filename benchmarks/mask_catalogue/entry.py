"""One mask of the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Mod = Callable[..., Any]


@dataclass(frozen=True)
class Entry:
    """One mask; ``static``: no captured tensor has an element per token."""

    name: str
    n_queries: int
    n_keys: int
    mask: Mod
    static: bool = True


def square(name: str, length: int, mask: Mod, *, static: bool = True) -> Entry:
    return Entry(name, length, length, mask, static)


def int32(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)
