"""The page about the gallery of published systems: ``python -m benchmarks.systems`` writes it.

Counts of tiles are those that ``tests/gallery`` compares with dense masks.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import attnc
from examples.systems.catalogue import Parts, System, load_systems
from examples.systems.not_yet import NOT_YET

PAGE = Path(__file__).parents[1] / "docs" / "systems.md"
BLOCK = 16
HEADINGS = ("system", "what it does", "source", "tiles", "closed form", "learned", "from memory")
_INTRODUCTION = """\
# Published systems

Made by `python -m benchmarks.systems` from [examples/systems](../examples/systems), where each of these
{n_systems} entries stands in a few lines. `tests/gallery` runs every one of them forward and backward, in the C++
kernels and in the Triton kernels under Triton's interpreter, and compares output, log-sum-exp, the gradients of q, k
and v and those of all learned tensors with dense float64 attention, whose masks and scores are built another way than
by the functions here. It also compares every tile, at {block} x {block} tokens, with the pairs inside.

- **tiles**: visited / of these full, without a masked pair / all; counted for every batch row and head if the mask
  differs between them, else once.
- **closed form**: loop bounds are computed in the kernel; else they come from a table made for each call. A system
  without a mask has neither.
- **learned**: captured tensors that are trained along with the model.
- **from memory**: what of an entry is in neither the abstract nor the released code it was checked against.
"""


def page() -> str:
    """The page, as Markdown."""
    systems = load_systems()
    parts = [_INTRODUCTION.format(n_systems=len(systems), block=BLOCK)]
    in_rooms = sorted(systems.values(), key=lambda system: system.needs)
    for room, members in groupby(in_rooms, lambda system: system.needs):
        parts.append(_room(room, list(members)))
    reasons = [[name, _linked(one.source), one.reason] for name, one in sorted(NOT_YET.items())]
    parts.append(f"## Not yet\n\n{_table(('system', 'source', 'reason'), reasons)}")
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _room(room: str, members: list[System]) -> str:
    about = sys.modules[members[0].build.__module__].__doc__ or ""
    summary = about.partition("\n\n")[0].replace("\n", " ").strip()
    table = _table(HEADINGS, map(cells, members))
    return f"## {room.capitalize()}\n\n{summary}\n\n{table}"


def cells(system: System) -> list[str]:
    """A row of the page about one system."""
    parts = system.build()
    described = " ".join((inspect.getdoc(system.build) or "").split())
    return [
        system.name,
        described,
        _linked(system.source),
        *_tiles(system, parts),
        _listed(parts.learned),
        system.from_memory,
    ]


def _tiles(system: System, parts: Parts) -> tuple[str, str]:
    """Visited, full and all tiles; and whether there is a closed form."""
    if parts.mask is None:
        return "all", ""
    analysis = attnc.analyze(parts.mask, *system.shape, BLOCK)
    n_visited = analysis.n_full + analysis.n_partial
    counts = f"{n_visited:,} / {analysis.n_full:,} / {analysis.table.n_tiles:,}"
    return counts, "no" if analysis.bounds is None else "yes"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows as Markdown, not aligned: cells are sentences."""
    lines = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(
        f"| {' | '.join(line)} |" for line in [list(headings), ["---"] * len(headings), *lines]
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _linked(source: str) -> str:
    return re.sub(r"arXiv:(\d+\.\d+)", r"[\1](https://arxiv.org/abs/\1)", source)


if __name__ == "__main__":
    PAGE.write_text(page())
