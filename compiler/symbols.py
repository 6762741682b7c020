"""Stand-ins for scalars and rows while a mod is traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import torch

from attnc.errors import (
    BranchOnTracedValueError,
    ConcreteValueError,
    InPlaceOperationError,
    UnsupportedOperationError,
)
from attnc.ir import Binary, BinaryOp, Compare, CompareOp, Const, DType, Expr, Unary, UnaryOp
from attnc.printer import format_expr
from attnc.slots import (
    BOOL,
    FLOAT32,
    FLOAT64,
    INT32,
    INT32_MAX,
    INT64,
    TORCH_DTYPES,
    SlotTable,
)
from attnc.trace_location import user_location


class Context:
    """One run of a mod on symbols; ``call`` gives torch functions their meaning.

    ``symbol`` wraps an expression; ``depth`` counts the open reductions.
    """

    __slots__ = ("depth", "float_dtype", "slots", "symbol")

    def __init__(self, slots: SlotTable, float_dtype: DType) -> None:
        self.slots = slots
        self.float_dtype = float_dtype
        self.depth = 0
        self.symbol: Callable[[Context, Expr, DType], Symbol] = Symbol

    def call(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The torch function ``name`` on numbers, tensors, symbols and rows."""
        raise NotImplementedError

    def value(self, value: Any) -> Any:
        """Tensors as symbols or rows, NumPy scalars as Python numbers, the rest unchanged."""
        raise NotImplementedError

    def knows(self, name: str) -> bool:
        """Whether ``call`` accepts ``name``."""
        raise NotImplementedError


#: Types an operator does not take over, so that Python reports them as it does for tensors.
_FOREIGN = (str, bytes, list, tuple, dict, set, type(None))
_NO_KWARGS: Mapping[str, Any] = {}


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
        raise refuse(f"torch function {func.__name__} outside of the traced function", "")

    def describe(self) -> str:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        if name == "context" or name.startswith("__") or not hasattr(torch.Tensor, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        method = "Tensor.where" if name == "where" else name
        if not self.context.knows(method):
            self.context.call(method, (self,), _NO_KWARGS)  # raises, naming alternatives
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
            "a float", "Use torch.sqrt, torch.exp, ... in place of math functions, .float() for it."
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
        return self.context.call("__getitem__", (self, index), _NO_KWARGS)

    def __matmul__(self, other: Any) -> Any:
        return self.context.call("matmul", (self, other), _NO_KWARGS)

    def __rmatmul__(self, other: Any) -> Any:
        return self.context.call("matmul", (other, self), _NO_KWARGS)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __neg__(self) -> Any:
        return self.context.call("neg", (self,), _NO_KWARGS)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return self.context.call("abs", (self,), _NO_KWARGS)

    def __invert__(self) -> Any:
        return self.context.call("bitwise_not", (self,), _NO_KWARGS)

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


def _both(name: str) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
    """Forward and reflected operator that ask the table of torch functions."""

    def forward(self: TracedValue, other: Any) -> Any:
        if isinstance(other, _FOREIGN):
            return NotImplemented
        return self.context.call(name, (self, other), _NO_KWARGS)

    def reflected(self: TracedValue, other: Any) -> Any:
        if isinstance(other, _FOREIGN):
            return NotImplemented
        return self.context.call(name, (other, self), _NO_KWARGS)

    return forward, reflected


def _arithmetic(
    op: BinaryOp, name: str, kinds: tuple[DType, ...]
) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
    """As ``_both``, with a short way for two symbols of one dtype in ``kinds`` and for small ints.

    The short way matters: mods are traced anew at every call of a kernel.
    """
    general, general_reflected = _both(name)
    takes_int = INT32 in kinds

    def forward(self: Symbol, other: Any) -> Any:
        kind = self.kind
        if type(other) is Symbol:
            if other.kind is kind and kind in kinds:
                context = self.context
                return context.symbol(context, Binary(op, self.expr, other.expr), kind)
        elif type(other) is int and kind is INT32 and takes_int and -INT32_MAX <= other < INT32_MAX:
            context = self.context
            return context.symbol(context, Binary(op, self.expr, Const(other, INT32)), kind)
        return general(self, other)

    def reflected(self: Symbol, other: Any) -> Any:
        if (
            type(other) is int
            and self.kind is INT32
            and takes_int
            and -INT32_MAX <= other < INT32_MAX
        ):
            context = self.context
            return context.symbol(context, Binary(op, Const(other, INT32), self.expr), INT32)
        return general_reflected(self, other)

    return forward, reflected


def _comparison(op: CompareOp, name: str) -> Callable[[Any, Any], Any]:
    general, _ = _both(name)

    def compare(self: Symbol, other: Any) -> Any:
        if type(other) is Symbol:
            if other.kind is self.kind:
                context = self.context
                return context.symbol(context, Compare(op, self.expr, other.expr), BOOL)
        elif type(other) is int and self.kind is INT32 and -INT32_MAX <= other < INT32_MAX:
            context = self.context
            return context.symbol(context, Compare(op, self.expr, Const(other, INT32)), BOOL)
        return general(self, other)

    return compare


_NUMBERS = (INT32, INT64, FLOAT32, FLOAT64)
_INTEGERS = (INT32, INT64)
_BITS = (BOOL, INT32, INT64)


class Symbol(TracedValue):
    """Stand-in for a 0-dim tensor: an expression and its dtype."""

    __slots__ = ("expr", "kind")

    def __init__(self, context: Context, expr: Expr, kind: DType) -> None:
        self.context = context
        self.expr = expr
        self.kind = kind

    __add__, __radd__ = _arithmetic(BinaryOp.ADD, "add", _NUMBERS)
    __sub__, __rsub__ = _arithmetic(BinaryOp.SUB, "sub", _NUMBERS)
    __mul__, __rmul__ = _arithmetic(BinaryOp.MUL, "mul", _NUMBERS)
    __truediv__, __rtruediv__ = _arithmetic(BinaryOp.DIV, "div", (FLOAT32, FLOAT64))
    __floordiv__, __rfloordiv__ = _arithmetic(BinaryOp.FLOORDIV, "floor_divide", _NUMBERS)
    __mod__, __rmod__ = _arithmetic(BinaryOp.MOD, "remainder", _NUMBERS)
    __and__, __rand__ = _arithmetic(BinaryOp.AND, "bitwise_and", _BITS)
    __or__, __ror__ = _arithmetic(BinaryOp.OR, "bitwise_or", _BITS)
    __xor__, __rxor__ = _arithmetic(BinaryOp.XOR, "bitwise_xor", _BITS)
    __lshift__, __rlshift__ = _arithmetic(BinaryOp.SHL, "bitwise_left_shift", _INTEGERS)
    __rshift__, __rrshift__ = _arithmetic(BinaryOp.SHR, "bitwise_right_shift", _INTEGERS)
    __pow__, __rpow__ = _both("pow")
    __eq__ = _comparison(CompareOp.EQ, "eq")
    __ne__ = _comparison(CompareOp.NE, "ne")
    __lt__ = _comparison(CompareOp.LT, "lt")
    __le__ = _comparison(CompareOp.LE, "le")
    __gt__ = _comparison(CompareOp.GT, "gt")
    __ge__ = _comparison(CompareOp.GE, "ge")
    __hash__ = object.__hash__

    def __invert__(self) -> Any:
        if self.kind in _BITS:
            return self.context.symbol(self.context, Unary(UnaryOp.NOT, self.expr), self.kind)
        return self.context.call("bitwise_not", (self,), _NO_KWARGS)

    def describe(self) -> str:
        return f"`{format_expr(self.expr, max_length=100)}`"

    def __repr__(self) -> str:
        return f"Symbol({format_expr(self.expr, max_length=100)}, {self.kind.value})"

    def __len__(self) -> NoReturn:  # noqa: PLE0303  (raises)
        self._concrete("a sequence", "It is one number.")

    def __iter__(self) -> NoReturn:
        self._concrete("a sequence", "It is one number.")

    @property
    def dtype(self) -> torch.dtype:
        return TORCH_DTYPES[self.kind]

    @property
    def shape(self) -> torch.Size:
        return torch.Size(())


class Row(TracedValue):
    """Stand-in for a tensor with dimensions: ``at`` gives its element at a tuple of indices.

    Nothing is computed until an element is taken or a dimension is reduced. ``wraps`` tells
    whether ``at`` itself takes a negative symbolic index to count from the end.
    """

    __slots__ = ("at", "sizes", "wraps")

    def __init__(
        self,
        context: Context,
        sizes: Sequence[int],
        at: Callable[[tuple[Any, ...]], Symbol],
        wraps: bool = False,
    ) -> None:
        self.context = context
        self.sizes = tuple(sizes)
        self.at = at
        self.wraps = wraps

    __add__, __radd__ = _both("add")
    __sub__, __rsub__ = _both("sub")
    __mul__, __rmul__ = _both("mul")
    __truediv__, __rtruediv__ = _both("div")
    __floordiv__, __rfloordiv__ = _both("floor_divide")
    __mod__, __rmod__ = _both("remainder")
    __and__, __rand__ = _both("bitwise_and")
    __or__, __ror__ = _both("bitwise_or")
    __xor__, __rxor__ = _both("bitwise_xor")
    __lshift__, __rlshift__ = _both("bitwise_left_shift")
    __rshift__, __rrshift__ = _both("bitwise_right_shift")
    __pow__, __rpow__ = _both("pow")
    __eq__ = _both("eq")[0]
    __ne__ = _both("ne")[0]
    __lt__ = _both("lt")[0]
    __le__ = _both("le")[0]
    __gt__ = _both("gt")[0]
    __ge__ = _both("ge")[0]
    __hash__ = object.__hash__

    def describe(self) -> str:
        return f"a row of shape {self.sizes}"

    def __repr__(self) -> str:
        return f"Row(shape={self.sizes})"

    def __len__(self) -> int:
        return self.sizes[0]

    def __iter__(self) -> Iterator[Any]:
        return iter([self[i] for i in range(self.sizes[0])])

    @property
    def dtype(self) -> torch.dtype:
        return self.at((0,) * len(self.sizes)).dtype

    @property
    def shape(self) -> torch.Size:
        return torch.Size(self.sizes)
