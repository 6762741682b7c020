"""Writes docs/library/: a page for each family of attnc.library, with pictures.

    python docs/make_library.py

All text comes from docstrings, examples and the analysis. Needs matplotlib, for the pictures only.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import torch

import attnc
from attnc import library
from attnc.decorator import Kernel
from attnc.library import ENTRIES, Entry
from attnc.pictures import Drawing, content_of, distinct, plain, png_bytes, text_lines
from attnc.stages import Inspection

FOLDER = Path(__file__).parent / "library"

N_TOKENS = 4096
TILE = 128
_MAX_PANELS = 4
_WIDTH = 100

FAMILIES = {
    "sequences": "Sequences: masks by order and distance",
    "packing": "Packing: documents, shared prefixes, trees",
    "blocks": "Blocks: sequences cut into equal parts",
    "grids": "Grids: images and videos in row-major order",
    "scores": "Scores: biases, tables, caps and temperatures",
}

#: Each mask at 4096 keys, with sizes as models have them. One of the tree's nodes is one query.
LONG = {
    "causal": "causal()",
    "sliding_window": "sliding_window(511)",
    "dilated_window": "dilated_window(127, 0, dilation=4)",
    "global_window": "global_window(64, 256, 256)",
    "sink_window": "sink_window(4, 511)",
    "prefix_lm": "prefix_lm(1024)",
    "strided": "strided(64)",
    "fixed": "fixed(128, 8)",
    "power_of_two": "power_of_two(128, 255, 4)",
    "windows_per_head": "windows_per_head(torch.tensor([255, 511, 1023, 2047]))",
    "documents": "documents(torch.arange(4096) // 512) & causal()",
    "shared_prefix": "shared_prefix(torch.arange(4096) // 512, 0) & causal()",
    "tree": "tree([-1, 0, 0, 1, 1, 2, 3, 3, 5], n_context=4087)",
    "chunked": "chunked(512)",
    "block_causal": "block_causal(512)",
    "block_diffusion": "block_diffusion(2048, 128)",
    "neighborhood": "neighborhood((64, 64), 7)",
    "windows": "windows((64, 64), 8, shift=4)",
    "sliding_tiles": "sliding_tiles((64, 64), 8, 3)",
    "axial": "axial((64, 64), 1)",
}


@dataclass(frozen=True)
class Cost:
    """What a mask costs at ``N_TOKENS`` keys: shares of tiles, and whether bounds are formulas."""

    visited: float
    full: float
    is_closed: bool

    @staticmethod
    def of(entry: Entry) -> Cost:
        mask = made(LONG[entry.name])
        n_queries = entry.shape[2] if entry.name == "tree" else N_TOKENS
        found = attnc.analyze(mask, 1, entry.shape[1], n_queries, N_TOKENS, TILE)
        n_tiles = found.table.n_tiles
        return Cost(1 - found.n_empty / n_tiles, found.n_full / n_tiles, found.bounds is not None)


def made(call: str) -> Kernel:
    """The Kernel of a call as Python writes it, in the library's names."""
    kernel = eval(call, {"torch": torch, **vars(library)})
    assert isinstance(kernel, Kernel)
    return kernel


def pages() -> dict[str, str]:
    """Text of each page by its file name."""
    costs = {name: Cost.of(ENTRIES[name]) for name in LONG}
    found = {"README.md": _index(costs)}
    for family, title in FAMILIES.items():
        entries = [entry for entry in ENTRIES.values() if entry.family == family]
        sections = [_section(entry, costs.get(entry.name)) for entry in entries]
        found[f"{family}.md"] = "\n\n".join([f"# {title}", _intro(family), *sections]) + "\n"
    return found


def drawings(entry: Entry) -> list[Drawing]:
    """Pictures of its example: of the first heads where heads differ."""
    kernel = entry.kernel()
    n_heads = entry.shape[1]
    inspection = Inspection.of(kernel, shape=(*entry.shape, 64), target="cpu-generic")
    found = [
        Drawing(
            entry.example,
            entry.summary,
            entry.source,
            f"h = {head}" if n_heads > 1 else "",
            content_of(inspection, kernel.kind, block=TILE, head=head, max_rows=64, max_columns=64),
        )
        for head in range(min(n_heads, _MAX_PANELS))
    ]
    return distinct(found)


def _index(costs: dict[str, Cost]) -> str:
    parts = ["# attnc.library", _INDEX]
    for family, title in FAMILIES.items():
        rows = [f"## [{title}]({family}.md)", ""]
        has_costs = family != "scores"
        rows.append(f"| name | what it does |{' tiles visited | closed form |' * has_costs}")
        rows.append("|---|---|" + "---:|---|" * has_costs)
        for entry in ENTRIES.values():
            if entry.family == family:
                row = f"| [`{entry.name}`]({family}.md#{entry.name}) | {_marked(entry.summary)} |"
                rows.append(row + (_cells(costs[entry.name]) if has_costs else ""))
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _cells(cost: Cost) -> str:
    return f" {cost.visited:.1%} | {'yes' if cost.is_closed else 'no'} |"


def _intro(family: str) -> str:
    shown = "`attnc show library:NAME` draws each of these; [all families](README.md)."
    return f"{shown} {_SCORES}" if family == "scores" else shown


def _section(entry: Entry, cost: Cost | None) -> str:
    doc = inspect.getdoc(entry.factory) or ""
    said, _, arguments = doc.partition("\nArgs:\n")
    parts = [f"## {entry.name}", f"`{entry.name}{_signature(entry)}`"]
    parts += [_marked(" ".join(text.split())) for text in said.strip().split("\n\n")]
    if arguments:
        parts.append(_arguments(arguments))
    parts += [f"Source: {_linked(entry.source)}.", _code(entry)]
    found = drawings(entry)
    label = f" at {found[0].label}" if found[0].label else ""
    parts.append(f"![{entry.name}](pictures/{entry.name}.png)")
    picture = plain(text_lines(found[0].content))
    parts.append(
        f"<details><summary>As text{label}</summary>\n\n```text\n{picture}\n```\n\n</details>"
    )
    if cost is not None:
        parts.append(_told(entry, cost))
    return "\n\n".join(parts)


def _signature(entry: Entry) -> str:
    # Annotations are strings, which a signature prints in quotes.
    return re.sub(r"'([^']*)'", r"\1", str(inspect.signature(entry.factory)))


def _arguments(text: str) -> str:
    """The list of arguments; a description goes on in lines that are indented further."""
    items: list[str] = []
    for line in textwrap.dedent(text).rstrip().splitlines():
        if line.startswith(" "):
            items[-1] += f" {line.strip()}"
        else:
            name, _, said = line.partition(": ")
            items.append(f"- `{name}`: {said}")
    return _marked("\n".join(items))


def _code(entry: Entry) -> str:
    names = [name for name in library.__all__ if re.search(rf"\b{name}\b", entry.example)]
    imports = ["import torch", ""] if "torch." in entry.example else []
    imports.append(f"from attnc.library import {', '.join(names)}")
    kind = "score" if entry.family == "scores" else "mask"
    line = f"{kind} = {entry.example}"
    if len(line) > _WIDTH:
        start, _, rest = line.partition("(")
        line = f"{start}(\n    {rest.removesuffix(')')}\n)"
    return "\n".join(["```python", *imports, "", line, "```"])


def _told(entry: Entry, cost: Cost) -> str:
    bounds = "bounds in closed form" if cost.is_closed else "a table of runs, no closed form"
    return (
        f"At {N_TOKENS} keys, `{LONG[entry.name]}` visits {cost.visited:.1%} of the tiles of "
        f"{TILE} x {TILE}; {cost.full:.1%} need no mask. Loops: {bounds}."
    )


def _linked(source: str) -> str:
    return re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", source)


def _marked(text: str) -> str:
    return text.replace("``", "`")


_SCORES = (
    "A score alone visits all tiles; `score.where(mask)` leaves out those of a mask, and "
    "`score.then(other)` applies another after it."
)

_INDEX = f"""\
Masks and scores of the literature. Each function gives a `Kernel`: it runs, combines with others,
pickles, and serves wherever a `mask_mod` or `score_mod` does. These pages are written by
`python docs/make_library.py`.

```python
import torch

from attnc import library

q, k, v = (torch.randn(1, 8, 256, 64) for _ in range(3))
local = library.causal() & library.sliding_window(100)
out = library.alibi(8).where(local)(q, k, v)
```

```console
$ attnc show --list
$ attnc show library:sliding_window
$ attnc show 'library:causal() & sliding_window(100)' --shape 1,1,1024,1024,64
$ attnc prove library:documents --causal --in-bounds
```

*Tiles visited* is the share of tiles of {TILE} x {TILE} that are not empty at {N_TOKENS} keys, for the
arguments that the entry's page names; *closed form*: loop bounds are formulas, so that no mask is
kept in memory."""


def main() -> None:
    """Writes pages and pictures."""
    (FOLDER / "pictures").mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text)
    for entry in ENTRIES.values():
        picture = png_bytes(drawings(entry), with_title=False)
        (FOLDER / "pictures" / f"{entry.name}.png").write_bytes(picture)


if __name__ == "__main__":
    main()
