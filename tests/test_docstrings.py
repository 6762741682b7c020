"""The reference comes from docstrings: they tell what every argument and every field is."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import pytest
from test_docs import PUBLIC

Named = tuple[str, str, tuple[str, ...]]  # what it is called, its docstring, what that has to name


def parameters_of(function: Any) -> tuple[str, ...]:
    return tuple(name for name in inspect.signature(function).parameters if name != "self")


def parts_of(name: str, cls: type) -> Iterator[Named]:
    """The class with its fields or what makes it, and its public methods and properties."""
    fields: tuple[str, ...] = ()
    if dataclasses.is_dataclass(cls):
        fields = tuple(field.name for field in dataclasses.fields(cls))
    elif "__init__" in vars(cls):
        fields = parameters_of(cls)
    yield name, inspect.getdoc(cls) or "", tuple(x for x in fields if not x.startswith("_"))
    for part, value in vars(cls).items():
        if part.startswith("_") or part in fields:
            continue
        found = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
        found = getattr(found, "func", found)
        if isinstance(found, FunctionType):
            names = tuple(x for x in parameters_of(found) if x != "cls")
            yield f"{name}.{part}", inspect.getdoc(found) or "", names


def public_parts(module_name: str) -> Iterator[Named]:
    """What the module has in ``__all__``. Errors tell by their messages, and are left out."""
    module = importlib.import_module(module_name)
    for public in getattr(module, "__all__", ()):
        value = getattr(module, public)
        is_ours = getattr(value, "__module__", "").startswith("attnc")
        name = f"{module_name}.{public}"
        match value:
            case type() if is_ours and not issubclass(value, Exception):
                yield from parts_of(name, value)
            case FunctionType() if is_ours:
                yield name, inspect.getdoc(value) or "", parameters_of(value)


@pytest.mark.parametrize("module", PUBLIC)
def test_docstrings_tell_of_every_argument_and_field(module: str) -> None:
    """Each public function, method and class has a docstring that names what it is given."""
    untold = {
        name: missing
        for name, text, names in public_parts(module)
        for missing in [[x for x in names if not re.search(rf"\b{re.escape(x)}\b", text)]]
        if missing or not text
    }

    assert untold == {}
