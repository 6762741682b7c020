"""``attnc inspect --diff``: what differs between two functions, stage by stage."""

from __future__ import annotations

import json

from attnc.cli.console import is_terminal, write
from attnc.cli.inspect import inspection_of, machine_for, require_options
from attnc.errors import TargetChoiceError

SAME, DIFFERENT = 0, 1


def run(
    before: str | None,
    after: str | None,
    stage: str,
    shape: str | None,
    machine: str,
    dtype: str | None,
    passes: str,
    as_json: bool,
) -> int:
    """Prints how ``after`` differs from ``before``; 1 if it does, else 0."""
    from attnc.stages.difference import difference_of

    wanted = require_options(stage, machine, dtype, passes)
    machine = machine_for(stage, machine)
    if before is None or after is None:
        raise TargetChoiceError(given="--diff compares two functions, A and B")
    # The sizes of the first, where the library has some: tiles are counted for one shape.
    first = inspection_of(*_split(before), shape, machine, dtype)
    sizes = ",".join(map(str, first.shape))
    second = inspection_of(*_split(after), sizes, machine, dtype)
    names = None if stage == "all" else [stage]
    found = difference_of(first, second, names, passes=wanted)
    if as_json:
        data = {"same": found.is_empty, "summary": found.summary, "diffs": found.stages}
        print(json.dumps(data, indent=2))
        return SAME if found.is_empty else DIFFERENT
    _write_summary(found.summary)
    for text in found.stages.values():
        print()
        write(text, "diff")
    return SAME if found.is_empty else DIFFERENT


def _split(text: str) -> tuple[str | None, str | None]:
    """A target, or the source of a lambda in its place."""
    return (None, text) if text.lstrip().startswith("lambda") else (text, None)


def _write_summary(text: str) -> None:
    if not is_terminal():
        print(text)
        return
    from rich.console import Console
    from rich.text import Text

    Console(soft_wrap=True, highlight=False).print(Text(text, style="bold cyan"))
