"""Where in the user's code an operation was written."""

from __future__ import annotations

import linecache
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from attnc.errors.base import visible

INTERNAL = tuple(
    f"{folder}{os.sep}" for folder in (Path(__file__).parents[1], Path(torch.__file__).parent)
)
UNKNOWN_SOURCE = "source not available"


@dataclass(frozen=True)
class Location:
    """A line of the user's code; ``source`` is that line without indentation, as it can be shown."""

    file: str
    line: int
    source: str

    def __str__(self) -> str:
        if torch.compiler.is_dynamo_compiling():
            return f"{self.file}:{self.line}"
        return visible(f"{self.file}:{self.line}")


def call_mod(fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """``fn(*args)``; the frame of this call is where the search for the user's line ends."""
    return fn(*args)


def user_location() -> Location:
    """The innermost line of user code inside the running mod.

    Code of attnc and torch counts as user code only where there is no other, as for mods that
    are themselves defined there, in ``attnc.library`` above all. Source is looked up, not required:
    functions made by exec or typed into a REPL have none.
    """
    if torch.compiler.is_dynamo_compiling():
        # Its decorator imports dynamo, which takes seconds: only graphs need it.
        from attnc.trace.line_in_graph import traced_line

        file, line, source = traced_line()
        return Location(file, line, source)
    outermost: FrameType | None = None
    of_library: FrameType | None = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not call_mod.__code__:
        # The runtime is a folder of its own where attnc is installed editable.
        is_own = _module_of(frame).startswith("attnc.runtime.")
        if not (is_own or frame.f_code.co_filename.startswith(INTERNAL)):
            return _location(frame)
        if of_library is None and _module_of(frame).startswith("attnc.library."):
            of_library = frame
        outermost, frame = frame, frame.f_back
    if of_library is not None:
        return _location(of_library)
    if outermost is None or _module_of(outermost).startswith("attnc.trace"):
        return Location("<builtin>", 0, UNKNOWN_SOURCE)
    return _location(outermost)


def _module_of(frame: FrameType) -> str:
    name: str = frame.f_globals.get("__name__", "")
    return name


def raised_at(error: BaseException) -> Location:
    """The innermost line of user code that ``error`` came through."""
    found = Location("<builtin>", 0, UNKNOWN_SOURCE)
    for frame, line in traceback.walk_tb(error.__traceback__):
        if not frame.f_code.co_filename.startswith(INTERNAL):
            found = _location(frame, line)
    return found


def _location(frame: FrameType, line: int | None = None) -> Location:
    file, line = frame.f_code.co_filename, line or frame.f_lineno
    source = linecache.getline(file, line, frame.f_globals).strip()
    return Location(file, line, visible(source) or UNKNOWN_SOURCE)
