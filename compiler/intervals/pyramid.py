"""Least and greatest element of a captured tensor on many index ranges at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attnc.ir import DType

Ints = NDArray[np.int64]
Array = NDArray[Any]

_CHUNK = 32
_PIECE = 1 << 16
_MAX_SAME_CHUNK = 1 << 16


@dataclass
class TensorRanges:
    """Range minima and maxima of one captured tensor; structures are built when first asked for.

    ``values``: the tensor as loaded, NaN replaced by 0. ``has_nan``: whether there were any.
    """

    values: Array
    has_nan: bool
    sizes: tuple[int, ...]
    _lines: dict[int, _Line] = field(default_factory=dict)
    _mipmaps: dict[tuple[int, ...], _Mipmap] = field(default_factory=dict)

    @staticmethod
    def of(tensor: torch.Tensor, load_dtype: DType) -> TensorRanges:
        """Ranges of ``tensor``, of any shape, strides and device, loaded as ``load_dtype``."""
        sizes = tuple(tensor.shape)
        for axis, stride in enumerate(tensor.stride()):
            if stride == 0 and tensor.shape[axis] > 1:
                tensor = tensor.narrow(axis, 0, 1)
        tensor = tensor.detach().to("cpu")
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.float()
        values: Array = tensor.numpy().astype(_NUMPY[load_dtype], copy=False)
        has_nan = bool(load_dtype.is_float and np.isnan(values).any())
        if has_nan:
            values = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf)
        return TensorRanges(values, has_nan, sizes)

    def bounds(self, lows: Sequence[Ints], highs: Sequence[Ints]) -> tuple[Array, Array]:
        """Least and greatest element with ``lows[d] <= index[d] <= highs[d]`` in each dimension.

        Indices are in range; arrays broadcast together. For one ranging dimension the bounds are
        exact; for several they may be wider, as ranges are rounded out to powers of two.
        """
        collapsed = [size < full for size, full in zip(self.values.shape, self.sizes, strict=True)]
        lows = [np.zeros_like(x) if c else x for x, c in zip(lows, collapsed, strict=True)]
        highs = [np.zeros_like(x) if c else x for x, c in zip(highs, collapsed, strict=True)]
        ranging = tuple(
            axis
            for axis, (low, high) in enumerate(zip(lows, highs, strict=True))
            if low is not high and not np.array_equal(low, high)
        )
        if not ranging:
            point = self.values[tuple(lows)]
            return point, point
        if len(ranging) == 1:
            return self._line(ranging[0]).bounds(lows, highs)
        return self._mipmap(ranging).bounds(lows, highs)

    def _line(self, axis: int) -> _Line:
        if axis not in self._lines:
            self._lines[axis] = _Line(self.values, axis)
        return self._lines[axis]

    def _mipmap(self, axes: tuple[int, ...]) -> _Mipmap:
        if axes not in self._mipmaps:
            self._mipmaps[axes] = _Mipmap(self.values, axes)
        return self._mipmaps[axes]


_NUMPY = {
    DType.BOOL: np.int8,
    DType.INT32: np.int32,
    DType.INT64: np.int64,
    DType.FLOAT32: np.float32,
    DType.FLOAT64: np.float64,
}


class _Line:
    """Exact range minima and maxima along one axis, in constant time per query.

    Chunks of 32 elements have prefix and suffix minima, and a sparse table lies over the chunks,
    so memory is a few times that of the tensor. Sorted tensors (document ids) need none of it.
    """

    def __init__(self, values: Array, axis: int) -> None:
        self.axis = axis
        self.outer_shape = values.shape[:axis] + values.shape[axis + 1 :]
        self.size = values.shape[axis]
        self.rows = np.ascontiguousarray(np.moveaxis(values, axis, -1)).reshape(-1, self.size)
        self.is_sorted = _ascends(self.rows)
        if self.is_sorted:
            return
        n_chunks = -(-self.size // _CHUNK)
        padding = ((0, 0), (0, n_chunks * _CHUNK - self.size))
        chunks = np.pad(self.rows, padding, mode="edge").reshape(-1, n_chunks, _CHUNK)
        self.least = _Extremes(np.minimum, chunks, self.size)
        self.greatest = _Extremes(np.maximum, chunks, self.size)

    def bounds(self, lows: Sequence[Ints], highs: Sequence[Ints]) -> tuple[Array, Array]:
        low, high = lows[self.axis], highs[self.axis]
        others = [x for axis, x in enumerate(lows) if axis != self.axis]
        row: Ints = np.zeros(1, np.int64)
        for index, size in zip(others, self.outer_shape, strict=True):
            row = row * size + index
        if self.is_sorted:
            return self.rows[row, low], self.rows[row, high]
        row, low, high = np.broadcast_arrays(row, low, high)
        least, greatest = self.least.over(row, low, high), self.greatest.over(row, low, high)
        same = np.flatnonzero(low // _CHUNK == high // _CHUNK)
        for first in range(0, len(same), _MAX_SAME_CHUNK):
            part = same[first : first + _MAX_SAME_CHUNK]
            places = np.minimum(low[part, None] + np.arange(_CHUNK), high[part, None])
            elements = self.rows[row[part, None], places]
            least[part], greatest[part] = elements.min(1), elements.max(1)
        return least, greatest


def _ascends(rows: Array) -> bool:
    """Whether the elements of every row ascend; looked at piece by piece, until one does not."""
    step = max(_PIECE // max(len(rows), 1), 1)
    return all(
        bool(
            (
                rows[:, first + 1 : first + step + 1]
                >= rows[:, first : first + step][:, : rows.shape[1] - first - 1]
            ).all()
        )
        for first in range(0, rows.shape[1] - 1, step)
    )


class _Extremes:
    """Minima (or maxima) over ranges that span more than one chunk."""

    def __init__(self, combine: np.ufunc, chunks: Array, size: int) -> None:
        self.combine = combine
        n_rows = chunks.shape[0]
        self.prefix = combine.accumulate(chunks, 2).reshape(n_rows, -1)
        self.suffix = combine.accumulate(chunks[:, :, ::-1], 2)[:, :, ::-1].reshape(n_rows, -1)
        # Entry [k][row, i] covers the chunks i .. i + 2**k - 1.
        self.sparse = [self.prefix[:, _CHUNK - 1 :: _CHUNK]]
        while 2 ** len(self.sparse) <= chunks.shape[1]:
            last, step = self.sparse[-1], 2 ** (len(self.sparse) - 1)
            self.sparse.append(combine(last[:, :-step], last[:, step:]))

    def over(self, row: Ints, low: Ints, high: Ints) -> Array:
        """Result for each query; meaningless where both ends lie in one chunk."""
        result: Array = self.combine(self.suffix[row, low], self.prefix[row, high])
        first, last = low // _CHUNK + 1, high // _CHUNK - 1
        n_between = last - first + 1
        level = np.frexp(np.maximum(n_between, 1))[1] - 1
        for k in np.unique(level[n_between > 0]):
            some = np.flatnonzero((n_between > 0) & (level == k))
            table = self.sparse[k]
            middle = self.combine(
                table[row[some], first[some]], table[row[some], last[some] - 2**k + 1]
            )
            result[some] = self.combine(result[some], middle)
        return result


class _Mipmap:
    """Minima and maxima over ranges in several axes, rounded out to cells of powers of two."""

    def __init__(self, values: Array, axes: tuple[int, ...]) -> None:
        self.axes = axes
        self.cells: dict[tuple[int, ...], tuple[Array, Array]] = {
            (0,) * len(axes): (values, values)
        }

    def level(self, levels: tuple[int, ...]) -> tuple[Array, Array]:
        if levels in self.cells:
            return self.cells[levels]
        place = levels.index(max(levels))
        finer = (*levels[:place], levels[place] - 1, *levels[place + 1 :])
        least, greatest = self.level(finer)
        axis = self.axes[place]
        self.cells[levels] = (
            _halved(np.minimum, least, axis),
            _halved(np.maximum, greatest, axis),
        )
        return self.cells[levels]

    def bounds(self, lows: Sequence[Ints], highs: Sequence[Ints]) -> tuple[Array, Array]:
        all_lows: list[Ints] = list(np.broadcast_arrays(*lows))
        all_highs: list[Ints] = list(np.broadcast_arrays(*highs))
        n = max(len(all_lows[0]), len(all_highs[0]))
        all_lows = [np.broadcast_to(x, (n,)) for x in all_lows]
        all_highs = [np.broadcast_to(x, (n,)) for x in all_highs]
        # Cells as long as the range: it then touches one cell where aligned, never above two.
        widths = [all_highs[axis] - all_lows[axis] + 1 for axis in self.axes]
        levels = np.stack([np.frexp(np.maximum(w - 1, 0))[1] for w in widths])
        least, greatest = None, None
        for group in np.unique(levels, axis=1).T:
            some = np.flatnonzero((levels == group[:, None]).all(0))
            table_least, table_greatest = self.level(tuple(int(k) for k in group))
            part_least, part_greatest = None, None
            for corner in range(2 ** len(self.axes)):
                index = []
                for axis, (low, high) in enumerate(zip(all_lows, all_highs, strict=True)):
                    place = self.axes.index(axis) if axis in self.axes else None
                    if place is None:
                        index.append(low[some])
                        continue
                    end = high if corner >> place & 1 else low
                    index.append(end[some] >> int(group[place]))
                a, z = table_least[tuple(index)], table_greatest[tuple(index)]
                part_least = a if part_least is None else np.minimum(part_least, a)
                part_greatest = z if part_greatest is None else np.maximum(part_greatest, z)
            assert part_least is not None
            assert part_greatest is not None
            if least is None or greatest is None:
                least, greatest = np.empty(n, part_least.dtype), np.empty(n, part_least.dtype)
            least[some], greatest[some] = part_least, part_greatest
        assert least is not None
        assert greatest is not None
        return least, greatest


def _halved(combine: np.ufunc, values: Array, axis: int) -> Array:
    """Pairs of neighbours along ``axis`` combined; an odd last element stays alone."""
    size = values.shape[axis]
    values = np.moveaxis(values, axis, 0)
    half: Array = combine(values[: size - size % 2 : 2], values[1::2])
    if size % 2:
        half = np.concatenate([half, values[-1:]])
    return np.moveaxis(half, 0, axis)
