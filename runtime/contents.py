"""Memory of what was derived from the content of tensors, valid while the content stays equal."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch

_T = TypeVar("_T")
_MAX_PER_KEY = 4
#: Integers as wide as each float.
_INTEGERS = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}


class ContentMemory(Generic[_T]):
    """Values derived from a key and from the content of some tensors; the oldest are dropped.

    Contents are kept as copies and compared in full: version counters do not see writes through
    NumPy or ``.data``, and inference tensors have none.

    Args:
        max_bytes: Copies kept at the most, in bytes; values of larger tensors are made anew.
        max_keys: Keys kept at the most.
    """

    def __init__(self, max_bytes: int = 1 << 28, max_keys: int = 1024) -> None:
        self._known: OrderedDict[Hashable, list[tuple[list[torch.Tensor], _T]]] = OrderedDict()
        self._n_bytes = 0
        self._max_bytes = max_bytes
        self._max_keys = max_keys
        self._renew_lock()
        os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def get(self, key: Hashable, tensors: Sequence[torch.Tensor], make: Callable[[], _T]) -> _T:
        """The value for ``key`` and the content of ``tensors``, made by ``make`` if it is new."""
        for contents, value in self._known.get(key, ()):
            if _same(contents, tensors):
                return value
        value = make()
        n_bytes = _size(tensors)
        if n_bytes <= self._max_bytes // 4:
            self._keep(key, [tensor.detach().clone() for tensor in tensors], value, n_bytes)
        return value

    def _keep(self, key: Hashable, contents: list[torch.Tensor], value: _T, n_bytes: int) -> None:
        with self._lock:
            kept = [(contents, value), *self._known.get(key, ())]
            self._n_bytes += n_bytes - sum(_size(old) for old, _ in kept[_MAX_PER_KEY:])
            self._known[key] = kept[:_MAX_PER_KEY]
            self._known.move_to_end(key)
            while self._n_bytes > self._max_bytes or len(self._known) > self._max_keys:
                _, dropped = self._known.popitem(last=False)
                self._n_bytes -= sum(_size(old) for old, _ in dropped)


def _size(tensors: Sequence[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _same(contents: Sequence[torch.Tensor], tensors: Sequence[torch.Tensor]) -> bool:
    """Whether both have equal types, shapes and elements, bit for bit: 1 / -0.0 is not 1 / 0.0."""
    return len(contents) == len(tensors) and all(
        a.dtype is b.dtype
        and a.shape == b.shape
        and a.device == b.device
        and torch.equal(_bits(a), _bits(b))
        for a, b in zip(contents, tensors, strict=True)
    )


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    integer = _INTEGERS.get(tensor.dtype)
    return tensor if integer is None else tensor.view(integer)
