"""Tracing while a graph is made: by torch.compile, where dynamo runs the tracer, or by export.

Tensors are not there yet, only their metadata, and sizes may be symbols. Such a number becomes a
``Param``; its value reaches the kernel beside the expression.

dynamo runs Python an instruction at a time, some 50 us each, and knows no interned nodes: whatever
a symbol stands for is written as a line of text at once, and the symbol holds a ``Ref`` to it.
It compares an object of a class of ours with a symbolic number by identity, silently, so there a
mod gets *stand-ins*: meta tensors, which a mode sees wherever they go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch.fx.experimental.symbolic_shapes import has_static_value
from torch.overrides import TorchFunctionMode

from attnc.ir import (
    Binary,
    Cast,
    Compare,
    Const,
    DType,
    Expr,
    Gather,
    Index,
    Level,
    Param,
    Reduce,
    Ref,
    RowIndex,
    Score,
    Select,
    Unary,
)
from attnc.trace.context import Context, refuse
from attnc.trace.graph_functions import (
    CONCRETE,
    COPYING_FUNCTIONS,
    IN_PLACE,
    NAMES,
    REFUSED,
    WRITING,
)
from attnc.trace.lines import shown_lines
from attnc.trace.promotion import cast
from attnc.trace.rows import gather
from attnc.trace.slots import INT32, SlotTable, load_dtype
from attnc.trace.symbols import Row, Symbol
from attnc.trace.tracer import (
    NOT_RANDOM,
    Tracer,
    alternatives,
    in_place,
    spelling,
)

_NO_NUMBER = (
    "Compute with the value itself: torch.sqrt for math.sqrt, .float() for float(), a tensor for a "
    "list that it is to index."
)
_NOT_IN_PLACE = "Write x = x + y in place of x += y."
_HIDDEN = "Use operators, methods as x.abs(), and functions as torch.where."


class GraphSlots(SlotTable):
    """The captured tensors of a graph, told apart by identity, and its symbolic numbers.

    ``numbers``: the values of ``Param``s, by number.
    """

    __slots__ = ("numbers",)

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.numbers: list[int | torch.SymInt] = []

    def slot_of(self, tensor: torch.Tensor) -> int:
        for slot, known in enumerate(self.tensors):
            if known is tensor:
                return slot
        load_dtype(tensor.dtype)
        self.tensors.append(tensor)
        return len(self.tensors) - 1


class GraphTracer(Tracer):
    """Writes expressions as lines; takes numbers that only a run knows for kernel arguments."""

    __slots__ = ("lines", "met_stand_in", "numbers", "own", "spent", "symbols")

    def __init__(self, slots: GraphSlots, float_dtype: DType) -> None:
        super().__init__(slots, float_dtype)
        self.symbol = _symbol
        self.numbers = slots.numbers
        self.lines: list[str] = []
        self.symbols: dict[torch.Tensor, Symbol | Row] = {}
        self.met_stand_in = False
        self.own: dict[torch.Tensor, bool] = {}  # tensors that the mod made
        self.spent: list[torch.Tensor] = []  # stand-ins that an operation has overwritten

    def run(self, fn: Callable[..., Any], args: tuple[Symbol, ...]) -> Any:
        if not torch.compiler.is_dynamo_compiling():
            return super().run(fn, args)
        stand_ins = tuple([self.stand_in(arg) for arg in args])
        with _StandInMode(self):
            result = fn(*stand_ins)
        return self.symbolic(result)

    def stand_in(self, value: Any) -> Any:
        """A tensor in place of a symbol or row; all else as it is."""
        if isinstance(value, (Symbol, Row)):
            # dynamo shows the next line, with its last words, where a mod branches on a stand-in.
            # fmt: off
            tensor = torch.empty(value.shape, dtype=value.dtype, device="meta")  # known only inside the kernel: use torch.where(condition, a, b) for a choice, torch.minimum and torch.maximum for min and max, (a <= x) & (x < b) for a <= x < b, and & | ~ for and, or, not
            # fmt: on
            self.symbols[tensor] = value
            return tensor
        if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
            return tuple([self.stand_in(item) for item in value])
        return value

    def symbolic(self, value: Any) -> Any:
        """What a stand-in stands for; all else as it is."""
        if isinstance(value, torch.Tensor):
            known = self.symbols.get(value)
            if known is None and value.device.type == "meta":
                raise refuse("A function that torch.compile hides, as abs(x),", _HIDDEN)
            if known is None:
                return value
            self.met_stand_in = True
            for spent in self.spent:
                if spent is value:
                    raise refuse("The old value of what was changed in place", _NOT_IN_PLACE)
            return known
        if isinstance(value, (tuple, list)):
            return tuple([self.symbolic(item) for item in value])
        if isinstance(value, slice):
            return slice(
                self.symbolic(value.start), self.symbolic(value.stop), self.symbolic(value.step)
            )
        return value

    def value(self, value: Any) -> Any:
        if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
            value = value.item()  # dynamo's numbers of NumPy are arrays, their items symbolic
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value if has_static_value(value) else self._symbolic(value)
        if isinstance(value, (torch.SymInt, torch.SymFloat)):
            return self._symbolic(value)
        return super().value(value)

    def _symbolic(self, value: Any) -> Symbol:
        if isinstance(value, (int, torch.SymInt)):
            return _symbol(self, self._param(value, INT32), INT32)
        # An argument that is a float would be a constant of the graph. This product is none.
        number = torch.ones((), dtype=torch.float64, device=self.slots.device) * value
        return cast(self, gather(self, number, ()), self.float_dtype)

    def _param(self, value: int | torch.SymInt, dtype: DType) -> Param:
        self.numbers.append(value)
        return Param(len(self.numbers) - 1, dtype)

    def _tensor(self, tensor: torch.Tensor) -> Symbol | Row:
        return super()._tensor(tensor) if tensor.dim() else gather(self, tensor, ())

    def shown(self, expr: Expr) -> str:
        text: str = shown_lines(self.text(expr))
        return text

    def text(self, root: Expr) -> str:
        """All lines, and the name of the one that is the value."""
        name = self.named(root)
        return "\n".join([*self.lines, name])

    def named(self, expr: Expr) -> str:
        """The name of the line that computes ``node``, which is written if it is new."""
        node: Any = expr
        kind = type(node)
        # A chain of `is`: dynamo pays for every call and every pattern.
        if kind is Ref:
            return str(node.name)
        if kind is Binary:
            line = f"Binary {node.op.name} {self.named(node.lhs)} {self.named(node.rhs)}"
        elif kind is Compare:
            line = f"Compare {node.op.name} {self.named(node.lhs)} {self.named(node.rhs)}"
        elif kind is Index:
            line = f"Index {node.name.name}"
        elif kind is Const:
            value, dtype = node.value, node.value_dtype
            if not isinstance(value, bool) and not has_static_value(value):
                return self.named(self._param(value, dtype))
            line = f"Const {dtype.name} {value!r}"
        elif kind is Gather:
            line = f"Gather {node.load_dtype.name} {node.slot}"
            for index in node.indices:
                line += f" {self.named(index)}"
        elif kind is Unary:
            line = f"Unary {node.op.name} {self.named(node.x)}"
        elif kind is Select:
            branches = f"{self.named(node.if_true)} {self.named(node.if_false)}"
            line = f"Select {self.named(node.cond)} {branches}"
        elif kind is Cast:
            line = f"Cast {node.to.name} {self.named(node.x)}"
        elif kind is Score:
            line = f"Score {node.float_dtype.name}"
        elif kind is Param:
            line = f"Param {node.value_dtype.name} {node.number}"
        elif kind is RowIndex:
            line = f"RowIndex {node.number}"
        elif kind is Reduce:
            line = f"Reduce {node.op.name} {node.number} {node.extent} {self.named(node.body)}"
        else:
            raise AssertionError(node)
        name = f"x{len(self.lines)}"
        self.lines.append(line)
        return name


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # PyTorch's
def _unknown(function: Callable[..., Any]) -> tuple[str, str]:
    """How users write a function that kernels lack, and what to write instead."""
    return spelling(function.__name__), alternatives(function.__name__)


class _StandInMode(TorchFunctionMode):
    """Sends torch functions that meet stand-ins to the tracer, leaves the others to the graph."""

    def __init__(self, tracer: GraphTracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        tracer = self.tracer
        tracer.met_stand_in = False
        values = tracer.symbolic(args)
        named = {name: tracer.symbolic(value) for name, value in kwargs.items()} if kwargs else {}
        # Of functions written in Python dynamo knows the name, of others the identity.
        is_python = isinstance(func, FunctionType)
        if not tracer.met_stand_in:
            if not is_python and func in REFUSED:
                raise refuse(f"torch.{REFUSED[func]}", NOT_RANDOM)
            return self._on_captured(func, args, kwargs)
        if not is_python and func in CONCRETE:
            values[0]._concrete("a Python number", _NO_NUMBER)  # raises
        name = func.__name__ if is_python else NAMES.get(func)
        if name == "pow_" or (name is None and func in IN_PLACE):
            name = "pow" if name == "pow_" else IN_PLACE[func]
            tracer.spent.append(args[0])
        if name is None:
            raise refuse(*(_unknown(func) if not is_python else (func.__name__, _HIDDEN)))
        return tracer.stand_in(tracer.call(name, values, named))

    def _on_captured(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """The result of a function of captured tensors, which stay as they are."""
        own = self.tracer.own
        is_python = isinstance(func, FunctionType)
        if "out" in kwargs or (not is_python and func in WRITING):
            target = kwargs["out"] if "out" in kwargs else args[0]
            if isinstance(target, torch.Tensor) and target not in own:
                raise in_place(func.__name__ if is_python else WRITING.get(func, "out"))
        result = func(*args, **kwargs)
        is_new = not is_python and func in COPYING_FUNCTIONS
        if not is_new:
            is_new = not any(isinstance(arg, torch.Tensor) for arg in args)
        if is_new and isinstance(result, torch.Tensor):
            own[result] = True
        return result


def _symbol(context: Context, expr: Expr, kind: DType) -> Symbol:
    assert isinstance(context, GraphTracer)
    if not isinstance(expr, (Const, Ref)):
        expr = Ref(context.named(expr), kind, Level.ELEMENT)
    return Symbol(context, expr, kind)
