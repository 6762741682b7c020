"""Values of conditions and numbers at every pair of one tile, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attnc.evaluate import evaluate
from attnc.ir import Expr

_MAX_VALUES = 1 << 24


@dataclass(frozen=True)
class ValueRange:
    """The least and the greatest value of an expression on a tile; NaN is apart.

    Both are None where every value is NaN.
    """

    text: str
    least: float | int | None
    greatest: float | int | None
    may_nan: bool = False

    def __str__(self) -> str:
        if self.least is None:
            return f"{self.text} is NaN"
        return f"{self.text} in [{self.least}, {self.greatest}]" + " or NaN" * self.may_nan


@dataclass(frozen=True)
class Cases:
    """The combinations of values that conditions take in a tile.

    values: (n_cases, n_conditions). counts: (n_cases,), pairs of each. places: (n_cases, 2), the
    first (q_idx, kv_idx) of each, in order of rows.
    """

    values: NDArray[np.bool_]
    counts: NDArray[np.int64]
    places: NDArray[np.int64]


@dataclass(frozen=True)
class Tile:
    """The pairs of one tile; none of the ranges is empty."""

    b: int
    h: int
    queries: range
    keys: range
    tensors: Sequence[torch.Tensor]

    @property
    def n_pairs(self) -> int:
        return len(self.queries) * len(self.keys)

    def cases(self, conditions: Sequence[Expr]) -> Cases:
        """Which combinations of ``conditions`` occur, and where first."""
        found: dict[bytes, tuple[int, int]] = {}
        n_rows = max(_MAX_VALUES // (len(self.keys) * max(len(conditions), 1)), 1)
        for rows in _stripes(self.queries, n_rows):
            values = np.stack([self._flags(c, rows) for c in conditions], axis=-1)
            packed = np.packbits(values.reshape(-1, len(conditions)), axis=1)
            keys, first, counts = np.unique(packed, axis=0, return_index=True, return_counts=True)
            before = (rows.start - self.queries.start) * len(self.keys)
            for key, at, count in zip(keys, first.tolist(), counts.tolist(), strict=True):
                place, earlier = found.get(key.tobytes(), (before + at, 0))
                found[key.tobytes()] = place, earlier + count
        packed = np.array([np.frombuffer(key, np.uint8) for key in found])
        flat, counts = np.array(list(found.values()), np.int64).T
        row, column = np.divmod(flat, len(self.keys))
        places = np.stack([self.queries.start + row, self.keys.start + column], axis=1)
        order = np.argsort(flat)
        values = np.unpackbits(packed, axis=1, count=len(conditions)).astype(bool)
        return Cases(values[order], counts[order], places[order])

    def range_of(self, expr: Expr, text: str) -> ValueRange:
        """The exact range of a number."""
        return self._range(text, lambda rows: self.values(expr, rows))

    def range_of_difference(self, lhs: Expr, rhs: Expr, text: str) -> ValueRange:
        """The exact range of ``lhs - rhs`` of integers, which does not wrap around at 64 bits."""
        return self._range(
            text, lambda rows: self.values(lhs, rows).long() - self.values(rhs, rows).long()
        )

    def _range(self, text: str, values_of: Any) -> ValueRange:
        least: Any = None
        greatest: Any = None
        may_nan = False
        for rows in _stripes(self.queries, max(_MAX_VALUES // len(self.keys), 1)):
            values = values_of(rows).reshape(-1)
            if values.is_floating_point():
                is_nan = values.isnan()
                may_nan |= bool(is_nan.any())
                values = values[~is_nan]
            if not len(values):
                continue
            # NumPy's scalars print as short as their dtype allows.
            low, high = values.min().cpu().numpy()[()], values.max().cpu().numpy()[()]
            least = low if least is None else min(least, low)
            greatest = high if greatest is None else max(greatest, high)
        return ValueRange(text, plain_number(least), plain_number(greatest), may_nan)

    def _flags(self, condition: Expr, rows: range) -> NDArray[np.bool_]:
        values = self.values(condition, rows).expand(len(rows), len(self.keys))
        flags: NDArray[np.bool_] = values.cpu().numpy()
        return flags

    def values(self, expr: Expr, rows: range) -> torch.Tensor:
        """Of an expression, broadcast over (``rows``, keys); a side may be 1."""
        # Numbers on the CPU go with tensors of any device.
        devices = (t.device for t in self.tensors if t.dim() or t.device.type != "cpu")
        device = next(devices, torch.device("cpu"))

        def indices(numbers: Any) -> torch.Tensor:
            return torch.as_tensor(numbers, dtype=torch.int32, device=device)

        return evaluate(
            expr,
            b=indices(self.b),
            h=indices(self.h),
            q_idx=indices(list(rows))[:, None],
            kv_idx=indices(list(self.keys))[None, :],
            tensors=self.tensors,
        )


def plain_number(number: Any) -> float | int | None:
    """NumPy's scalar as Python's, a float with as many digits as its dtype shows."""
    if number is None:
        return None
    return int(number) if isinstance(number, np.integer) else float(str(number))


def _stripes(rows: range, size: int) -> Iterator[range]:
    for first in range(rows.start, rows.stop, size):
        yield range(first, min(first + size, rows.stop))
