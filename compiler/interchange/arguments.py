"""What the functions of this package do with their arguments alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from attnc import checks
from attnc.decorator import Kernel
from attnc.errors import InterchangeArgumentError
from attnc.errors.base import described
from attnc.mods import Mod


class ReadKernel(Kernel):
    """A Kernel that was read from another format; it is pickled as the call that read it."""

    def __init__(self, mask: Mod, read: Callable[..., Kernel], arguments: tuple[Any, ...]) -> None:
        super().__init__(mask)
        self._made_by = (read, arguments)


def made_kernel(mask: Mod, read: Callable[..., Kernel], *arguments: Any) -> Kernel:
    """The Kernel of ``mask``, which ``read(*arguments)`` makes again."""
    mask.__name__ = mask.__qualname__ = read.__name__.removeprefix("_")
    return ReadKernel(mask, read, arguments)


class OuterIndexed:
    """A tensor (B, H, ...) for a mask to read; batches and heads of size 1 are one for all.

    ``group``: Query heads for each of its heads.
    """

    def __init__(self, values: torch.Tensor, group: int = 1) -> None:
        self.by_batch, self.by_head = (size != 1 for size in values.shape[:2])
        self.group = group
        outer = [size for size in values.shape[:2] if size != 1]
        self.values = values.reshape(*outer, *values.shape[2:])

    def at(self, b: Any, h: Any, *place: Any) -> Any:
        head = h if self.group == 1 else h // self.group
        outer = ([b] if self.by_batch else []) + ([head] if self.by_head else [])
        return self.values[(*outer, *place)]


def wrong(function: str, argument: str, value: Any, problem: str) -> InterchangeArgumentError:
    """That a value of an argument cannot be used; ``problem`` says why, or what to give."""
    value = described(value)
    return InterchangeArgumentError(
        function=function, argument=argument, value=value, problem=problem
    )


def require_flag(function: str, argument: str, value: Any) -> None:
    """Raises InterchangeArgumentError unless ``value`` is a bool."""
    if checks.flag(value) is None:
        raise wrong(function, argument, repr(described(value)), "give True or False")


def require_integers(
    function: str, argument: str, value: Any, ranks: tuple[int, ...], axes: str
) -> None:
    """Raises InterchangeArgumentError unless ``value`` is a tensor of integers of such a rank."""
    is_read = isinstance(value, torch.Tensor) and checks.is_readable(value)
    if is_read and value.dim() in ranks and value.dtype in checks.INTEGERS:
        return
    if not isinstance(value, torch.Tensor):
        value = repr(described(value))
    raise wrong(function, argument, value, f"give a tensor of int32, {axes}")
