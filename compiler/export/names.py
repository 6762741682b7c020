"""What the user wrote, as it may stand in generated code: names of arguments, comments."""

from __future__ import annotations

import builtins
import inspect
import keyword
import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

_OWN = ("q", "k", "v", "scale", "return_lse", "b", "h", "q_idx", "kv_idx", "score", "row")
_OF_TEXTS = re.compile(r"(x|row|index)\d+")  # names of values in texts of expressions


def argument_names(wanted: Mapping[int, str], reserved: Iterable[str]) -> dict[int, str]:
    """A distinct identifier for each slot: what is wanted (``self.bias`` is ``bias``), or ``t0``.

    ``reserved`` are names of the module, which arguments would hide.
    """
    taken = {*reserved, *_OWN, *dir(builtins), *keyword.kwlist, *keyword.softkwlist}
    found = {}
    for slot, name in wanted.items():
        name = name.rpartition(".")[2]
        is_name = re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) is not None
        if not is_name or _OF_TEXTS.fullmatch(name):
            name = f"t{slot}"
        while name in taken:
            name += "_"
        taken.add(name)
        found[slot] = name
    return found


def plain(text: str) -> str:
    """``text`` on one line, for strings and comments: only letters and signs that can end neither."""
    return re.sub(r"[^\w .,:;<>=()\[\]{}*/+'-]", "_", text, flags=re.ASCII).replace("'''", "___")


def source_lines(mods: Iterable[Any]) -> list[str]:
    """Source of the user's functions, as lines that each fit into one comment."""
    lines: list[str] = []
    for mod in mods:
        fn = getattr(mod, "fn", mod)
        if mod is None:
            continue
        try:
            text = inspect.getsource(fn)
        except (OSError, TypeError):
            text = f"{getattr(fn, '__name__', 'a function')}, whose source is not known"
        lines += ["", *map(_visible, textwrap.dedent(text).splitlines())]
    return lines[1:]


def _visible(line: str) -> str:
    """A line without anything that ends it, for any reader."""
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line)
    return shown.encode("utf-8", "backslashreplace").decode().rstrip()
