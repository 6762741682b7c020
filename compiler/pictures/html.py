"""Pictures as one HTML page that needs nothing else: SVG, light and dark."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator, Sequence
from html import escape
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from attnc.pictures.colours import DARK, LIGHT, in_hex, of_level
from attnc.pictures.drawing import Content, Curve, Drawing, Heat, Pairs, Tiles

_N_LEVELS = 64
_CURVE_SIZE = 100
_NAMES = ("empty", "partial", "full")

_STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --text: #1d2329; --faint: #5c6670; LIGHT }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171b; --text: #e4e8ec; --faint: #9aa4ae; DARK }
}
body { background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, sans-serif;
  margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
h1 { font: 600 1.1rem/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
p { margin: .3rem 0; }
.faint, figcaption, text { color: var(--faint); fill: var(--faint); font-size: .85rem; }
.panels { display: flex; flex-wrap: wrap; gap: 1.5rem; margin-top: 1rem; }
figure { flex: 1 1 20rem; margin: 0; max-width: 40rem; }
svg { background: var(--empty); display: block; width: 100%; height: auto; max-height: 85vh; }
svg.curve { background: none; }
img { display: block; image-rendering: pixelated; width: 100%; }
.partial { fill: var(--partial); } .full { fill: var(--full); }
.line { fill: none; stroke: var(--full); stroke-width: 1; }
.axis { stroke: var(--faint); stroke-width: .3; }
.key { border: 1px solid var(--faint); display: inline-block; height: .8em; margin: 0 .3em 0 .9em;
  width: .8em; }
.bar { display: inline-block; height: .8em; margin: 0 .5em; width: 10em; }
"""


def html_page(drawings: Sequence[Drawing]) -> str:
    """A page with title, summary, source and the drawings, all of one function."""
    first = drawings[0]
    said = [f"<p>{escape(first.summary)}</p>"] if first.summary else []
    if first.source:
        said.append(f'<p class="faint">Source: {escape(first.source)}</p>')
    title = escape(first.title)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{title}</title>",
            f"<style>{_style()}</style>",
            f"<h1>{title}</h1>",
            *said,
            '<div class="panels">',
            *(_figure(drawing) for drawing in drawings),
            "</div>",
            "</html>",
            "",
        ]
    )


def _style() -> str:
    def colours(values: tuple[tuple[int, int, int], ...]) -> str:
        named = zip(_NAMES, values, strict=True)
        return " ".join(f"--{name}: {in_hex(colour)};" for name, colour in named)

    return _STYLE.replace("LIGHT", colours(LIGHT)).replace("DARK", colours(DARK))


def _figure(drawing: Drawing) -> str:
    content = drawing.content
    heading = f"{drawing.label}: " if drawing.label else ""
    name = escape(f"{drawing.title}, {content.note}", quote=True)
    caption = f"{escape(heading + content.note)}. {_key(content)}"
    drawn = svg_of(content, f'role="img" aria-label="{name}"')
    return f"<figure>{drawn}<figcaption>{caption}</figcaption></figure>"


def svg_of(content: Content, attributes: str) -> str:
    """The picture alone, an SVG or an image, in classes whose colours the page's style sets."""
    match content:
        case Pairs():
            return _grid((content.visible * 2).astype(np.int64), attributes)
        case Tiles():
            kinds = [["·▒█".index(mark) for mark in row] for row in content.picture.lines]
            return _grid(np.array(kinds), attributes)
        case Heat():
            data = base64.b64encode(_heat_png(content)).decode()
            return f'<img {attributes} src="data:image/png;base64,{data}">'
        case Curve():
            return _curve(content, attributes)
        case _:
            assert_never(content)


def _of_step(step: int) -> tuple[int, int, int]:
    return of_level(step / (_N_LEVELS - 1))


def _heat_png(heat: Heat) -> bytes:
    """A PNG with a pixel for each value, in a palette whose first colour is transparent.

    Source: Portable Network Graphics (Third Edition), W3C, sections 5 and 11.
    """
    steps = np.nan_to_num(heat.levels * (_N_LEVELS - 1), nan=-1).round().astype(np.uint8) + 1
    n_rows, n_columns = steps.shape
    palette = b"\0\0\0" + b"".join(bytes(_of_step(step)) for step in range(_N_LEVELS))
    rows = np.pad(steps, ((0, 0), (1, 0))).astype(np.uint8)  # each row begins with its filter: none
    header = struct.pack(">IIBBBBB", n_columns, n_rows, 8, 3, 0, 0, 0)
    parts = [(b"IHDR", header), (b"PLTE", palette), (b"tRNS", b"\0")]
    parts += [(b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    check = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)


def _grid(kinds: NDArray[np.int64], attributes: str) -> str:
    """Rows and columns of classes of tiles as one path for each class but the first."""
    n_rows, n_columns = kinds.shape
    paths = []
    for kind, name in enumerate(_NAMES[1:], start=1):
        drawn = "".join(_runs(kinds == kind))
        if drawn:
            paths.append(f'<path class="{name}" d="{drawn}"/>')
    box = f'viewBox="0 0 {n_columns} {n_rows}" shape-rendering="crispEdges"'
    return f"<svg {attributes} {box}>{''.join(paths)}</svg>"


def _runs(wanted: NDArray[np.bool_]) -> Iterator[str]:
    """A rectangle for each run of cells in a row."""
    padded = np.pad(wanted.astype(np.int8), ((0, 0), (1, 1)))
    edges = np.diff(padded, axis=1)
    starts, stops = np.argwhere(edges == 1), np.argwhere(edges == -1)
    for (row, start), (_, stop) in zip(starts.tolist(), stops.tolist(), strict=True):
        yield f"M{start} {row}h{stop - start}v1h{start - stop}z"


def _curve(curve: Curve, attributes: str) -> str:
    size = _CURVE_SIZE
    xs = np.linspace(0, size, len(curve.scores))
    least, largest = float(curve.values.min()), float(curve.values.max())
    ys = size / 2 * (largest - curve.values) / ((largest - least) or 1.0)
    points = " ".join(f"{x:.4g},{y:.4g}" for x, y in zip(xs.tolist(), ys.tolist(), strict=True))
    axes = f'<path class="axis" d="M0 {size / 2:g}h{size}M{size / 2:g} 0v{size / 2:g}"/>'
    line = f'<polyline class="line" points="{points}"/>'
    box = f"-1 -1 {size + 2} {size / 2 + 2:g}"
    return f'<svg {attributes} class="curve" viewBox="{box}">{axes}{line}</svg>'


def _key(content: Content) -> str:
    match content:
        case Pairs():
            return _squares(("hidden", "var(--empty)"), ("visible", "var(--full)"))
        case Tiles():
            return _squares(*((name, f"var(--{name})") for name in _NAMES)) + (
                f" {escape(content.title)}. {escape(content.picture.scale)}"
            )
        case Heat():
            ramp = ", ".join(in_hex(_of_step(step)) for step in range(0, _N_LEVELS, 9))
            least, largest = content.range
            bar = f'<span class="bar" style="background: linear-gradient(90deg, {ramp})"></span>'
            return f"{least:.4g}{bar}{largest:.4g} {escape(content.scale)}"
        case Curve():
            return ""
        case _:
            assert_never(content)


def _squares(*named: tuple[str, str]) -> str:
    return "".join(
        f'<span class="key" style="background: {colour}"></span>{name}' for name, colour in named
    )
