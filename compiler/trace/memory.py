"""Remembered traces of straight functions, which need not be run again.

A *straight* function computes with its parameters, its constants and what it captured, and does
nothing else: no branch, no loop, no attribute but a function of torch, no call but of one. What
it makes of symbols is then a function of its code and of what it captured: numbers by their
values, tensors by dtype and rank, as long as it only takes single elements of them. All that is
read anew at each call, so a remembered trace is the trace. Every other function is run.
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import torch

from attnc.ir import DType, Expr
from attnc.trace.slots import SlotTable

#: Instructions that read and write nothing but the stack and local variables. One that runs code,
#: as an operator or a call may, can meet only symbols, numbers, tensors and functions of torch.
_STRAIGHT = frozenset(
    {"BINARY_OP", "BINARY_SUBSCR", "BUILD_TUPLE", "CACHE", "CALL", "CALL_KW", "COMPARE_OP"}
    | {"COPY_FREE_VARS", "KW_NAMES", "LOAD_CONST", "LOAD_FAST", "LOAD_FAST_BORROW"}
    | {"LOAD_FAST_BORROW_LOAD_FAST_BORROW", "LOAD_FAST_CHECK", "LOAD_FAST_LOAD_FAST"}
    | {"LOAD_SMALL_INT", "NOP", "NOT_TAKEN", "PRECALL", "PUSH_NULL", "RESUME", "RETURN_CONST"}
    | {"RETURN_VALUE", "STORE_FAST", "STORE_FAST_LOAD_FAST", "STORE_FAST_STORE_FAST"}
    | {"UNARY_INVERT", "UNARY_NEGATIVE"}
)
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
_ANY_ARGUMENTS = 0x04 | 0x08  # co_flags of *args and **kwargs
_MODULES = (torch, torch.nn.functional)
_MAX_CODES = 1024
_MAX_TRACES = 4096


class _Captured(NamedTuple):
    """What straight code reads from outside: cells by position, globals and functions by name."""

    code: CodeType
    cells: tuple[int, ...]
    names: tuple[str, ...]
    functions: tuple[tuple[str, ...], ...]


class Recipe(NamedTuple):
    """Names a trace: functions with equal recipes have equal traces.

    ``values`` are what ``key`` was made of: numbers and tensors.
    """

    key: tuple[Any, ...]
    values: tuple[Any, ...]
    code: CodeType


class _Trace(NamedTuple):
    expr: Expr
    sources: tuple[int, ...]  # positions in Recipe.values of the tensors of slots 0, 1, ...
    code: CodeType  # held, because its id is in the key


_captured: dict[int, _Captured | CodeType] = {}  # by id of the code; the code if it is not straight
_traces: dict[tuple[Any, ...], _Trace] = {}


def recipe_of(
    fn: Callable[..., Any],
    slots: SlotTable,
    float_dtype: DType | None,
    known: Mapping[Callable[..., Any], str],
) -> Recipe | None:
    """The recipe of ``fn``; None if it must be run.

    Args:
        fn: A mod.
        slots: The table that its tensors go into.
        float_dtype: Dtype of the score; None for a mask.
        known: Functions of torch that mean something on symbols.
    """
    if type(fn) is not FunctionType:
        return None
    code = fn.__code__
    captured = _captured.get(id(code))
    if captured is None:
        captured = _remember_captured(code)
    if type(captured) is CodeType:
        return None
    assert isinstance(captured, _Captured)
    key: list[Any] = [id(code), float_dtype]
    values: list[Any] = []
    try:
        if captured.cells:
            closure: Any = fn.__closure__
            values = [closure[number].cell_contents for number in captured.cells]
        if captured.names:
            values += [fn.__globals__[name] for name in captured.names]
        if captured.functions:
            key += [_function(fn.__globals__, path, known) for path in captured.functions]
    except (KeyError, ValueError, AttributeError):  # a builtin, an empty cell, another module
        return None
    if fn.__defaults__:
        values += fn.__defaults__
    for value in values:
        part = _part(value, slots)
        if part is None:
            return None
        key.append(part)
    return Recipe(tuple(key), tuple(values), code)


def recall(recipe: Recipe, slots: SlotTable) -> Expr | None:
    """The remembered trace, its tensors added to ``slots``; None if there is none."""
    trace = _traces.get(recipe.key)
    if trace is None:
        return None
    for slot, source in enumerate(trace.sources):
        if slots.slot_of(recipe.values[source]) != slot:  # two tensors have become one view
            slots.clear()
            return None
    return trace.expr


def remember(recipe: Recipe, expr: Expr, slots: SlotTable) -> None:
    """Keeps ``expr``, which the function of ``recipe`` made by taking single elements only."""
    sources: list[int] = []
    captured = [i for i, value in enumerate(recipe.values) if isinstance(value, torch.Tensor)]
    if captured:
        for tensor in slots.tensors:
            sources += [i for i in captured if recipe.values[i] is tensor]
        # Where two tensors are one, or are views of one memory, they share a slot for now.
        if not len(sources) == len(captured) == len(slots.tensors):
            return
    if len(_traces) >= _MAX_TRACES:
        _traces.clear()
    _traces[recipe.key] = _Trace(expr, tuple(sources), recipe.code)


def _part(value: Any, slots: SlotTable) -> Any:
    """What a trace depends on of a captured value; None where that is too much to tell."""
    cls = type(value)
    if cls is int:
        return value
    if cls is float or cls is bool:
        return repr(value)  # 1.0 == True == 1 and 0.0 == -0.0
    if cls is torch.Tensor or cls is torch.nn.Parameter:
        # Slots are numbered in order of use: other tensors in the table would shift them.
        if slots.tensors or value.layout is not torch.strided:
            return None
        return value.dtype, value.dim()
    return None


def _function(
    names: Mapping[str, Any], path: tuple[str, ...], known: Mapping[Callable[..., Any], str]
) -> Any:
    """The function of torch under a name such as ``torch.tanh``.

    Raises:
        KeyError: It is something else.
    """
    value = names[path[0]]
    if not any(value is module for module in _MODULES):
        raise KeyError(path)
    for name in path[1:]:
        value = getattr(value, name)
    if value not in known:
        raise KeyError(path)
    return value


def _remember_captured(code: CodeType) -> _Captured | CodeType:
    if len(_captured) >= _MAX_CODES:
        _captured.clear()
    captured = _captured_by(code) or code
    _captured[id(code)] = captured
    return captured


def _captured_by(code: CodeType) -> _Captured | None:
    """What ``code`` reads from outside, or None if it is not straight."""
    if code.co_kwonlyargcount or code.co_flags & _ANY_ARGUMENTS:
        return None
    cells: list[int] = []
    paths: list[list[str]] = []
    is_after_global = False
    for instruction in dis.get_instructions(code):
        name = instruction.opname
        if name == "LOAD_GLOBAL":
            paths.append([instruction.argval])
        elif name in _ATTRIBUTES and is_after_global:
            paths[-1].append(instruction.argval)
        elif name == "LOAD_DEREF" and instruction.argval in code.co_freevars:
            cells.append(code.co_freevars.index(instruction.argval))
        elif name not in _STRAIGHT:
            return None
        is_after_global = name == "LOAD_GLOBAL" or (is_after_global and name in _ATTRIBUTES)
    return _Captured(
        code,
        cells=tuple(dict.fromkeys(cells)),
        names=tuple(dict.fromkeys(path[0] for path in paths if len(path) == 1)),
        functions=tuple(dict.fromkeys(tuple(path) for path in paths if len(path) > 1)),
    )
