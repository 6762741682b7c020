"""What captured tensors are called in the user's code."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Sequence
from typing import Any

import torch

_MAX_OBJECTS = 1000


def captured_names(mods: Sequence[Any], tensors: Sequence[torch.Tensor]) -> dict[int, str]:
    """The user's name of each captured tensor, by slot number, as far as one is found.

    Looked for in closures, globals, defaults and attributes of ``mods`` and of the functions that
    they are composed of. Two tensors of one name (a factory called twice) leave the second without.
    """
    slots = {id(tensor): slot for slot, tensor in enumerate(tensors)}
    names: dict[int, str] = {}
    pending = [mod for mod in mods if mod is not None]
    seen: set[int] = set()
    while pending and len(seen) < _MAX_OBJECTS:
        found = pending.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        for name, value in _contents(found):
            if isinstance(value, torch.Tensor):
                slot = slots.get(id(value))
                if slot is not None and slot not in names and name not in names.values():
                    names[slot] = name
            elif isinstance(value, tuple | list):
                pending.extend(item for item in value if callable(item))
            elif callable(value) and not isinstance(value, type):
                pending.append(value)
    return names


def _contents(found: Any) -> Iterator[tuple[str, Any]]:
    """Names and values that a function, method, partial or callable object holds."""
    match found:
        case functools.partial():
            yield "", found.func
            yield "", found.args
            yield from found.keywords.items()
        case types.MethodType():
            yield "", found.__func__
            yield from _attributes(found.__self__)
        case types.FunctionType():
            yield from _held(found)
        case _:
            yield from _attributes(found)
            yield "", vars(type(found)).get("__call__")


def _held(fn: types.FunctionType) -> Iterator[tuple[str, Any]]:
    code = fn.__code__
    for name, cell in zip(code.co_freevars, fn.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for name in code.co_names:
        if name in fn.__globals__:
            yield name, fn.__globals__[name]
    defaults = fn.__defaults__ or ()
    yield from zip(code.co_varnames[code.co_argcount - len(defaults) :], defaults, strict=False)
    yield from (fn.__kwdefaults__ or {}).items()


def _attributes(owner: Any) -> Iterator[tuple[str, Any]]:
    for name, value in getattr(owner, "__dict__", {}).items():
        yield f"self.{name}", value
