"""From a Python function to an expression: the function is run once on symbols.

No source is needed. ``_Mode`` sees every torch function that the mod calls: those that meet a
symbol get their meaning from the tables in ``operators``, ``activations`` and
``special``; those of captured tensors alone just run, and their results are captured.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from attnc.errors import (
    AttncError,
    ConcreteValueError,
    InPlaceOperationError,
    ModCallError,
    ModReturnError,
    TooLongModError,
    UnsupportedOperationError,
)
from attnc.ir import B_IDX, H_IDX, KV_IDX, Q_IDX, Const, DType, Expr, Leaf, Score, walk
from attnc.printer import format_expr
from attnc.trace import activations, extremes  # noqa: F401  (they fill the table of functions)
from attnc.trace.context import Context, TracedValue, refuse
from attnc.trace.location import Location, call_mod, raised_at, user_location
from attnc.trace.memory import recall, recipe_of, remember
from attnc.trace.operators import ELEMENTWISE
from attnc.trace.promotion import cast, convert
from attnc.trace.rows import gather, lift, row_of
from attnc.trace.slots import BOOL, FLOAT32, INT32, SlotTable, load_dtype
from attnc.trace.special import SPECIAL, supported_names
from attnc.trace.symbols import Row, Symbol

__all__ = ["Location", "SlotTable", "Traced", "trace_mask", "trace_score"]

#: Of one mod: compilers take some 4 ms for each.
MOST_NODES = 8192
# What was counted, while it lives: a mod is traced at each call.
_short: WeakSet[Expr] = WeakSet()

_NO_LOCATIONS: Mapping[Expr, Location] = MappingProxyType({})
#: Operators that write into their left side, under the names torch reports.
_WRITING_OPERATORS = frozenset(
    {"__setitem__", "__set__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__idiv__"}
    | {"__ifloordiv__", "__imod__", "__ipow__", "__iand__", "__ior__", "__ixor__"}
    | {"__ilshift__", "__irshift__"}
)
#: Functions that end in an underscore and leave the elements alone.
_NOT_WRITING = frozenset({"requires_grad_", "retain_grad"})
#: Functions of tensors whose result shares no memory with them.
_COPYING = frozenset({"clone", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones"})

#: They would be drawn once, when the kernel is traced, and be the same for every pair.
RANDOM = frozenset(
    {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like"}
    | {"normal", "bernoulli", "multinomial", "poisson", "binomial", "dropout"}
)

_SCALARS = (Symbol, int, float, bool)

#: By identity, because the name of a torch function is no constant while dynamo traces.
FUNCTION_NAMES: Mapping[Callable[..., Any], str] = {
    function: name
    for name in (*ELEMENTWISE, *SPECIAL)
    for owner in (torch.Tensor, torch.nn.functional, torch)
    if callable(function := getattr(owner, name, None))
} | {torch.Tensor.where: "Tensor.where"}


class Traced(NamedTuple):
    """What a mod computes, and the line that first made each node where that was asked for."""

    expr: Expr
    locations: Mapping[Expr, Location]


def trace_mask(
    fn: Callable[..., Any],
    slots: SlotTable,
    *,
    with_locations: bool = False,
    tracer: Tracer | None = None,
) -> Traced:
    """The bool expression that ``fn(b, h, q_idx, kv_idx)`` computes.

    Floats that no tensor gives a width are float32. Captured tensors are added to ``slots``.
    ``tracer`` runs it in place of the usual one.

    Raises:
        TraceError: ``fn`` does something a kernel cannot do; the subclass tells what.
        UnsupportedDTypeError: a captured tensor cannot be read by kernels.
        Exception: whatever ``fn`` itself raises.
    """
    recipe = None
    if not (with_locations or tracer or torch.compiler.is_dynamo_compiling()):
        recipe = recipe_of(fn, slots, None, FUNCTION_NAMES)
        if recipe is not None and (expr := recall(recipe, slots)) is not None:
            return Traced(expr, _NO_LOCATIONS)
    context = tracer or Tracer(slots, FLOAT32)
    result, locations = _run(context, fn, "mask_mod", (), with_locations)
    if isinstance(result, (bool, np.bool_)):
        return Traced(Const(bool(result), BOOL), locations)
    if isinstance(result, Symbol) and result.kind is BOOL:
        if recipe is not None and context.takes_elements_only:
            remember(recipe, result.expr, slots)
        return Traced(result.expr, locations)
    if isinstance(result, Symbol):
        text = format_expr(result.expr, max_length=100)
        raise _bad_return(
            fn,
            "mask_mod",
            f"the {result.kind.value} value `{text}`",
            "Compare it, as in `... != 0`; a score_mod is passed as such.",
        )
    raise _bad_return(fn, "mask_mod", _kind_of(result), _hint(result))


def trace_score(
    fn: Callable[..., Any],
    slots: SlotTable,
    float_dtype: DType = FLOAT32,
    *,
    with_locations: bool = False,
    tracer: Tracer | None = None,
) -> Traced:
    """The expression that ``fn(score, b, h, q_idx, kv_idx)`` computes, as ``float_dtype``.

    Raises:
        TraceError: as for ``trace_mask``.
    """
    recipe = None
    if not (with_locations or tracer or torch.compiler.is_dynamo_compiling()):
        recipe = recipe_of(fn, slots, float_dtype, FUNCTION_NAMES)
        if recipe is not None and (expr := recall(recipe, slots)) is not None:
            return Traced(expr, _NO_LOCATIONS)
    context = tracer or Tracer(slots, float_dtype)
    score = context.symbol(context, Score(float_dtype), float_dtype)
    result, locations = _run(context, fn, "score_mod", (score,), with_locations)
    if isinstance(result, (bool, int, float, Symbol)):
        expr = convert(context, result, float_dtype)
        if recipe is not None and context.takes_elements_only:
            remember(recipe, expr, slots)
        return Traced(expr, locations)
    raise _bad_return(fn, "score_mod", _kind_of(result), _hint(result))


def _run(
    context: Tracer,
    fn: Callable[..., Any],
    kind: str,
    first: tuple[Symbol, ...],
    with_locations: bool,
) -> tuple[Any, Mapping[Expr, Location]]:
    """What ``fn`` returns on symbols, tensors of it as symbols or rows."""
    locations = _NO_LOCATIONS
    if with_locations:
        recorded: dict[Expr, Location] = {}
        locations = recorded
        context.symbol = _recording_symbol(recorded)
    symbol = context.symbol
    args = (
        *first,
        symbol(context, B_IDX, INT32),
        symbol(context, H_IDX, INT32),
        symbol(context, Q_IDX, INT32),
        symbol(context, KV_IDX, INT32),
    )
    try:
        result = context.run(fn, args)
    except TypeError as error:
        if "__array_ufunc__" in str(error):  # np.exp(q_idx): NumPy itself refuses
            raise _numpy_function(error) from error
        if not isinstance(error, AttncError) and ("Symbol" in str(error) or "'Row'" in str(error)):
            raise _foreign_operand(error) from error
        raise _signature_error(fn, kind, args, error) from error
    value = result if type(result) is Symbol else context.value(result)
    if isinstance(value, Symbol) and not torch.compiler.is_dynamo_compiling():
        _require_short(fn, kind, value.expr)
    return value, locations


def _require_short(fn: Any, kind: str, expr: Expr) -> None:
    if expr in _short:
        return
    n_nodes = sum(1 for _ in walk(expr))
    if n_nodes > MOST_NODES:
        raise TooLongModError(name=_name(fn), n_nodes=n_nodes, kind=kind, most=MOST_NODES)
    _short.add(expr)


def _recording_symbol(locations: dict[Expr, Location]) -> Callable[[Context, Expr, DType], Symbol]:
    def symbol(context: Context, expr: Expr, kind: DType) -> Symbol:
        if not isinstance(expr, Leaf) and expr not in locations:
            location = user_location()
            stack = [expr]
            while stack:
                node = stack.pop()
                if isinstance(node, Leaf) or node in locations:
                    continue
                locations[node] = location
                stack.extend(node.children)
        return Symbol(context, expr, kind)

    return symbol


def _name(fn: Any) -> str:
    return getattr(fn, "__qualname__", None) or f"a {type(fn).__name__}"


def _signature_error(fn: Any, kind: str, args: tuple[Any, ...], error: TypeError) -> TypeError:
    """An error about the parameters of ``fn``, or ``error`` if they fit."""
    first = "score, " if kind == "score_mod" else ""
    call = f"({first}b, h, q_idx, kv_idx)"
    if not callable(fn):
        reason = "it is not a function"
    else:
        try:
            inspect.signature(fn).bind(*args)
        except TypeError as mismatch:
            reason = str(mismatch)
        except ValueError:
            return error  # a builtin that does not tell its parameters
        else:
            return error
    return ModCallError(name=_name(fn), kind=kind, call=call, reason=reason)


def _foreign_operand(error: TypeError) -> UnsupportedOperationError:
    """Python's error about a value of the user's that meets a symbol, in words of the user's."""
    location = raised_at(error)
    text = (
        str(error).replace("'Symbol'", "an index or a score").replace("'Row'", "a row of a tensor")
    )
    return UnsupportedOperationError(
        location=location,
        source=location.source,
        operation=f"what Python cannot do ({text})",
        instead="Use numbers, bools, tensors and what is computed from them.",
    )


def _numpy_function(error: TypeError) -> ConcreteValueError:
    location = raised_at(error)
    return ConcreteValueError(
        location=location,
        source=location.source,
        expr="an index or a score",
        wanted="a NumPy array",
        instead="Use the function of torch in place of NumPy's, torch.exp for np.exp.",
    )


def _bad_return(fn: Any, kind: str, got: str, instead: str) -> ModReturnError:
    wanted = "a bool" if kind == "mask_mod" else "a number"
    return ModReturnError(name=_name(fn), kind=kind, got=got, wanted=wanted, instead=instead)


def _kind_of(result: Any) -> str:
    match result:
        case None:
            return "None"
        case Row():
            return f"a tensor of shape {result.sizes}"
        case bool() | int() | float():
            return f"the {type(result).__name__} {result}"
        case _:
            return f"a {type(result).__name__}"


def _hint(result: Any) -> str:
    match result:
        case None:
            return "Add the missing `return`."
        case Row():
            return "Index it with b, h, q_idx or kv_idx, or reduce it with .sum(), .max() or torch.dot."
        case bool() | int() | float():
            return "Compare it, as in `... != 0`."
        case _:
            return "Return one value."


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
        if name in _WRITING_OPERATORS or _writes(name) or kwargs.get("out") is not None:
            raise _in_place(name)
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
            operation = f"{_spelling(name)} with arguments that it does not take"
            raise refuse(operation, advice) from error
        raise refuse(_spelling(name), _alternatives(name))


def _spelling(name: str) -> str:
    return f"torch.{name}" if hasattr(torch, name) else f"Tensor.{name}"


def _alternatives(name: str) -> str:
    names = supported_names()
    close = difflib.get_close_matches(name.strip("_"), names, n=3, cutoff=0.65)
    if not close:
        return "Write it with arithmetic, comparisons, torch.where and the functions of torch."
    return f"Close to it and supported: {', '.join(names[n] for n in close)}."


def _writes(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__") and name not in _NOT_WRITING


def _in_place(operation: str) -> InPlaceOperationError:
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
            advice = "Draw a tensor before the call and index it: noise[q_idx, kv_idx]."
            raise refuse(_spelling(name), advice)
        made = self.context.made
        if name in _WRITING_OPERATORS or _writes(name) or "out" in kwargs:
            target = kwargs.get("out", args[0] if args else None)
            if isinstance(target, torch.Tensor) and id(target) not in made:
                raise _in_place(name)
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor) and (
            name in _COPYING or not any(isinstance(arg, torch.Tensor) for arg in args)
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
