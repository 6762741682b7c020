"""Pictures as lines of text with styles: for terminals, and without the styles for all else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import assert_never

import numpy as np

from attnc.analysis import LEGEND
from attnc.pictures.colours import of_level
from attnc.pictures.drawing import Content, Curve, Drawing, Heat, Pairs, Tiles

#: Text and its style, as rich names it; "" for none.
Span = tuple[str, str]
Line = tuple[Span, ...]

LABEL_WIDTH = 8

_STYLES = {"·": "bright_black", "▒": "yellow", "█": "cyan"}
_SHADES = "·░▒▓█"
_CURVE_WIDTH, _CURVE_HEIGHT = 61, 15


def text_lines(content: Content, *, coloured: bool = False) -> list[Line]:
    """The picture, its scale and what it amounts to.

    Args:
        content: What is seen.
        coloured: The styles will be shown. A heat map then is colours alone; without them it is
            shades.
    """
    match content:
        case Pairs():
            lines = [
                (_plain(f"{q_idx:>3} "), *_marked("".join("██" if seen else "··" for seen in row)))
                for q_idx, row in enumerate(content.visible.tolist())
            ]
        case Tiles():
            lines = _tiles(content)
        case Heat():
            lines = _heat(content, coloured)
        case Curve():
            lines = _curve(content)
        case _:
            assert_never(content)
    return [*lines, (_plain(content.note),)]


def distinct(drawings: Sequence[Drawing]) -> list[Drawing]:
    """The drawings; the first alone and without its label where all heads look the same."""
    seen = {plain(text_lines(drawing.content)) for drawing in drawings}
    return [replace(drawings[0], label="")] if len(seen) == 1 else list(drawings)


def plain(lines: Iterable[Line]) -> str:
    """The text alone, without spaces at the ends of lines."""
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines)


def _plain(text: str) -> Span:
    return text, ""


def _marked(text: str) -> list[Span]:
    """Spans of equal marks, each with the style of its mark."""
    return [("".join(run), _STYLES[mark]) for mark, run in groupby(text)]


def _tiles(tiles: Tiles) -> list[Line]:
    picture = tiles.picture
    lines: list[Line] = [(_plain(tiles.title),)]
    for number, row in enumerate(picture.lines):
        first = number * picture.row_step * picture.block_m
        lines.append((_plain(f"{first:>{LABEL_WIDTH - 1}} "), *_marked(row)))
    if picture.scale:
        lines.append((_plain(picture.scale),))
    return [*lines, (_plain(LEGEND),)]


def _heat(heat: Heat, coloured: bool) -> list[Line]:
    is_whole = heat.row_step == heat.column_step == 1
    width = 2 if is_whole else 1
    label = 3 if is_whole else LABEL_WIDTH - 1
    lines: list[Line] = []
    for number, row in enumerate(heat.levels.tolist()):
        cells = _coloured(row, width) if coloured else [_plain(_shaded(row, width))]
        lines.append((_plain(f"{number * heat.row_step:>{label}} "), *cells))
    if heat.scale:
        lines.append((_plain(heat.scale),))
    least, largest = heat.range
    blank = "  blank: masked" if np.isnan(heat.values).any() else ""
    if coloured:
        bar = [(" ", _background(step / 15)) for step in range(16)]
        return [*lines, (_plain(f"{least:.4g} "), *bar, _plain(f" {largest:.4g}{blank}"))]
    if least == largest:
        return [*lines, (_plain(f"{_SHADES[0]} {least:.4g}{blank}"),)]
    steps = np.linspace(least, largest, len(_SHADES) + 1)
    shades = [
        f"{shade} {a:.3g} to {b:.3g}"
        for shade, a, b in zip(_SHADES, steps[:-1], steps[1:], strict=True)
    ]
    return [*lines, (_plain("  ".join(shades) + blank),)]


def _shaded(row: list[float], width: int) -> str:
    n = len(_SHADES)
    return "".join(
        (" " if math.isnan(level) else _SHADES[min(int(level * n), n - 1)]) * width for level in row
    )


def _coloured(row: list[float], width: int) -> list[Span]:
    styles = ["" if math.isnan(level) else _background(round(level * 31) / 31) for level in row]
    return [(" " * width * len(list(run)), style) for style, run in groupby(styles)]


def _background(level: float) -> str:
    return "on rgb({},{},{})".format(*of_level(level))


def _curve(curve: Curve) -> list[Line]:
    least, largest = float(curve.values.min()), float(curve.values.max())
    span = (largest - least) or 1.0
    picked = np.linspace(0, len(curve.values) - 1, _CURVE_WIDTH).round().astype(int)
    rows = ((largest - curve.values[picked]) / span * (_CURVE_HEIGHT - 1)).round().astype(int)
    lines: list[Line] = []
    for row in range(_CURVE_HEIGHT):
        label = largest - span * row / (_CURVE_HEIGHT - 1)
        is_labelled = row in (0, _CURVE_HEIGHT // 2, _CURVE_HEIGHT - 1)
        name = f"{label:>{LABEL_WIDTH}.4g} ┤" if is_labelled else " " * LABEL_WIDTH + " │"
        points = "".join("•" if at == row else " " for at in rows.tolist())
        lines.append((_plain(name), (points, "cyan")))
    first, last = f"{curve.scores[0]:g}", f"{curve.scores[-1]:g}"
    middle = _CURVE_WIDTH // 2
    axis = first.ljust(middle) + "0"
    axis += last.rjust(_CURVE_WIDTH - len(axis))
    indent = " " * (LABEL_WIDTH + 2)
    return [*lines, (_plain(f"{indent[:-1]}└{'─' * _CURVE_WIDTH}"),), (_plain(indent + axis),)]
