"""Reductions of rows: sums, extrema, products of a row with a row or matrix, searches."""

from __future__ import annotations

import math
from typing import Any

from attnc.ir import DType, Reduce, ReduceOp, RowIndex, walk
from attnc.trace.context import Context, refuse
from attnc.trace.promotion import as_float, as_symbol, cast, select, to_dtype
from attnc.trace.rows import Position, lift
from attnc.trace.slots import BOOL, INT32, INT64
from attnc.trace.symbols import Row, Symbol


def reduce(
    context: Context,
    op: ReduceOp,
    row: Row,
    dims: tuple[int, ...] | None = None,
    keepdim: bool = False,
    kind: DType | None = None,
) -> Any:
    """``row`` reduced over ``dims`` (all of them by default), computed in ``kind`` if given."""
    n_dims = len(row.sizes)
    reduced = set(range(n_dims)) if dims is None else {dim % n_dims for dim in dims}
    if op is not ReduceOp.SUM and 0 in (row.sizes[dim] for dim in reduced):
        raise refuse(f"the {op.value} of an empty row", "Give the row at least one element.")
    kept = [dim for dim in range(n_dims) if keepdim or dim not in reduced]

    def element(positions: tuple[Position, ...]) -> Symbol:
        fixed: dict[int, Position] = dict(zip(kept, positions, strict=True))
        outer = {dim: p for dim, p in fixed.items() if dim not in reduced}
        return _reduce_dims(context, op, row, outer, sorted(reduced), kind)

    if not kept:
        return element(())
    return Row(context, [1 if d in reduced else row.sizes[d] for d in kept], element, row.wraps)


def _reduce_dims(
    context: Context,
    op: ReduceOp,
    row: Row,
    fixed: dict[int, Position],
    dims: list[int],
    kind: DType | None,
) -> Symbol:
    if not dims:
        element = row.at(tuple(fixed[dim] for dim in range(len(row.sizes))))
        return element if kind is None else cast(context, element, kind)
    dim, *rest = dims
    depth = number = context.depth
    while True:
        variable = context.symbol(context, RowIndex(number), INT32)
        context.depth = number + 1
        try:
            body = _reduce_dims(context, op, row, fixed | {dim: variable}, rest, kind)
        finally:
            context.depth = depth
        # A reduction made before this one may have its number: nested ones must differ.
        taken = {node.number for node in walk(body.expr) if isinstance(node, Reduce)}
        if number not in taken:
            break
        number = max(taken) + 1
    expr = Reduce(op, number, row.sizes[dim], body.expr)
    symbol: Symbol = context.symbol(context, expr, body.kind)
    return symbol


def _dims(dim: Any) -> tuple[int, ...] | None:
    if dim is None:
        return None
    return (dim,) if isinstance(dim, int) else (tuple(dim) or None)


def _kind(row: Row) -> DType:
    return row.at((0,) * len(row.sizes)).kind


def sum_of(
    context: Context, value: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Any:
    """``torch.sum``: integers and bools are added in int64."""
    if dtype is not None:
        value = lift(context, to_dtype, (value, dtype), {})
    if isinstance(value, Symbol):
        return value if value.kind.is_float else cast(context, value, INT64)
    kind = _kind(value)
    wide = kind if kind.is_float else INT64
    return reduce(context, ReduceOp.SUM, value, _dims(dim), keepdim, wide)


def mean_of(context: Context, value: Any, dim: Any = None, keepdim: bool = False) -> Any:
    if isinstance(value, Symbol):
        return value
    dims = _dims(dim)
    sizes = value.sizes if dims is None else [value.sizes[d] for d in dims]
    total = sum_of(context, lift(context, as_float, (value,), {}), dim, keepdim)
    return total / float(math.prod(sizes))


def extremum(op: ReduceOp) -> Any:
    """``torch.amax`` or ``torch.amin``, and ``max``, ``min`` without a dimension."""

    def function(context: Context, value: Any, dim: Any = None, keepdim: bool = False) -> Any:
        if isinstance(value, Symbol):
            return value
        is_bool = _kind(value) is BOOL
        result = reduce(context, op, value, _dims(dim), keepdim, INT32 if is_bool else None)
        return lift(context, cast, (result, BOOL), {}) if is_bool else result

    return function


def is_any(op: ReduceOp) -> Any:
    """``torch.any`` (op MAX) or ``torch.all`` (op MIN)."""

    def function(context: Context, value: Any, dim: Any = None, keepdim: bool = False) -> Any:
        if isinstance(value, Symbol):
            return cast(context, value, BOOL)
        return extremum(op)(context, lift(context, cast, (value, BOOL), {}), dim, keepdim)

    return function


def dot(context: Context, x: Any, y: Any) -> Any:
    """``torch.matmul`` with at least one side of rank 1; ``torch.dot`` and ``inner`` of rows."""
    x, y = _as_row(context, x), _as_row(context, y)
    if len(x.sizes) > 2 or len(y.sizes) > 2 or x.sizes[-1] != y.sizes[0]:
        raise refuse(f"a product of shapes {x.sizes} and {y.sizes}", "Multiply and .sum() instead.")
    n_left = len(x.sizes) - 1

    def product(positions: tuple[Position, ...]) -> Symbol:
        *outer, inner = positions
        left, right = x.at((*outer[:n_left], inner)), y.at((inner, *outer[n_left:]))
        element = left * right
        assert isinstance(element, Symbol)
        return element

    sizes = (*x.sizes[:-1], *y.sizes[1:], x.sizes[-1])
    return reduce(context, ReduceOp.SUM, Row(context, sizes, product, x.wraps or y.wraps), (-1,))


def _as_row(context: Context, value: Any) -> Row:
    if not isinstance(value, Row):
        raise refuse("a matrix product of a scalar", "Use * instead.")
    return value


def norm(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
    if args or kwargs or isinstance(value, Symbol):
        raise refuse("a norm of this kind", "Write it out with abs, .sum() and torch.sqrt.")
    squares = lift(context, lambda _, x: x * x, (lift(context, as_float, (value,), {}),), {})
    total = sum_of(context, squares)
    return select(context, total == 0, 0.0, total.sqrt())  # as for torch, derivative 0 at 0


def searchsorted(
    context: Context,
    boundaries: Any,
    value: Any,
    *,
    right: bool = False,
    side: str | None = None,
    out_int32: bool = False,
) -> Any:
    """Number of sorted ``boundaries`` below ``value`` (or not above it, with ``right``)."""
    if not isinstance(boundaries, Row) or len(boundaries.sizes) != 1:
        raise refuse("a search in boundaries that are not 1-D", "Index them down to one row.")
    includes_equal = right or side == "right"

    def count(_: Context, x: Any) -> Any:
        below = boundaries <= x if includes_equal else boundaries < x
        return reduce(context, ReduceOp.SUM, below, None, False, INT32 if out_int32 else INT64)

    return lift(context, count, (value,), {})


def bucketize(
    context: Context, value: Any, boundaries: Any, *, out_int32: bool = False, right: bool = False
) -> Any:
    return searchsorted(context, boundaries, value, right=right, out_int32=out_int32)


def isin(context: Context, elements: Any, values: Any, *, invert: bool = False) -> Any:
    if not isinstance(values, Row):
        found = elements == values
    else:
        found = lift(
            context, lambda _, x: is_any(ReduceOp.MAX)(context, values == x), (elements,), {}
        )
    return ~found if invert else found


def stack(context: Context, values: Any, dim: int = 0) -> Any:
    """1-D row of symbols and numbers."""
    elements = [as_symbol(context, value) for value in values]
    if dim not in (0, -1) or not elements:
        raise refuse("stack of this kind", "Only single numbers can be stacked.")

    def at(positions: tuple[Position, ...]) -> Symbol:
        (position,) = positions
        if isinstance(position, int):
            return elements[position]
        result: Any = elements[-1]
        for i in range(len(elements) - 2, -1, -1):
            result = context.call("where", (position == i, elements[i], result), {})
        assert isinstance(result, Symbol)
        return result

    return Row(context, (len(elements),), at, wraps=True)
