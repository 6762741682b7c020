"""Indexing of captured tensors and of rows, and elementwise functions of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from attnc.errors import DataDependentShapeError, RowViewError, TooManyIndicesError
from attnc.ir import Const, Gather
from attnc.trace.context import Context, TracedValue, refuse
from attnc.trace.location import user_location
from attnc.trace.promotion import select
from attnc.trace.slots import INT32, INT32_MAX, INT32_MIN, INT64, load_dtype
from attnc.trace.symbols import Row, Symbol

Position = int | Symbol


def data_dependent(operation: str) -> DataDependentShapeError:
    """The error for a result whose size only the values tell."""
    location = user_location()
    return DataDependentShapeError(location=location, source=location.source, operation=operation)


def gather(context: Context, tensor: torch.Tensor, positions: tuple[Position, ...]) -> Symbol:
    """Element of a captured tensor, one position per dimension."""
    kind = load_dtype(tensor.dtype)
    indices = tuple(
        p.expr
        if isinstance(p, Symbol)
        else Const(p, INT32 if INT32_MIN <= p <= INT32_MAX else INT64)
        for p in positions
    )
    expr = Gather(context.slots.slot_of(tensor), indices, kind)
    symbol: Symbol = context.symbol(context, expr, kind)
    return symbol


def row_of(context: Context, tensor: torch.Tensor) -> Row:
    """A captured tensor as a row."""
    return Row(context, tensor.shape, lambda positions: gather(context, tensor, positions))


def lift(
    context: Context,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """Elementwise ``function`` on arguments of which some may be rows, with broadcasting."""
    rows = [a for a in (*args, *kwargs.values()) if isinstance(a, Row)]
    if not rows:
        return function(context, *args, **kwargs)
    try:
        sizes = _broadcast(rows)
    except ValueError:
        shapes = " and ".join(str(row.sizes) for row in rows)
        operation = f"rows of shapes {shapes}, which do not broadcast"
        raise refuse(operation, "Make their shapes equal, or 1 where they differ.") from None

    def at(positions: tuple[Position, ...]) -> Symbol:
        element = function(
            context,
            *(_element(a, positions) for a in args),
            **{name: _element(a, positions) for name, a in kwargs.items()},
        )
        assert isinstance(element, Symbol)
        return element

    return Row(context, sizes, at, wraps=any(row.wraps for row in rows))


def _broadcast(rows: Sequence[Row]) -> tuple[int, ...]:
    return np.broadcast_shapes(*(row.sizes for row in rows))


def _element(value: Any, positions: tuple[Position, ...]) -> Any:
    if not isinstance(value, Row):
        return value
    own = positions[len(positions) - len(value.sizes) :]
    return value.at(tuple(0 if size == 1 else p for p, size in zip(own, value.sizes, strict=True)))


def index(context: Context, base: Any, key: Any) -> Any:
    """``base[key]`` for a tensor or row; a symbol if every dimension got a number.

    Numbers, symbols, slices, ``None``, ``...`` and rows of integers mix as in PyTorch.
    """
    if isinstance(base, Symbol):
        base = Row(context, (), lambda positions, symbol=base: symbol)  # type: ignore[misc]
    row = row_of(context, base) if isinstance(base, torch.Tensor) else base
    items = _expand(row, key if isinstance(key, tuple) else (key,))
    parts = _Parts(context, row)
    for item in items:
        parts.add(item)
    return parts.result()


def _expand(row: Row, key: tuple[Any, ...]) -> list[Any]:
    """The key with ``...`` written out and full slices at the end."""
    n_used = sum(1 for item in key if item is not None and item is not Ellipsis)
    if n_used > len(row.sizes):
        location = user_location()
        raise TooManyIndicesError(
            location=location, source=location.source, n_given=n_used, n_dims=len(row.sizes)
        )
    rest = [slice(None)] * (len(row.sizes) - n_used)
    for i, item in enumerate(key):
        if item is Ellipsis:
            return [*key[:i], *rest, *key[i + 1 :]]
    return [*key, *rest]


class _Parts:
    """Collects, dimension by dimension, how a position in the result maps to one in the row."""

    def __init__(self, context: Context, row: Row) -> None:
        self.context = context
        self.row = row
        self.wraps = False
        self.sizes: list[int] = []  # of the result, without the dimensions of index rows
        self.sources: list[Callable[[tuple[Any, ...], tuple[Any, ...]], Position]] = []
        self.rows: list[Row] = []
        self.rows_at: int | None = None
        self.last_row_source = -1

    def add(self, item: Any) -> None:
        if item is None:
            self.sizes.append(1)
            return
        size = self.row.sizes[len(self.sources)]
        item = self._normalise(item)
        if isinstance(item, slice):
            self._add_slice(item, size)
        elif isinstance(item, Row):
            self._add_row(item, size)
        else:
            position = self._position(item, size)
            self.sources.append(lambda own, shared: position)

    def _normalise(self, item: Any) -> Any:
        """An int, symbol, slice or row of integers."""
        if isinstance(item, np.ndarray):
            item = torch.from_numpy(item)
        if isinstance(item, list):
            item = torch.tensor(item)
        if isinstance(item, torch.Tensor):
            item = self.context.value(item)
        if isinstance(item, (bool, np.bool_)):
            raise data_dependent("a bool index")
        if isinstance(item, TracedValue):
            if item.dtype is torch.bool:
                raise data_dependent("a bool index")
            if item.dtype.is_floating_point:
                raise refuse("a float index", "Convert it with .long() or .int().")
        if isinstance(item, np.integer):
            return int(item)
        if not isinstance(item, (int, slice, Symbol, Row)):
            raise IndexError(f"a tensor cannot be indexed by {type(item).__name__}")
        return item

    def _position(self, item: int | Symbol, size: int) -> Position:
        if isinstance(item, int):
            if not -size <= item < size:
                dimension = len(self.sources)
                raise IndexError(
                    f"index {item} is out of bounds for dimension {dimension} with size {size}"
                )
            return item % size
        if not self.row.wraps:
            return item  # a Gather counts negative indices from the end by itself
        wrapped = select(self.context, item < 0, item + size, item)
        assert isinstance(wrapped, Symbol)
        return wrapped

    def _add_slice(self, item: slice, size: int) -> None:
        if any(isinstance(bound, Symbol) for bound in (item.start, item.stop, item.step)):
            raise data_dependent("a slice with traced bounds")
        if item.start is None and item.stop is None and item.step is None:
            axis = len(self.sizes)  # all of it, also where the size is a symbol
            self.sizes.append(size)
            self.sources.append(lambda own, shared: own[axis])
            return
        selected = range(size)[item]
        if (selected.start, selected.step) != (0, 1) or len(selected) != size:
            self.wraps = True
        axis = len(self.sizes)
        self.sizes.append(len(selected))
        start, step = selected.start, selected.step

        def source(own: tuple[Any, ...], shared: tuple[Any, ...]) -> Position:
            position = own[axis]
            if isinstance(position, int):
                return selected[position]
            scaled = position if step == 1 else position * step
            moved: Position = scaled if start == 0 else scaled + start
            return moved

        self.sources.append(source)

    def _add_row(self, item: Row, size: int) -> None:
        dimension = len(self.sources)
        if self.rows_at is None:
            self.rows_at = len(self.sizes)
        elif self.last_row_source != dimension - 1:
            self.rows_at = 0  # as in PyTorch, when index tensors are apart
        self.last_row_source = dimension
        self.rows.append(item)

        def source(own: tuple[Any, ...], shared: tuple[Any, ...]) -> Position:
            return self._position(_element(item, shared), size)

        self.sources.append(source)

    def result(self) -> Any:
        shared_sizes = _broadcast(self.rows)
        at, n_shared = self.rows_at or 0, len(shared_sizes)

        def element(positions: tuple[Position, ...]) -> Symbol:
            shared = positions[at : at + n_shared]
            own = (*positions[:at], *positions[at + n_shared :])
            return self.row.at(tuple(source(own, shared) for source in self.sources))

        sizes = (*self.sizes[:at], *shared_sizes, *self.sizes[at:])
        if not sizes:
            return element(())
        return Row(self.context, sizes, element, wraps=self.wraps or self.row.wraps)


def reshape(context: Context, value: Symbol | Row, sizes: tuple[int, ...]) -> Any:
    """``value.reshape(sizes)``, where at most dimensions of size 1 come or go.

    Raises:
        RowViewError: the elements would have to be renumbered.
    """
    old = () if isinstance(value, Symbol) else value.sizes
    if -1 in sizes:
        n_known = -int(np.prod(sizes))
        n_all = int(np.prod(old))
        sizes = tuple(n_all // n_known if size == -1 else size for size in sizes)
    if [n for n in old if n != 1] != [n for n in sizes if n != 1]:
        location = user_location()
        raise RowViewError(location=location, source=location.source, shape=sizes, row_shape=old)

    def element(positions: tuple[Position, ...]) -> Symbol:
        if isinstance(value, Symbol):
            return value
        used = iter([p for p, size in zip(positions, sizes, strict=True) if size != 1])
        return value.at(tuple(0 if size == 1 else next(used) for size in old))

    if not sizes:
        return element(())
    return Row(context, sizes, element, wraps=isinstance(value, Row) and value.wraps)
