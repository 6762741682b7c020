"""``attnc show``: pictures of masks and scores, in the terminal, as PNG and as HTML."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnc.cli.console import is_terminal, write, write_heading
from attnc.cli.options import of_user_code, parsed_shape, shape_for
from attnc.cli.target import LIBRARY, library_entry, load_target
from attnc.errors import OptionValueError
from attnc.library import ENTRIES, Entry
from attnc.library.entry import LibraryKernel
from attnc.mods import Mod, mod_kind
from attnc.pictures import (
    Drawing,
    content_of,
    distinct,
    html_page,
    plain,
    png_bytes,
    text_lines,
)
from attnc.pictures.text import LABEL_WIDTH, Line
from attnc.stages import Inspection

if TYPE_CHECKING:
    from rich.text import Text

_SCREEN = (80, 44)  # columns and lines, where output goes to no terminal
_OTHER_LINES = 5  # title, scale, legend, counts, and the prompt after them
_LEAST = 8
_FILE_CELLS = 128
_MAX_PANELS = 4


@dataclass(frozen=True)
class Request:
    """What was typed: the function, sizes of the call, tokens per tile, and which batch and head.

    ``head`` is None where it was left out: 0 in the terminal, several in files.
    """

    target: str | None
    expression: str | None
    shape: str | None
    block: int
    batch: int
    head: int | None

    @property
    def name(self) -> str:
        return self.target or "--expr"


def run(request: Request, tile: str | None, png: str | None, html: str | None) -> None:
    """Draws in the terminal, or into the files that are named; or tells why one tile is of its
    class, for ``tile`` "q_block,kv_block".

    Raises:
        OptionValueError: A value of an option names nothing, or matplotlib is missing for ``png``.
    """
    shape = shape_for(request.target, request.shape)
    sizes = parsed_shape(shape)
    for option, value, size in (
        ("--batch", request.batch, sizes[0]),
        ("--head", request.head or 0, sizes[1]),
    ):
        if not 0 <= value < size:
            problem = f"--shape {shape} has {size}; use 0 to {size - 1}."
            raise OptionValueError(option=option, value=value, problem=problem)
    if request.block < 1:
        raise OptionValueError(option="--block", value=request.block, problem="use 1 or more.")
    if tile is not None and (png or html):
        problem = "it is told in words; leave out --png and --html."
        raise OptionValueError(option="--why", value=tile, problem=problem)
    mod = load_target(request.target, request.expression)
    inspection = of_user_code(
        request.name, lambda: Inspection.of(mod, shape=sizes, target="cpu-generic")
    )
    if tile is not None:
        _show_why(inspection, request, tile)
    elif png is None and html is None:
        _show(inspection, mod, request)
    else:
        _write_files(inspection, mod, request, png, html)


def write_names() -> None:
    """Prints the names of the library by family, each with its summary."""
    width = max(map(len, ENTRIES))
    for family, entries in groupby(ENTRIES.values(), key=lambda entry: entry.family):
        write_heading(family)
        for entry in entries:
            write(f"{LIBRARY}{entry.name:<{width}}  {_readable(entry.summary)}")


def _show_why(inspection: Inspection, request: Request, tile: str) -> None:
    try:
        q_block, kv_block = (int(part) for part in tile.split(","))
    except ValueError:
        problem = "write the numbers of a tile, row and column from 0, as in 3,2."
        raise OptionValueError(option="--why", value=tile, problem=problem) from None
    analysis = inspection.analysis(request.block)
    write(str(analysis.why(q_block, kv_block, request.batch, request.head or 0)))


def _show(inspection: Inspection, mod: Mod, request: Request) -> None:
    screen = shutil.get_terminal_size(_SCREEN)
    entry = _entry_of(request.target, mod)
    n_said = 0 if entry is None else 4
    cells = screen.lines - _OTHER_LINES - n_said, screen.columns - LABEL_WIDTH
    rows, columns = (max(size, _LEAST) for size in cells)
    drawing = _drawing(inspection, mod, request, request.head or 0, rows, columns)
    coloured = is_terminal()
    said: list[Line] = []
    if entry is not None:
        title = drawing.title + (f"   {drawing.label}" if drawing.label else "")
        said = [((title, "bold"),), ((drawing.summary, ""),)]
        said += [((f"Source: {drawing.source}", "dim"),), (("", ""),)]
    lines = [*said, *text_lines(drawing.content, coloured=coloured)]
    if not coloured:
        write(plain(lines))
        return
    from rich.console import Console

    Console(soft_wrap=True, highlight=False).print(*map(_styled, lines), sep="\n")


def _styled(line: Line) -> Text:
    from rich.text import Text

    return Text.assemble(*line)


def _write_files(
    inspection: Inspection, mod: Mod, request: Request, png: str | None, html: str | None
) -> None:
    n_heads = inspection.shape[1]
    heads: Iterable[int] = (
        [request.head] if request.head is not None else range(min(n_heads, _MAX_PANELS))
    )
    drawings = [
        _drawing(inspection, mod, request, head, _FILE_CELLS, _FILE_CELLS) for head in heads
    ]
    if request.head is None:
        drawings = distinct(drawings)
    files: dict[str, bytes] = {}
    if png is not None:
        try:
            files[png] = png_bytes(drawings)
        except ModuleNotFoundError as error:
            problem = "matplotlib is not installed. Run `pip install matplotlib`."
            raise OptionValueError(option="--png", value=png, problem=problem) from error
    if html is not None:
        files[html] = html_page(drawings).encode()
    for name, data in files.items():
        Path(name).write_bytes(data)
        write(f"wrote {name}, {len(data):,} bytes")


def _drawing(
    inspection: Inspection, mod: Mod, request: Request, head: int, rows: int, columns: int
) -> Drawing:
    content = content_of(
        inspection,
        mod_kind(mod),
        block=request.block,
        batch=request.batch,
        head=head,
        max_rows=rows,
        max_columns=columns,
    )
    n_batch, n_heads = inspection.shape[:2]
    label = [f"b = {request.batch}"] if n_batch > 1 else []
    label += [f"h = {head}"] if n_heads > 1 else []
    entry = _entry_of(request.target, mod)
    return Drawing(
        _title(request),
        _readable(_summary(mod) if entry is None else entry.summary),
        "" if entry is None else entry.source,
        ", ".join(label),
        content,
    )


def _title(request: Request) -> str:
    """What was typed; for an entry of the library its example."""
    entry = library_entry(request.target)
    if entry is not None:
        return entry.example
    return (request.target or request.expression or "").removeprefix(LIBRARY)


def _entry_of(target: str | None, mod: Mod) -> Entry | None:
    """The entry of the library that was named or called."""
    if isinstance(mod, LibraryKernel):
        return ENTRIES[mod.call.func.__name__]
    return library_entry(target)


def _summary(mod: Any) -> str:
    """The first line of its docstring."""
    text: str = getattr(mod, "__doc__", None) or ""
    return text.strip().partition("\n")[0]


def _readable(text: str) -> str:
    return text.replace("``", "`")
