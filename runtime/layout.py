"""Facts about a call that follow from the shapes, dtypes and devices of q, k and v alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from attnc.ir import DType
from attnc.storage import reach

_MAX_LAYOUTS = 4096

#: Those of q, k and v.
Strides = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


class Layout:
    """What tensors of some shapes, dtypes and devices have in common; compared by identity.

    Attributes:
        lengths: (batch, query heads, n_queries, n_keys).
        scale: 1 / sqrt(head_dim), the usual factor of q . k.
        float_dtype: Dtype of scores and accumulators.
        is_empty: The output has no elements.
        sizes: (batch, query heads, batch of keys, key heads, n_queries, n_keys).
    """

    __slots__ = ("_reaches", "_shapes", "float_dtype", "is_empty", "lengths", "scale", "sizes")

    def __init__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        n_batch, n_heads, n_queries, head_dim = q.shape
        self.lengths = (n_batch, n_heads, n_queries, k.shape[2])
        self.scale = 1.0 / math.sqrt(head_dim)
        self.float_dtype = DType.FLOAT64 if q.dtype is torch.float64 else DType.FLOAT32
        self.is_empty = 0 in (n_batch, n_heads, n_queries, v.shape[3])
        self.sizes = (n_batch, n_heads, k.shape[0], k.shape[1], n_queries, k.shape[2])
        self._shapes = (q.shape, k.shape, v.shape, q.dtype.itemsize)
        self._reaches: tuple[Strides | None, tuple[int, int, int]] = (None, (0, 0, 0))

    def reaches(self, strides: Strides) -> tuple[int, int, int]:
        """Bytes from the first elements of q, k and v to the ends of their last ones.

        Args:
            strides: Of q, k and v.
        """
        known, reaches = self._reaches
        if known != strides:
            *shapes, itemsize = self._shapes
            pairs = zip(shapes, strides, strict=True)
            q, k, v = (reach(shape, stride, itemsize) for shape, stride in pairs)
            reaches = (q, k, v)
            self._reaches = (strides, reaches)
        return reaches


_layouts: dict[tuple[Any, ...], Layout] = {}


def layout_of(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    enable_gqa: bool = True,
    check: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, bool], None] | None = None,
) -> Layout:
    """The layout of q, k and v, which ``check(q, k, v, enable_gqa)`` has passed.

    The check must look at nothing but shapes, dtypes and devices: it runs once for each
    combination of these.
    """
    shapes, dtypes = (q.shape, k.shape, v.shape), (q.dtype, k.dtype, v.dtype)
    key = (shapes, dtypes, q.device, k.device, v.device, enable_gqa, check)
    try:
        layout = _layouts.get(key)
    except TypeError:  # sizes that are symbols have no hash
        if check is not None:
            check(q, k, v, enable_gqa)
        return Layout(q, k, v)
    if layout is None:
        if check is not None:
            check(q, k, v, enable_gqa)
        layout = Layout(q, k, v)
        if len(_layouts) >= _MAX_LAYOUTS:
            _layouts.clear()
        _layouts[key] = layout
    return layout
