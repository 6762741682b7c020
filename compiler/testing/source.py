"""Functions as text that can be pasted: by import, by recipe, or by their own source."""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import linecache
import operator
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch

from attnc.decorator import Kernel
from attnc.testing.recipes import MaskRecipe, ScoreRecipe

#: Captured tensors with more elements are left out of a text.
_MAX_ELEMENTS = 600


class _NoTextError(Exception):
    """Something has no text that makes it again."""


@dataclass
class Script:
    """Lines of a program that defines functions and what they read."""

    lines: list[str] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=lambda: {"torch", "attnc", "check", "q", "k", "v"})
    kept: list[Any] = field(default_factory=list)

    def define(self, value: Any, name: str) -> str:
        """Adds what makes ``value``; the name it has then.

        Where nothing does, a comment tells where it is, and the program is for its place.
        """
        mark = len(self.lines), dict(self.names), set(self.taken)
        try:
            return self._defined(value, name)
        except _NoTextError:
            lines, self.names, self.taken = mark[0], mark[1], mark[2]
            del self.lines[lines:]
        fn = inspect.unwrap(getattr(value, "fn", value))
        own = getattr(fn, "__name__", "")
        known = own if own.isidentifier() else name
        code = getattr(fn, "__code__", None)
        place = f"{code.co_filename}:{code.co_firstlineno}" if code else "your program"
        self.lines.append(f"# {known}: the function in {place}")
        return known

    def _defined(self, value: Any, name: str) -> str:
        if isinstance(value, FunctionType):
            value = inspect.unwrap(value)
        if id(value) in self.names:
            return self.names[id(value)]
        if isinstance(value, MaskRecipe | ScoreRecipe):
            return self._assigned(value, name, f"{value!r}.build()")
        imported = _import_of(value)
        if imported is not None:
            return self._imported(value, *imported)
        if isinstance(value, Kernel):
            return self._kernel(value, name)
        if isinstance(value, FunctionType):
            return self._function(value, name)
        if isinstance(value, torch.Tensor):
            return self._assigned(value, name, _tensor(value))
        return self._assigned(value, name, self._constant(value, name))

    def _imported(self, value: Any, module: str, attribute: str) -> str:
        if module == attribute:
            self._remember(value, attribute, f"import {module}")
            return attribute
        self._remember(value, attribute, f"from {module} import {attribute}")
        return attribute

    def _assigned(self, value: Any, name: str, text: str) -> str:
        free = self._free(name)
        if text != free:
            self._remember(value, free, f"{free} = {text}")
        return free

    def _remember(self, value: Any, name: str, line: str) -> None:
        if line not in self.lines:
            self.lines.append(line)
        self.names[id(value)] = name
        self.taken.add(name)
        self.kept.append(value)  # a number of what is gone may be that of something else

    def _free(self, name: str) -> str:
        free, count = name, 1
        while free in self.taken:
            count += 1
            free = f"{name}{count}"
        return free

    def _kernel(self, kernel: Kernel, name: str) -> str:
        if kernel.other_parts:
            raise _NoTextError
        if kernel._made_by is None:
            return self._defined(kernel.fn, name)
        function, arguments = kernel._made_by
        if isinstance(function, functools.partial):
            given = [self._part(value, f"{name}_{n}") for n, value in enumerate(function.args)]
            given += [f"{key}={self._part(x, key)}" for key, x in function.keywords.items()]
            return self._assigned(
                kernel, name, f"attnc.library.{function.func.__name__}({', '.join(given)})"
            )
        parts = [self._part(value, f"{name}_{n}") for n, value in enumerate(arguments)]
        match function:
            case operator.and_ | operator.or_:
                text = f"attnc.{function.__name__.strip('_')}_masks({', '.join(parts)})"
            case operator.invert:
                text = f"~attnc.kernel({parts[0]})"
            case Kernel.then:
                text = f"attnc.kernel({parts[0]}).then({parts[1]})"
            case _:
                raise _NoTextError
        return self._assigned(kernel, name, text)

    def _function(self, fn: FunctionType, name: str) -> str:
        node = _parsed(fn)
        own = fn.__name__ if fn.__name__.isidentifier() else name
        for read, value in _reads(fn).items():
            if read == own and value is fn:
                raise _NoTextError  # calls itself
            if self._in_place(value, read) != read:
                raise _NoTextError  # another value has this name already
        if fn.__defaults__ or fn.__kwdefaults__:
            raise _NoTextError
        if own in self.taken:
            raise _NoTextError
        if isinstance(node, ast.Lambda):
            self._remember(fn, own, f"{own} = {ast.unparse(node)}")
            return own
        node.decorator_list = []
        node.returns = None
        for argument in node.args.args:
            argument.annotation = None
        self._remember(fn, own, f"\n{ast.unparse(node)}\n")
        return own

    def _in_place(self, value: Any, name: str) -> str:
        """Defines ``value`` under exactly ``name``, or finds it there."""
        if isinstance(value, ModuleType):
            line = f"import {value.__name__}" + (f" as {name}" if name != value.__name__ else "")
            if name in self.taken and line not in self.lines and name != "torch":
                raise _NoTextError
            self._remember(value, name, line)
            return name
        return self._defined(value, name)

    def _constant(self, value: Any, name: str) -> str:
        if isinstance(value, bool | int | float | str | None):
            return (
                f'float("{value}")'
                if isinstance(value, float) and str(value) in _NO_LITERALS
                else repr(value)
            )
        if isinstance(value, tuple | list):
            parts = [self._part(part, f"{name}_{n}") for n, part in enumerate(value)]
            inside = ", ".join(parts) + ("," if len(parts) == 1 else "")
            return f"({inside})" if isinstance(value, tuple) else f"[{', '.join(parts)}]"
        if isinstance(value, torch.dtype):
            return repr(value)
        raise _NoTextError

    def _part(self, value: Any, name: str) -> str:
        if isinstance(value, FunctionType | Kernel | torch.Tensor):
            return self._defined(value, name)
        return self._constant(value, name)


_NO_LITERALS = ("nan", "inf", "-inf")


def _import_of(value: Any) -> tuple[str, str] | None:
    """(module, name) of what any program can import by name, not only the one that runs."""
    if isinstance(value, ModuleType):
        return None
    module, name = getattr(value, "__module__", None), getattr(value, "__name__", None)
    if not (isinstance(module, str) and isinstance(name, str)) or module == "__main__":
        return None
    if not name.isidentifier() or getattr(sys.modules.get(module), name, None) is not value:
        return None
    try:
        found = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return None
    # What lies beside a test or a script is importable there alone.
    origin = (found.origin or "") if found else ""
    return (module, name) if "site-packages" in origin or module.startswith("attnc.") else None


def _reads(fn: FunctionType) -> Mapping[str, Any]:
    """Values of the closure and of globals that ``fn`` reads, by name."""
    found = inspect.getclosurevars(fn)
    both = {**found.globals, **found.nonlocals}
    # pytest reads names of its own in assertions of tests.
    names = {name: value for name, value in both.items() if name.isidentifier()}
    if found.unbound - {name for code in _codes(fn.__code__) for name in code.co_names}:
        raise _NoTextError
    return names


def _codes(code: CodeType) -> list[CodeType]:
    inner = [
        each for const in code.co_consts if isinstance(const, CodeType) for each in _codes(const)
    ]
    return [code, *inner]


def _parsed(fn: FunctionType) -> ast.Lambda | ast.FunctionDef:
    """The function as it is written."""
    code = fn.__code__
    try:
        lines = linecache.getlines(code.co_filename) or inspect.findsource(fn)[0]
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, SyntaxError, TypeError):
        raise _NoTextError from None
    arguments = code.co_varnames[: code.co_argcount]
    found: list[ast.Lambda | ast.FunctionDef] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Lambda | ast.FunctionDef):
            continue
        starts = [node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]
        is_same = (
            code.co_firstlineno in starts and tuple(a.arg for a in node.args.args) == arguments
        )
        if is_same and getattr(node, "name", "<lambda>") == code.co_name:
            found.append(node)
    if len(found) > 1:
        found = [node for node in found if _columns(node) == _columns_of(code)]
    if len(found) != 1:
        raise _NoTextError
    return found[0]


def _columns(node: ast.Lambda | ast.FunctionDef) -> int:
    body = node.body if isinstance(node, ast.Lambda) else node.body[-1]
    return body.end_col_offset or 0


def _columns_of(code: CodeType) -> int:
    return max((end for *_, end in code.co_positions() if end is not None), default=0)


def _tensor(x: torch.Tensor) -> str:
    if x.numel() > _MAX_ELEMENTS or x.is_quantized or x.is_sparse:
        raise _NoTextError
    dtype = str(x.dtype)
    values = x.detach().cpu().tolist()
    text = repr(values).replace("nan", 'float("nan")').replace("inf", 'float("inf")')
    device = "" if x.device.type == "cpu" else f", device={str(x.device)!r}"
    return f"torch.tensor({text}, dtype={dtype}{device})"
