"""Output: colours on a terminal, plain text in a pipe or file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from attnc.stages import Stage

Language = Literal["text", "python", "cpp", "mlir", "asm", "diff"]


def is_terminal() -> bool:
    """Whether colours may be written: output goes to a terminal, and NO_COLOR is not set."""
    import os

    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


_COMMENTS = {"python": "#", "cpp": "//", "mlir": "//", "asm": "//"}
# Of stages that are prose and pictures: decisions and their reasons, tiles by class.
_STYLES = {
    r"(?m)^- .*$": "bold",
    r"(?m)^ +because .*$": "dim",
    r"█+": "green",
    r"▒+": "yellow",
    r"(?m)^[\w ]+:$": "cyan",
}


def write(text: str, language: Language = "text") -> None:
    """Prints ``text``; as highlighted source on a terminal, never wrapped or cut."""
    if language == "text" or not is_terminal():
        print(text)
        return
    from rich.console import Console
    from rich.syntax import Syntax

    from attnc.stages.stage import LEXERS

    highlighted = Syntax("", LEXERS.get(language, language), theme="ansi_dark").highlight(text)
    Console(soft_wrap=True).print(highlighted, end="")


def write_stage(stage: Stage) -> None:
    """Prints a stage under its header, which in a file is a comment if the text is source."""
    body = stage.text if stage.problem is None else f"not available here: {stage.problem}"
    if not is_terminal():
        mark = _COMMENTS.get(stage.language)
        head = f"== {stage.title} ==\n{stage.summary}"
        if mark is not None:
            head = f"{mark} {stage.title}\n{mark} {stage.summary}"
            body = body if stage.problem is None else f"{mark} {body}"
        print(f"{head}\n\n{body}")
        return
    from rich.console import Console
    from rich.highlighter import ReprHighlighter
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    console.print(Text(stage.title, style="bold cyan"))
    console.print(Text(stage.summary, style="dim"), end="\n\n")
    if stage.problem is not None:
        console.print(Text(body, style="yellow"))
    elif stage.language != "text":
        write(body, stage.language)
    else:
        shown = ReprHighlighter()(Text(body))
        for pattern, style in _STYLES.items():
            shown.highlight_regex(pattern, style)
        console.print(shown)


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
