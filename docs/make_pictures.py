"""Writes docs/pictures: tiles of a mask, and the boxes of indices that the analysis asks about.

    python docs/make_pictures.py

They have no background, and colours that are read on white and on black.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch

from attnc.blocks import split
from attnc.decorator import Kernel
from attnc.intervals import Truth
from attnc.library import causal, documents, sliding_window
from attnc.pictures.colours import DARK, in_hex
from attnc.run_table import Kind

FOLDER = Path(__file__).parent / "pictures"

N_TOKENS = 2048
TILE = 32
LENGTHS = torch.tensor([300, 140, 610, 85, 413, 500])
DOCUMENTS = torch.repeat_interleave(torch.arange(len(LENGTHS)), LENGTHS)

_LINE = "#8a94a0"
_FILLS = {0: "none", 1: in_hex(DARK[1]), 2: in_hex(DARK[2])}
_SIDE, _GAP, _HEAD = 256, 24, 22


class Square(NamedTuple):
    """In tokens; ``kind``: 0 where nothing is visible, 1 where some is, 2 where all is."""

    row: int
    column: int
    size: int
    kind: int


def landing() -> str:
    """Tiles of a window in packed documents."""
    analysis = (_packed() & sliding_window(255)).analyze(N_TOKENS, N_TOKENS, BLOCK_SIZE=TILE)
    n_tiles = N_TOKENS // TILE
    places = [(row, column) for row in range(n_tiles) for column in range(n_tiles)]
    kinds = {Kind.EMPTY: 0, Kind.PARTIAL: 1, Kind.FULL: 2}
    squares = [
        Square(row * TILE, column * TILE, TILE, kinds[analysis.kind(row, column)])
        for row, column in places
    ]
    return _svg([("", [square for square in squares if square.kind])], "tiles of a mask")


def boxes() -> str:
    """The boxes that decide a mask, level by level from one that holds all pairs."""
    levels = _levels(_packed())
    panels = []
    for last in (0, 2, 4, len(levels) - 1):
        n_boxes = sum(map(len, levels[: last + 1]))
        decided = [square for level in levels[:last] for square in level if square.kind != 1]
        panels.append((f"{n_boxes:,} asked", [*decided, *levels[last]]))
    return _svg(panels, "boxes of indices")


def _packed() -> Kernel:
    return documents(DOCUMENTS) & causal()


def _levels(kernel: Kernel) -> list[list[Square]]:
    """The boxes of each level, with the answers."""
    levels: list[list[Square]] = []
    ask = split.truths_on
    kinds = {Truth.NEVER: 0, Truth.MAYBE: 1, Truth.ALWAYS: 2}

    def recorded(mask: Any, front: Any, axes: Any, facts: Any) -> Any:
        truths = ask(mask, front, axes, facts)
        size = N_TOKENS >> len(levels)
        found = zip(front.row.tolist(), front.column.tolist(), truths.tolist(), strict=True)
        levels.append([Square(r * size, c * size, size, kinds[Truth(t)]) for r, c, t in found])
        return truths

    # As it is used, the analysis asks about a thousand boxes at first.
    with (
        patch.object(split, "truths_on", recorded),
        patch.object(split, "_FIRST_BOXES", 1),
        patch.object(split, "_FEW_BOXES", 0),
    ):
        kernel.analyze(N_TOKENS, N_TOKENS, BLOCK_SIZE=TILE)
    return levels


def _svg(panels: Sequence[tuple[str, Iterable[Square]]], title: str) -> str:
    """Panels side by side, each with a text above."""
    head = _HEAD if any(text for text, _ in panels) else 2
    width = len(panels) * (_SIDE + _GAP) - _GAP + 2
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_SIDE + head + 2}">',
        '<g font-family="sans-serif" font-size="13">',
        f"<title>{title}</title>",
    ]
    for i, (text, squares) in enumerate(panels):
        left = 1 + i * (_SIDE + _GAP)
        if text:
            lines.append(f'<text x="{left}" y="14" fill="{_LINE}">{text}</text>')
        lines.append(f'<g transform="translate({left} {head})">')
        found = list(squares)
        for kind, fill in _FILLS.items():
            path = "".join(_path(square) for square in found if square.kind == kind)
            if path:
                lines.append(f'<path d="{path}" fill="{fill}" stroke="{_LINE}" stroke-width=".4"/>')
        lines.append(f'<path d="M0 0h{_SIDE}v{_SIDE}h-{_SIDE}z" fill="none" stroke="{_LINE}"/></g>')
    return "\n".join([*lines, "</g></svg>"]) + "\n"


def _path(square: Square) -> str:
    x, y, side = (
        np.format_float_positional(number * _SIDE / N_TOKENS, trim="-")
        for number in (square.column, square.row, square.size)
    )
    return f"M{x} {y}h{side}v{side}h-{side}z"


PICTURES = {"landing.svg": landing, "boxes.svg": boxes}


def main() -> None:
    """Writes them."""
    FOLDER.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / name).write_text(draw())


if __name__ == "__main__":
    main()
