"""Stand-ins for scalars and rows while a mod is traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import torch

from attnc.ir import Binary, BinaryOp, Compare, CompareOp, Const, DType, Expr, Unary, UnaryOp
from attnc.printer import format_expr
from attnc.trace.context import NO_KWARGS, Context, TracedValue, both
from attnc.trace.slots import BOOL, FLOAT32, FLOAT64, INT32, INT32_MAX, INT64, TORCH_DTYPES


def _arithmetic(
    op: BinaryOp, name: str, kinds: tuple[DType, ...]
) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
    """As ``_both``, with a short way for two symbols of one dtype in ``kinds`` and for small ints.

    The short way matters: mods are traced anew at every call of a kernel.
    """
    general, general_reflected = both(name)
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
    general, _ = both(name)

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
    __pow__, __rpow__ = both("pow")
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
        return self.context.call("bitwise_not", (self,), NO_KWARGS)

    def describe(self) -> str:
        return f"`{self.context.shown(self.expr)}`"

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

    __add__, __radd__ = both("add")
    __sub__, __rsub__ = both("sub")
    __mul__, __rmul__ = both("mul")
    __truediv__, __rtruediv__ = both("div")
    __floordiv__, __rfloordiv__ = both("floor_divide")
    __mod__, __rmod__ = both("remainder")
    __and__, __rand__ = both("bitwise_and")
    __or__, __ror__ = both("bitwise_or")
    __xor__, __rxor__ = both("bitwise_xor")
    __lshift__, __rlshift__ = both("bitwise_left_shift")
    __rshift__, __rrshift__ = both("bitwise_right_shift")
    __pow__, __rpow__ = both("pow")
    __eq__ = both("eq")[0]
    __ne__ = both("ne")[0]
    __lt__ = both("lt")[0]
    __le__ = both("le")[0]
    __gt__ = both("gt")[0]
    __ge__ = both("ge")[0]
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
