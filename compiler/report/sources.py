"""The user's functions as text."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from attnc.ir import Expr, walk
from attnc.program import Program
from attnc.roles import roles_of
from attnc.stages.texts import JOINS


@dataclass(frozen=True)
class Source:
    """One function: its role in the kernel, where it is, and its lines."""

    role: str
    place: str
    text: str


def sources_of(mod: Any, program: Program) -> tuple[Source, ...]:
    """The mask and the score of ``mod``, as written.

    Of one without source, or joined from others, the lines that were traced, file by file.
    """
    mask, score = roles_of(mod)
    parts = (("mask", mask, program.traced_mask), ("score", score, program.traced_score))
    found: list[Source] = []
    for role, part, expr in parts:
        written = _written(role, part)
        if written is not None:
            found.append(written)
        elif expr is not None:
            found += _traced(f"{role}, as traced", expr, program)
    return tuple(found)


def _written(role: str, part: Any) -> Source | None:
    fn = getattr(part, "mask_mod", part)
    fn = getattr(fn, "fn", fn)
    code = getattr(fn, "__code__", None)
    if code is None or code.co_filename in JOINS:
        return None
    try:
        text = textwrap.dedent(inspect.getsource(code))
    except (OSError, TypeError):
        return None
    return Source(role, f"{code.co_filename}:{code.co_firstlineno}", text.rstrip())


def _traced(role: str, expr: Expr, program: Program) -> Iterator[Source]:
    known = (program.locations.get(node) for node in walk(expr))
    places = {(at.file, at.line, at.source) for at in known if at is not None}
    users = sorted(place for place in places if place[0] not in JOINS)
    for file, group in groupby(users, lambda place: place[0]):
        lines = list(group)
        yield Source(role, f"{file}:{lines[0][1]}", "\n".join(text for *_, text in lines))
