"""What symbols and rows have in common, and the tracer as they see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch

from attnc.errors import (
    BranchOnTracedValueError,
    ConcreteValueError,
    InPlaceOperationError,
    MissingAttributeError,
    UnsupportedOperationError,
)
from attnc.ir import DType, Expr
from attnc.printer import format_expr
from attnc.trace.location import user_location
from attnc.trace.slots import SlotTable

#: Wraps an expression of a dtype.
MakeSymbol = Callable[["Context", Expr, DType], Any]


class Context:
    """One run of a mod on symbols; ``call`` gives torch functions their meaning.

    ``symbol`` wraps an expression; ``depth`` counts the open reductions.
    """

    __slots__ = ("depth", "float_dtype", "slots", "symbol")

    def __init__(self, slots: SlotTable, float_dtype: DType, symbol: MakeSymbol) -> None:
        self.slots = slots
        self.float_dtype = float_dtype
        self.symbol = symbol
        self.depth = 0

    def call(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The torch function ``name`` on numbers, tensors, symbols and rows."""
        raise NotImplementedError

    def shown(self, expr: Expr) -> str:
        """``expr`` for a message, shortened."""
        return format_expr(expr, max_length=100)

    def value(self, value: Any) -> Any:
        """Tensors as symbols or rows, NumPy scalars as Python numbers, the rest unchanged."""
        raise NotImplementedError

    def knows(self, name: str) -> bool:
        """Whether ``call`` accepts ``name``."""
        raise NotImplementedError


#: Types an operator does not take over, so that Python reports them as it does for tensors.
_FOREIGN = (str, bytes, list, tuple, dict, set, type(None))
NO_KWARGS: Mapping[str, Any] = {}


class TracedValue:
    """Operators and methods shared by ``Symbol`` and ``Row``."""

    __slots__ = ("context",)
    __array_ufunc__ = None  # else NumPy makes object arrays of them
    context: Context

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        # Reached only without the tracer's mode, by a symbol that outlived its trace.
        operation = f"torch function {func.__name__} outside of the traced function"
        raise refuse(operation, "Use indices and scores only inside the function that gets them.")

    def describe(self) -> str:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        if name == "context" or name.startswith("__") or not hasattr(torch.Tensor, name):
            if torch.compiler.is_dynamo_compiling():  # it follows no errors of a class of ours
                raise AttributeError(name)
            raise MissingAttributeError(name=name)
        method = "Tensor.where" if name == "where" else name
        if not self.context.knows(method):
            self.context.call(method, (self,), NO_KWARGS)  # raises, naming alternatives
        return lambda *args, **kwargs: self.context.call(method, (self, *args), kwargs)

    def __bool__(self) -> NoReturn:
        location = user_location()
        raise BranchOnTracedValueError(
            location=location, source=location.source, expr=self.describe()
        )

    def _concrete(self, wanted: str, instead: str) -> NoReturn:
        location = user_location()
        raise ConcreteValueError(
            location=location,
            source=location.source,
            expr=self.describe(),
            wanted=wanted,
            instead=instead,
        )

    def __int__(self) -> NoReturn:
        self._concrete("an int", "Use .to(torch.int32), or torch.floor.")

    def __float__(self) -> NoReturn:
        self._concrete(
            "a float",
            "Use torch.sqrt, torch.exp, ... in place of math functions, .float() for float().",
        )

    def __complex__(self) -> NoReturn:
        self._concrete("a complex number", "Kernels compute with real numbers.")

    def __index__(self) -> NoReturn:  # noqa: PLE0305  (raises)
        self._concrete(
            "an integer index",
            "Lists and ranges cannot be indexed or sized by it: make a tensor of the list, "
            "torch.tensor(values), and index that.",
        )

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._concrete(
            "a NumPy array",
            "NumPy arrays cannot be indexed by it or computed with it: use torch.from_numpy(array) "
            "and torch functions.",
        )

    def item(self) -> NoReturn:
        self._concrete("a Python number", "Compute with the value itself, without .item().")

    def tolist(self) -> NoReturn:
        self._concrete("a Python list", "Compute with the value itself, without .tolist().")

    def numpy(self, *args: Any, **kwargs: Any) -> NoReturn:
        self.__array__()

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        location = user_location()
        raise InPlaceOperationError(
            location=location, source=location.source, operation="assignment to an element"
        )

    def __getitem__(self, index: Any) -> Any:
        return self.context.call("__getitem__", (self, index), NO_KWARGS)

    def __matmul__(self, other: Any) -> Any:
        return self.context.call("matmul", (self, other), NO_KWARGS)

    def __rmatmul__(self, other: Any) -> Any:
        return self.context.call("matmul", (other, self), NO_KWARGS)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __neg__(self) -> Any:
        return self.context.call("neg", (self,), NO_KWARGS)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return self.context.call("abs", (self,), NO_KWARGS)

    def __invert__(self) -> Any:
        return self.context.call("bitwise_not", (self,), NO_KWARGS)

    def __round__(self, ndigits: int | None = None) -> Any:
        return self.context.call("round", (self,), {"decimals": ndigits or 0})

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    @property
    def dtype(self) -> torch.dtype:
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        return self.context.slots.device

    @property
    def shape(self) -> torch.Size:
        raise NotImplementedError

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def data(self) -> Any:
        return self

    @property
    def requires_grad(self) -> bool:
        return False

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def dim(self) -> int:
        return len(self.shape)

    def numel(self) -> int:
        return self.shape.numel()

    nelement = numel
    ndimension = dim

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def is_floating_point(self) -> bool:
        return self.dtype.is_floating_point


def refuse(operation: str, instead: str) -> UnsupportedOperationError:
    """The error for an operation that kernels lack, at the user's current line."""
    location = user_location()
    return UnsupportedOperationError(
        location=location, source=location.source, operation=operation, instead=instead
    )


def both(name: str) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
    """Forward and reflected operator that ask the table of torch functions."""

    def forward(self: TracedValue, other: Any) -> Any:
        if isinstance(other, _FOREIGN):
            return NotImplemented
        return self.context.call(name, (self, other), NO_KWARGS)

    def reflected(self: TracedValue, other: Any) -> Any:
        if isinstance(other, _FOREIGN):
            return NotImplemented
        return self.context.call(name, (other, self), NO_KWARGS)

    return forward, reflected
