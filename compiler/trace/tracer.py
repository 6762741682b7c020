"""What a mod does while it runs on symbols.

``_Mode`` sees every torch function that the mod calls: those that meet a symbol get their meaning
from the tables in ``operators``, ``activations`` and ``special``; those of captured tensors alone
just run, and their results are captured.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from attnc.errors import AttncError, InPlaceOperationError
from attnc.ir import DType
from attnc.trace import activations, extremes  # noqa: F401  (they fill the table of functions)
from attnc.trace.context import Context, TracedValue, refuse
from attnc.trace.location import call_mod, user_location
from attnc.trace.operators import ELEMENTWISE
from attnc.trace.promotion import cast
from attnc.trace.rows import gather, lift, row_of
from attnc.trace.slots import SlotTable, load_dtype
from attnc.trace.special import SPECIAL, supported_names
from attnc.trace.symbols import Row, Symbol

#: Operators that write into their left side, under the names torch reports.
_WRITING_OPERATORS = frozenset(
    {"__setitem__", "__set__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__idiv__"}
    | {"__ifloordiv__", "__imod__", "__ipow__", "__iand__", "__ior__", "__ixor__"}
    | {"__ilshift__", "__irshift__"}
)
#: Functions that end in an underscore and leave the elements alone.
_NOT_WRITING = frozenset({"requires_grad_", "retain_grad"})
#: Functions of tensors whose result shares no memory with them.
COPYING = frozenset({"clone", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones"})

#: They would be drawn once, when the kernel is traced, and be the same for every pair.
RANDOM = frozenset(
    {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like"}
    | {"normal", "bernoulli", "multinomial", "poisson", "binomial", "dropout"}
)

NOT_RANDOM = "Draw a tensor before the call and index it: noise[q_idx, kv_idx]."

_SCALARS = (Symbol, int, float, bool)

#: By identity, because the name of a torch function is no constant while dynamo traces.
FUNCTION_NAMES: Mapping[Callable[..., Any], str] = {
    function: name
    for name in (*ELEMENTWISE, *SPECIAL)
    for owner in (torch.Tensor, torch.nn.functional, torch)
    if callable(function := getattr(owner, name, None))
} | {torch.Tensor.where: "Tensor.where"}


class Tracer(Context):
    """Gives torch functions their meaning on symbols; remembers tensors that the mod made.

    ``takes_elements_only``: all that the mod did so far with tensors is to index them by symbols,
    one for each dimension.
    """

    __slots__ = ("made", "takes_elements_only")

    def __init__(self, slots: SlotTable, float_dtype: DType) -> None:
        super().__init__(slots, float_dtype, Symbol)
        self.made: dict[int, torch.Tensor] = {}
        self.takes_elements_only = True

    def run(self, fn: Callable[..., Any], args: tuple[Symbol, ...]) -> Any:
        """What ``fn`` returns on symbols."""
        with _Mode(self):
            return call_mod(fn, args)

    def knows(self, name: str) -> bool:
        return name in ELEMENTWISE or name in SPECIAL

    def value(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, np.ndarray):
            if value.ndim == 0:
                return value.item()
            raise refuse(
                f"a NumPy array of shape {value.shape}", "Convert it with torch.from_numpy(array)."
            )
        return value

    def _tensor(self, tensor: torch.Tensor) -> Symbol | Row:
        self.takes_elements_only = False
        if tensor.dim() > 0:
            return row_of(self, tensor)
        # A constant that the mod made itself is a constant of the kernel, not a captured tensor.
        if id(tensor) in self.made and tensor.device.type == "cpu" and not tensor.requires_grad:
            return cast(self, tensor.item(), load_dtype(tensor.dtype))
        return gather(self, tensor, ())

    def call(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if writes(name) or kwargs.get("out") is not None:
            raise in_place(name)
        try:
            if (special := SPECIAL.get(name)) is not None:
                if kwargs or not all(type(arg) in _SCALARS for arg in args):
                    self.takes_elements_only = False
                return special(self, *args, **kwargs)
            if (function := ELEMENTWISE.get(name)) is not None:
                values = tuple(self.value(arg) for arg in args)
                return lift(self, function, values, {k: self.value(v) for k, v in kwargs.items()})
        except TypeError as error:
            if isinstance(error, AttncError):
                raise
            advice = "Check the call against torch's documentation, or write it with arithmetic."
            operation = f"{spelling(name)} with arguments that it does not take"
            raise refuse(operation, advice) from error
        raise refuse(spelling(name), alternatives(name))


def spelling(name: str) -> str:
    return f"torch.{name}" if hasattr(torch, name) else f"Tensor.{name}"


def alternatives(name: str) -> str:
    names = supported_names()
    close = difflib.get_close_matches(name.strip("_"), names, n=3, cutoff=0.65)
    if not close:
        return "Write it with arithmetic, comparisons, torch.where and the functions of torch."
    return f"Close to it and supported: {', '.join(names[n] for n in close)}."


def writes(name: str) -> bool:
    """Whether the function of this name changes elements of its first argument."""
    if name in _WRITING_OPERATORS:
        return True
    return name.endswith("_") and not name.endswith("__") and name not in _NOT_WRITING


def in_place(operation: str) -> InPlaceOperationError:
    location = user_location()
    return InPlaceOperationError(location=location, source=location.source, operation=operation)


class _Mode(TorchFunctionMode):
    """Sends torch functions that meet symbols to the tracer, runs the others."""

    def __init__(self, context: Tracer) -> None:
        super().__init__()
        self.context = context

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.__getitem__ and (element := self._element(*args)) is not None:
            return element
        kwargs = kwargs or {}
        name = FUNCTION_NAMES.get(func) or func.__name__
        if _meets_symbol(args) or (kwargs and _meets_symbol(kwargs.values())):
            return self.context.call(name, args, kwargs)
        self.context.takes_elements_only = False
        if name in RANDOM:
            raise refuse(spelling(name), NOT_RANDOM)
        made = self.context.made
        if writes(name) or "out" in kwargs:
            target = kwargs.get("out", args[0] if args else None)
            if isinstance(target, torch.Tensor) and id(target) not in made:
                raise in_place(name)
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor) and (
            name in COPYING or not any(isinstance(arg, torch.Tensor) for arg in args)
        ):
            made[id(result)] = result
        return result

    def _element(self, tensor: torch.Tensor, key: Any) -> Symbol | None:
        """``tensor[key]`` if the key is one integer symbol per dimension; the common case."""
        positions = key if type(key) is tuple else (key,)
        for position in positions:
            if type(position) is not Symbol or not position.kind.is_int:
                return None
        if not isinstance(tensor, torch.Tensor) or tensor.dim() != len(positions):
            return None
        return gather(self.context, tensor, positions)


def _meets_symbol(values: Iterable[Any]) -> bool:
    for value in values:
        if isinstance(value, TracedValue):
            return True
        if isinstance(value, (tuple, list)) and _meets_symbol(value):
            return True
        if isinstance(value, slice) and _meets_symbol((value.start, value.stop, value.step)):
            return True
    return False
