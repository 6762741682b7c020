"""Output: colours on a terminal, plain text in a pipe or file."""

from __future__ import annotations

import sys
from typing import Literal

Language = Literal["text", "python", "cpp", "mlir", "asm"]


def is_terminal() -> bool:
    """Whether colours may be written: output goes to a terminal, and NO_COLOR is not set."""
    import os

    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def write(text: str, language: Language = "text") -> None:
    """Prints ``text``; as highlighted source on a terminal, never wrapped or cut."""
    if language == "text" or not is_terminal():
        print(text)
        return
    from rich.console import Console
    from rich.syntax import Syntax

    lexer = {"python": "python", "cpp": "cpp", "mlir": "llvm", "asm": "nasm"}[language]
    highlighted = Syntax("", lexer, theme="ansi_dark").highlight(text)
    Console(soft_wrap=True).print(highlighted, end="")


def write_heading(text: str) -> None:
    """Prints a heading with an empty line above it."""
    if not is_terminal():
        print(f"\n== {text} ==")
        return
    from rich.console import Console

    Console().print(f"\n[bold cyan]{text}[/]")


def write_error(message: str) -> None:
    """Prints one line on standard error."""
    print(f"attnc: error: {message}", file=sys.stderr)
