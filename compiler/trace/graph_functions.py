"""What functions are to mods in a graph: dynamo knows C functions by identity, not by name."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

from attnc.trace.tracer import COPYING, FUNCTION_NAMES, RANDOM, writes

#: Python's operators, which dynamo shows as they are when it exports.
OPERATORS: Mapping[Callable[..., Any], str] = {
    getattr(operator, python): name
    for python, name in (
        ("add", "add"),
        ("sub", "sub"),
        ("mul", "mul"),
        ("truediv", "div"),
        ("floordiv", "floor_divide"),
        ("mod", "remainder"),
        ("pow", "pow"),
        ("and_", "bitwise_and"),
        ("or_", "bitwise_or"),
        ("xor", "bitwise_xor"),
        ("lshift", "bitwise_left_shift"),
        ("rshift", "bitwise_right_shift"),
        ("matmul", "matmul"),
        ("getitem", "__getitem__"),
        ("invert", "bitwise_not"),
        *((name, name) for name in ("abs", "neg", "eq", "ne", "lt", "le", "gt", "ge")),
    )
}
NAMES: Mapping[Callable[..., Any], str] = {**FUNCTION_NAMES, **OPERATORS}
#: Functions behind ``+=`` and its like.
IN_PLACE: Mapping[Callable[..., Any], str] = {
    function: name
    for written, name in (
        *((f"{name}_", name) for name in ("add", "sub", "mul", "div")),
        *((f"{name}_", name) for name in ("floor_divide", "remainder")),
        ("__iand__", "bitwise_and"),
        ("__ior__", "bitwise_or"),
        ("__ixor__", "bitwise_xor"),
        ("__ilshift__", "bitwise_left_shift"),
        ("__irshift__", "bitwise_right_shift"),
    )
    if (function := getattr(torch.Tensor, written, None)) is not None
} | {
    getattr(operator, f"i{function.__name__.strip('_')}"): name
    for function, name in OPERATORS.items()
    if hasattr(operator, f"i{function.__name__.strip('_')}")
}
#: Functions that kernels cannot do even on captured tensors alone.
REFUSED: Mapping[Callable[..., Any], str] = {
    function: name
    for name in sorted(RANDOM)
    for owner in (torch, torch.Tensor, torch.nn.functional)
    if callable(function := getattr(owner, name, None))
}
#: Functions that change elements of their first argument, by name.
WRITING: Mapping[Callable[..., Any], str] = {
    function: name
    for owner in (torch.Tensor, torch, operator)
    for name in dir(owner)
    if writes(name if owner is not operator else f"__{name}__")
    if callable(function := getattr(owner, name, None))
}
#: Functions whose result shares no memory with what they take.
COPYING_FUNCTIONS = frozenset(
    function
    for name in COPYING
    for owner in (torch.Tensor, torch)
    if callable(function := getattr(owner, name, None))
)
#: What asks for the value of a stand-in.
CONCRETE = frozenset(
    function
    for name in (
        *("__int__", "__float__", "__complex__", "__index__", "__bool__", "__array__"),
        *("item", "tolist", "numpy", "__len__"),
    )
    if callable(function := getattr(torch.Tensor, name, None))
)
