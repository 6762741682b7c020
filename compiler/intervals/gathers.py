"""Ranges of what is loaded from captured tensors."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from attnc.intervals.boxes import Boxes, Ints, Truths, Value
from attnc.intervals.facts import Facts
from attnc.intervals.pyramid import TensorRanges
from attnc.intervals.ranges import NUMPY, Range
from attnc.ir import DType, Gather, IndexName, indices_of, walk

_MAX_NESTED = 1 << 22  # elements of a table of a nested gather


def gathered(node: Gather, indices: Sequence[Range], boxes: Boxes | None, facts: Facts) -> Value:
    """What ``node`` can load where its indices lie in these ranges.

    ``boxes``: those of the rows (or columns) that ``node`` depends on alone, if it does. A nested
    gather is then looked up as if it were a tensor itself: the elements of one tensor on a box
    rarely lie together in the other.
    """
    if boxes is not None and _is_nested(node):
        read = indices_of(node)
        coordinates = {name: boxes.range_of(name) for name in IndexName if name in read}
        extents = {name: int(x.hi.max()) + 1 for name, x in coordinates.items()}
        if extents and math.prod(extents.values()) <= _MAX_NESTED:
            lows, highs = [x.lo for x in coordinates.values()], [x.hi for x in coordinates.values()]
            return _loaded(facts.ranges_over(node, extents), lows, highs, node.dtype)
    ranges = facts.ranges_of(node.slot, node.dtype)
    if 0 in ranges.sizes:
        return _nothing(node.dtype)
    ends = [_into_range(i, size) for i, size in zip(indices, ranges.sizes, strict=True)]
    return _loaded(ranges, [low for low, _ in ends], [high for _, high in ends], node.dtype)


@functools.lru_cache(maxsize=1024)
def _is_nested(node: Gather) -> bool:
    """Whether an element of one captured tensor is the index into another."""
    return any(isinstance(inner, Gather) for index in node.indices for inner in walk(index))


def _nothing(dtype: DType) -> Value:
    """What a tensor without elements gives: 0."""
    if dtype is DType.BOOL:
        return np.zeros(1, np.int8)
    zero = np.zeros(1, NUMPY.get(dtype, np.int64))
    return Range(zero, zero)


def _loaded(
    ranges: TensorRanges, lows: Sequence[Ints], highs: Sequence[Ints], dtype: DType
) -> Value:
    least, greatest = (np.atleast_1d(x) for x in ranges.bounds(lows, highs))
    if dtype is DType.BOOL:
        truths: Truths = least + greatest
        return truths
    if dtype.is_float:
        return Range(least, greatest, np.array([ranges.has_nan]))
    return Range(least.astype(np.int64), greatest.astype(np.int64))


def _into_range(index: Range, size: int) -> tuple[Ints, Ints]:
    """Range of the position that a load reads: negatives counted from the end, then clamped."""
    if (index.lo >= 0).all():
        low = np.minimum(index.lo, size - 1)
        high = low if index.hi is index.lo else np.minimum(index.hi, size - 1)
        return low, high
    crosses = (index.lo < 0) & (index.hi >= 0)
    low = np.clip(np.where(index.lo < 0, index.lo + size, index.lo), 0, size - 1)
    high = np.clip(np.where(index.hi < 0, index.hi + size, index.hi), 0, size - 1)
    return np.where(crosses, 0, low), np.where(crosses, size - 1, high)
