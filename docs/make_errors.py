"""Writes docs/errors.md: each class of errors, what it is besides, and its text for one mistake.

The mistakes and the texts are those of the tests, which raise each of them:
``python docs/make_errors.py`` from the root of the repository.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import FunctionType

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "errors.md"
ROOMS = ("calls", "masks", "tracing", "machine", "tools")
_HEAD = """# Errors

A call does what it says or raises one of these. Each mistake has a class of its own, below
`attnc.AttncError`, and also the standard one that Python or PyTorch raises for it, so `except
ValueError` works; the message says what was written, where, why it cannot work and what to write
instead. What a mask_mod or score_mod raises itself comes through as it is.

Each entry shows a mistake and its message. `FILE:LINE` stands for the line of the mod.
"""


def page() -> str:
    """The page, from the tests."""
    sys.path[:0] = [str(ROOT / "tests")] if str(ROOT / "tests") not in sys.path else []
    told = import_module("error_texts").told
    parts = [_HEAD]
    for room in ROOMS:
        module = import_module(f"test_errors_{room}")
        parts.append(f"## {(module.__doc__ or '').partition('.')[0]}\n")
        for cls, mistakes in told.items():
            if mistakes[0][0].__module__.rpartition(".")[2] != f"test_errors_{room}":
                continue
            bases = [f"`{base.__name__}`" for base in cls.__bases__]
            parts.append(f"### {cls.__name__}\n\nAlso {', '.join(bases)}.\n")
            does_wrong, text = mistakes[0]
            parts.append(f"```text\n{_source(does_wrong)}\n```\n\n```text\n{_wrapped(text)}\n```\n")
    return "\n".join(parts)


def _source(function: Callable[..., object]) -> str:
    """The body of a test, without its decorator."""
    assert isinstance(function, FunctionType)
    lines = inspect.getsource(function).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("def "))
    while not lines[start].rstrip().endswith(":"):
        start += 1
    body = textwrap.dedent("\n".join(lines[start + 1 :])).strip()
    return re.sub(r"  # type: ignore.*", "", body)


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.fill(line, 100) for line in text.splitlines())


if __name__ == "__main__":
    PAGE.write_text(page())
