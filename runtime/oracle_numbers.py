"""What numbers of a mod mean where PyTorch's scalars wrap, raise or leave it open.

The user's function runs on torch tensors in the oracle, and there

- an int beyond 32 bits wraps silently to int32: here it widens the int32 tensors beside it, as the
  int64 indices of PyTorch's own eager ``create_mask`` do (``q_idx < 2**40`` holds);
- values of 8 or 16 bits are computed in their own dtype: here in int32 or float32;
- a float beyond the integers gives what the processor gives: here the nearest integer, 0 for NaN;
- an integer ``// 0`` or ``% 0`` raises: here it is 0;
- an index beyond a tensor raises: here it counts from the end once, then is clamped, and an element
  of a dimension of size 0 is 0.

``docs/semantics.md`` states it for all backends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from attnc.storage import require_memory
from attnc.trace.context import refuse
from attnc.trace.promotion import BEYOND_64_BITS, INTEGER_TO_NEGATIVE_POWER

_NARROW = (torch.int8, torch.uint8, torch.int16)
_WIDE = {
    **dict.fromkeys(_NARROW, torch.int32),
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
}
_INTEGERS = (torch.bool, *_NARROW, torch.int32, torch.int64)
_QUOTIENTS = ("floordiv", "rfloordiv", "floor_divide")
_REMAINDERS = ("mod", "rmod", "remainder", "fmod")
_CONVERSIONS = ("to", "int", "long", "short", "char", "byte", "type", "type_as")


class KernelNumbers(TorchFunctionMode):
    """While it is entered, torch functions compute with integers and indices as kernels do."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        if name == "getitem":
            return _computed_wide(_element(*args))
        args, options = _widened(args, options)
        if name in _CONVERSIONS and _is_float(args[0]):
            return _computed_wide(_converted(func, args, options))
        if len(args) == 2 and _are_integers(args):
            if name in _QUOTIENTS or name in _REMAINDERS or options.get("rounding_mode"):
                return _divided(func, args, options, name)
            if name == "pow" and isinstance(args[1], int) and args[1] < 0:
                raise refuse(*INTEGER_TO_NEGATIVE_POWER)
        return _computed_wide(func(*args, **options))


def _computed_wide(value: Any) -> Any:
    wide = _WIDE.get(value.dtype) if isinstance(value, torch.Tensor) else None
    return value if wide is None or not _is_mapped(value) else value.to(wide)


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and _is_mapped(value)


def _converted(
    func: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]
) -> torch.Tensor:
    """A float tensor as ``func`` converts it; to integers towards zero, saturating, NaN to 0."""
    x: torch.Tensor = args[0]
    found: torch.Tensor = func(*args, **options)
    if found.dtype not in _INTEGERS[1:]:
        return found
    wide = torch.int64 if found.dtype is torch.int64 else torch.int32
    limits = torch.iinfo(wide)
    # -limits.min is a power of two, hence exact in every float dtype; limits.max is not.
    too_great, too_small = x >= -float(limits.min), x < float(limits.min)
    inside = torch.where(too_great | too_small | x.isnan(), 0.0, x).to(wide)
    inside = inside.masked_fill(too_great, limits.max).masked_fill(too_small, limits.min)
    return inside.to(found.dtype)


def _is_mapped(value: torch.Tensor) -> bool:
    """Whether the value depends on a coordinate."""
    return bool(torch._C._functorch.is_batchedtensor(value))


def _widened(
    args: tuple[Any, ...], options: Mapping[str, Any]
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """The arguments with int32 tensors in int64, if an int among them does not fit 32 bits."""
    values = (*args, *options.values())
    numbers = [x for x in values if type(x) is int and not -(2**31) <= x < 2**31]
    if not numbers:
        return args, options
    tensors = [x for x in values if isinstance(x, torch.Tensor)]
    if not any(map(_is_mapped, tensors)) or any(x.dtype not in _INTEGERS for x in tensors):
        return args, options
    for number in numbers:
        if not -(2**63) <= number < 2**63:
            raise refuse(f"the integer {number}", BEYOND_64_BITS)
    wide = {name: _in_64_bits(value) for name, value in options.items()}
    return tuple(map(_in_64_bits, args)), wide


def _in_64_bits(value: Any) -> Any:
    is_small = isinstance(value, torch.Tensor) and value.dtype is torch.int32
    return value.to(torch.int64) if is_small else value


def _are_integers(args: Sequence[Any]) -> bool:
    return all(
        arg.dtype in _INTEGERS if isinstance(arg, torch.Tensor) else isinstance(arg, int)
        for arg in args
    )


def _divided(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    options: Mapping[str, Any],
    name: str,
) -> torch.Tensor:
    """Quotient or remainder of integers: 0 where the divisor is 0, wrapping where it is -1."""
    dtype = torch.result_type(*args)
    if dtype is torch.bool or dtype in _NARROW:
        dtype = torch.int32
    device = next(arg.device for arg in args if isinstance(arg, torch.Tensor))
    x, y = (torch.as_tensor(arg, device=device).to(dtype) for arg in args)
    is_reflected = name in ("rfloordiv", "rmod")
    divisor = x if is_reflected else y
    # The least integer // -1 is a trap of the processor, as is a division by 0.
    is_special = (divisor == 0) | (divisor == -1)
    safe = torch.where(is_special, torch.ones_like(divisor), divisor)
    found = func(safe, y, **options) if is_reflected else func(x, safe, **options)
    # x * 0 = 0, x * -1 = -x
    special = torch.zeros_like(found) if name in _REMAINDERS else x * y
    return torch.where(is_special, special, found)


def _element(tensor: torch.Tensor, index: Any) -> Any:
    """``tensor[index]``, where integer tensors in ``index`` are brought into range."""
    if not _is_mapped(tensor):
        require_memory(**{"a captured tensor": tensor})
    items = list(index) if isinstance(index, tuple) else [index]
    is_index = [isinstance(item, torch.Tensor) and item.dtype in _INTEGERS[1:] for item in items]
    if not any(is_index):
        return tensor[index]
    dimension, shape = 0, list(tensor.shape)
    for place, item in enumerate(items):
        if item is Ellipsis:
            dimension = tensor.dim() - sum(map(_n_dimensions, items[place + 1 :]))
        elif is_index[place] and dimension < len(shape):
            shape[dimension] = max(1, shape[dimension])
            items[place] = _into_range(item, shape[dimension])
        dimension += _n_dimensions(item)
    if shape != list(tensor.shape):
        tensor = tensor.new_zeros(shape)
    return tensor[tuple(items)]


def _n_dimensions(item: Any) -> int:
    """How many dimensions of a tensor one item of an index takes."""
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    return item.dim() if isinstance(item, torch.Tensor) and item.dtype is torch.bool else 1


def _into_range(index: torch.Tensor, size: int) -> torch.Tensor:
    index = index.to(torch.int64)
    return torch.where(index < 0, index + size, index).clamp(0, size - 1)
