"""What values are that users pass as sizes, numbers and switches."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np
import torch

#: The longest sequence, and the largest block: indices have 32 bits.
LONGEST = 2**31 - 1

#: Of q, k, v and out: short names of torch dtypes.
DTYPES = ("float32", "bfloat16", "float16", "float64")

INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)
REALS = (*INTEGERS, torch.float16, torch.bfloat16, torch.float32, torch.float64)


def whole_number(value: Any) -> int | None:
    """``value`` as an int, of Python, NumPy or a tensor of one; None for all else, bools too."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, np.integer, torch.SymInt)) or _is_number(value, INTEGERS):
        return int(value)
    return None


def size(value: Any, least: int = 0) -> int | None:
    """``value`` as a whole number from ``least`` to ``LONGEST``, or None."""
    number = whole_number(value)
    return number if number is not None and least <= number <= LONGEST else None


def sizes(value: Any, n: int, least: int = 0) -> tuple[int, ...] | None:
    """One size for all, or ``n`` of them, as ``n`` sizes; None for anything else."""
    if (one := size(value, least)) is not None:
        return (one,) * n
    numbers = [size(item, least) for item in items(value) or ()]
    found = tuple(number for number in numbers if number is not None)
    return found if len(found) == len(numbers) == n else None


def items(value: Any) -> list[Any] | None:
    """What a list, tuple, range, array or tensor of one dimension holds; None for all else."""
    if isinstance(value, (list, tuple, range)):
        return list(value)
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return list(value.tolist())
    if isinstance(value, torch.Tensor) and value.dim() == 1 and is_readable(value):
        return value.tolist()
    return None


def finite_number(value: Any) -> float | None:
    """``value`` as a float, of Python, NumPy or a tensor without gradient; None for all else.

    NaN, infinity and bools are no such numbers.
    """
    if isinstance(value, bool):
        return None
    is_real = isinstance(value, (Real, torch.SymFloat, torch.SymInt))
    if not is_real and (not _is_number(value, REALS) or value.requires_grad):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def flag(value: Any) -> bool | None:
    """``value`` as a bool, of Python or NumPy, or 0 or 1; None for all else."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    return bool(value) if isinstance(value, int) and value in (0, 1) else None


def device(value: Any) -> torch.device | None:
    """The device that ``value`` is or names; None if there is no such kind of device."""
    if isinstance(value, bool) or not isinstance(value, (str, int, torch.device)):
        return None
    try:
        return torch.device(value)
    except (RuntimeError, ValueError, OverflowError):
        return None


def one_of(value: Any, names: Iterable[str]) -> bool:
    """Whether ``value`` is one of these words."""
    return isinstance(value, str) and value in set(names)


def _is_number(value: Any, dtypes: tuple[torch.dtype, ...]) -> bool:
    if not isinstance(value, torch.Tensor):
        return False
    return value.dtype in dtypes and value.dim() == 0 and is_readable(value)


def is_readable(tensor: torch.Tensor) -> bool:
    """Whether a tensor has elements of its own, and not only a shape."""
    return tensor.layout is torch.strided and not (tensor.is_meta or tensor.is_nested)
