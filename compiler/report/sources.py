"""The user's functions as text."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from attnc.decorator import Kernel
from attnc.mods import mod_kind, mod_name
from attnc.program import Program


@dataclass(frozen=True)
class Source:
    """One function: its role in the kernel, where it is, and its lines."""

    role: str
    place: str
    text: str


def sources_of(mod: Any, program: Program) -> tuple[Source, ...]:
    """The mask and the score of a kernel, as written.

    Of a function without source, or made of others, the lines that were traced.
    """
    found = tuple(_sources(mod))
    if found:
        return found
    locations = sorted({(at.file, at.line, at.source) for at in program.locations.values()})
    if not locations:
        return ()
    lines = "\n".join(source for _, _, source in locations)
    file, line, _ = locations[0]
    return (Source("traced lines", f"{file}:{line}", lines),)


def _sources(mod: Any) -> Iterator[Source]:
    is_kernel = isinstance(mod, Kernel)
    roles = {"mask": mod.mask, "score": mod.score} if is_kernel else {mod_kind(mod): mod}
    for role, part in roles.items():
        fn = getattr(part, "mask_mod", part)
        fn = getattr(fn, "fn", fn)
        code = getattr(fn, "__code__", None)
        if code is None or (mod_name(fn) in _COMBINED and "attnc.decorator" in str(fn.__module__)):
            continue
        try:
            text = textwrap.dedent(inspect.getsource(code))
        except (OSError, TypeError):
            continue
        yield Source(role, f"{code.co_filename}:{code.co_firstlineno}", text.rstrip())


_COMBINED = ("both", "either", "inverse", "then")
