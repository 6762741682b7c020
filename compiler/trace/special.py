"""Torch functions whose arguments are not all elementwise: indexing, shapes, casts, creation.

Each takes the context and then the arguments as the user wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from attnc.ir import ReduceOp
from attnc.trace.context import Context, TracedValue, refuse
from attnc.trace.operators import ELEMENTWISE
from attnc.trace.promotion import as_symbol, common_dtype, to_dtype
from attnc.trace.reductions import (
    bucketize,
    dot,
    extremum,
    is_any,
    isin,
    mean_of,
    norm,
    searchsorted,
    stack,
    sum_of,
)
from attnc.trace.rows import data_dependent, index, lift, reshape
from attnc.trace.slots import TORCH_DTYPES
from attnc.trace.symbols import Row

SPECIAL: dict[str, Callable[..., Any]] = {}


def special(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function under the names of torch functions and methods."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            SPECIAL[name] = function
        return function

    return register


def _register_of_values(function: Callable[..., Any], *names: str) -> None:
    """Registers a function whose tensor arguments arrive as symbols and rows."""

    def with_values(context: Context, *args: Any, **kwargs: Any) -> Any:
        return function(
            context,
            *map(context.value, args),
            **{name: context.value(value) for name, value in kwargs.items()},
        )

    special(*names)(with_values)


for _function, *_names in (
    (sum_of, "sum"),
    (mean_of, "mean"),
    (extremum(ReduceOp.MAX), "amax"),
    (extremum(ReduceOp.MIN), "amin"),
    (is_any(ReduceOp.MAX), "any"),
    (is_any(ReduceOp.MIN), "all"),
    (dot, "dot", "matmul", "inner", "vdot", "mv", "mm", "__matmul__"),
    (norm, "norm", "linalg_norm", "linalg_vector_norm"),
    (searchsorted, "searchsorted"),
    (bucketize, "bucketize"),
    (isin, "isin"),
    (index, "__getitem__"),
):
    _register_of_values(_function, *_names)
special("__rmatmul__")(lambda context, x, y: SPECIAL["dot"](context, y, x))
special("stack")(lambda context, tensors, dim=0: stack(context, map(context.value, tensors), dim))


def _register_extremum(name: str, op: ReduceOp, pairwise: str) -> None:
    def function(context: Context, x: Any, other: Any = None, **kwargs: Any) -> Any:
        if isinstance(other, (TracedValue, torch.Tensor)):
            return context.call(pairwise, (x, other), kwargs)
        if other is not None or kwargs:
            raise refuse(f"{name} with its index", f"Use torch.a{name}, which gives values only.")
        return extremum(op)(context, context.value(x))

    special(name)(function)


_register_extremum("max", ReduceOp.MAX, "maximum")
_register_extremum("min", ReduceOp.MIN, "minimum")


@special("where")
def _where(context: Context, condition: Any, *branches: Any, **kwargs: Any) -> Any:
    if not branches and not kwargs:
        raise data_dependent("where without values")
    values = tuple(context.value(value) for value in (condition, *branches))
    named = {name: context.value(value) for name, value in kwargs.items()}
    return lift(context, ELEMENTWISE["where"], values, named)


@special("take")
def _take(context: Context, tensor: Any, position: Any) -> Any:
    if isinstance(tensor, TracedValue):
        raise refuse("take of a traced value", "Index it with [...].")
    return index(context, tensor.reshape(-1), position)


@special("select")
def _select(context: Context, tensor: Any, dim: int, position: Any) -> Any:
    return index(context, context.value(tensor), (*[slice(None)] * (dim % tensor.dim()), position))


@special("embedding")
def _embedding(context: Context, position: Any, weight: Any, *args: Any, **kwargs: Any) -> Any:
    return index(context, context.value(weight), context.value(position))


@special("linear")
def _linear(context: Context, x: Any, weight: Any, bias: Any = None) -> Any:
    product = dot(context, context.value(weight), context.value(x))
    return product if bias is None else product + context.value(bias)


@special("count_nonzero")
def _count_nonzero(context: Context, value: Any, dim: Any = None) -> Any:
    return sum_of(context, context.value(value) != 0, dim)


@special("equal", "is_nonzero", "allclose")
def _truth(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
    return bool(context.value(value) != 0)  # raises: the mod asks for a Python bool


@special("nonzero", "argwhere", "unique", "masked_select", "repeat_interleave", "arange", "range")
def _data_dependent(context: Context, *args: Any, **kwargs: Any) -> Any:
    raise data_dependent("a size or selection made from traced values")


# --- dtype and device -----------------------------------------------------------------


@special("to", "type", "type_as")
def _to(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
    converted = context.value(value)
    if not args and not kwargs:
        raise refuse(".type() without argument", "Use .dtype.")
    for target in (*args, *kwargs.values()):
        dtype = target.dtype if isinstance(target, (torch.Tensor, TracedValue)) else target
        if isinstance(dtype, torch.dtype):
            return lift(context, to_dtype, (converted, dtype), {})
    return converted


@special("result_type")
def _result_type(context: Context, *values: Any) -> torch.dtype:
    return TORCH_DTYPES[common_dtype(context, tuple(map(context.value, values)))]


def _register_property(name: str) -> None:
    special(name)(lambda context, value, *args: getattr(context.value(value), name)(*args))


for _name in ("is_floating_point", "numel"):
    _register_property(_name)


# --- shapes ---------------------------------------------------------------------------


def _sizes(args: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(args[0]) if len(args) == 1 and not isinstance(args[0], int) else args


@special("view", "reshape")
def _reshape(context: Context, value: Any, *shape: Any) -> Any:
    return reshape(context, value, _sizes(shape))


@special("view_as", "reshape_as")
def _view_as(context: Context, value: Any, other: Any) -> Any:
    return reshape(context, value, tuple(other.shape))


@special("expand", "broadcast_to")
def _expand(context: Context, value: Any, *shape: Any) -> Any:
    sizes = _sizes(shape)
    old = (1,) * (len(sizes) - value.dim()) + tuple(value.shape)
    new = tuple(o if n == -1 else n for o, n in zip(old, sizes, strict=True))
    if not new:
        return value
    row = value if isinstance(value, Row) else Row(context, (), lambda positions: value)
    filler = Row(context, new, lambda positions: as_symbol(context, 0))
    return lift(context, lambda _, x, zero: x, (row, filler), {})


special("expand_as")(lambda context, value, other: _expand(context, value, tuple(other.shape)))


@special("squeeze")
def _squeeze(context: Context, value: Any, dim: int | None = None) -> Any:
    sizes = tuple(value.shape)
    if dim is None:
        return reshape(context, value, tuple(size for size in sizes if size != 1))
    position = dim % max(len(sizes), 1)
    kept = tuple(size for i, size in enumerate(sizes) if i != position or size != 1)
    return reshape(context, value, kept)


@special("unsqueeze")
def _unsqueeze(context: Context, value: Any, dim: int) -> Any:
    sizes = tuple(value.shape)
    position = dim % (len(sizes) + 1)
    return reshape(context, value, (*sizes[:position], 1, *sizes[position:]))


@special("flatten", "ravel")
def _flatten(context: Context, value: Any) -> Any:
    return value if value.dim() == 1 else reshape(context, value, (-1,))


# --- creation -------------------------------------------------------------------------


def _filled(
    context: Context, like: TracedValue, sizes: tuple[int, ...], value: Any, kwargs: Any
) -> Any:
    """A number with the dtype of ``like``, or a real tensor if it has dimensions."""
    options = dict(kwargs)
    dtype = options.pop("dtype", None) or like.dtype
    if not sizes:
        return to_dtype(context, context.value(value), dtype)
    if isinstance(value, TracedValue):
        raise refuse("a tensor filled with a traced value", "Use the value itself.")
    device = options.pop("device", None) or like.device
    return torch.full(sizes, value, dtype=dtype, device=device, **options)


def _register_creation(suffix: str, value: int) -> None:
    def new(context: Context, like: Any, *shape: Any, **kwargs: Any) -> Any:
        sizes = kwargs.pop("size", None)
        return _filled(context, like, _sizes(shape) if sizes is None else sizes, value, kwargs)

    def new_like(context: Context, like: Any, **kwargs: Any) -> Any:
        return _filled(context, like, tuple(like.shape), value, kwargs)

    special(f"new_{suffix}")(new)
    special(f"{suffix}_like")(new_like)


_register_creation("zeros", 0)
_register_creation("ones", 1)


@special("new_full")
def _new_full(context: Context, like: Any, size: Any, fill_value: Any, **kwargs: Any) -> Any:
    return _filled(context, like, tuple(size), fill_value, kwargs)


@special("full_like")
def _full_like(context: Context, like: Any, fill_value: Any, **kwargs: Any) -> Any:
    return _filled(context, like, tuple(like.shape), fill_value, kwargs)


@special("full")
def _full(context: Context, size: Any, fill_value: Any, **kwargs: Any) -> Any:
    return _filled(context, as_symbol(context, fill_value), tuple(size), fill_value, kwargs)


@special("new_tensor", "tensor", "as_tensor", "asarray", "scalar_tensor")
def _tensor(context: Context, *args: Any, **kwargs: Any) -> Any:
    """``torch.tensor(data)`` with a symbol in the data, or ``like.new_tensor(data)``."""
    data = args[-1]
    dtype = kwargs.get("dtype") or (args[0].dtype if len(args) == 2 else None)
    if isinstance(data, (list, tuple)):
        if not any(isinstance(item, TracedValue) for item in data):
            return torch.tensor(data, dtype=dtype, device=kwargs.get("device") or args[0].device)
        value = stack(context, map(context.value, data))
    else:
        value = context.value(data)
    if isinstance(value, Row):
        return value if dtype is None else lift(context, to_dtype, (value, dtype), {})
    symbol = as_symbol(context, value)
    return symbol if dtype is None else to_dtype(context, symbol, dtype)


def supported_names() -> Mapping[str, str]:
    """Public names of supported functions -> how a user writes them."""
    names = (n for n in (*ELEMENTWISE, *SPECIAL) if not n.startswith("_") and "." not in n)
    return {n: f"torch.{n}" if callable(getattr(torch, n, None)) else f".{n}" for n in names}
