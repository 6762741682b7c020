"""Pictures as PNG, by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np

from attnc.pictures.colours import LIGHT, in_hex, of_level
from attnc.pictures.drawing import Content, Curve, Drawing, Heat, Pairs, Tiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL, _HEIGHT = 3.2, 3.7  # inches
_DPI = 100
_N_COLOURS = 48  # a palette keeps files small, and is enough for a ramp and edges of text
_TITLE_WIDTH = 60


def png_bytes(drawings: Sequence[Drawing], *, with_title: bool = True) -> bytes:
    """One PNG with the drawings side by side, in a palette of few colours.

    Args:
        drawings: Of one function: batches or heads.
        with_title: Whether its title stands above.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure
    from PIL import Image

    width = _PANEL * len(drawings)
    figure = Figure(figsize=(width, _HEIGHT), dpi=_DPI, layout="compressed")
    for axes, drawing in zip(
        figure.subplots(1, len(drawings), squeeze=False)[0], drawings, strict=True
    ):
        _draw(axes, drawing.content)
        if drawing.label:
            axes.set_title(drawing.label, fontsize=8)
    if with_title:
        title = drawings[0].title
        limit = _TITLE_WIDTH * len(drawings)
        shown = title if len(title) <= limit else title[: limit - 3] + "..."
        figure.suptitle(shown, fontsize=8, family="monospace", parse_math=False, wrap=True)
    drawn = BytesIO()
    figure.savefig(drawn, format="png", bbox_inches="tight", pad_inches=0.06)
    kept = BytesIO()
    few = Image.open(drawn).convert("RGB").quantize(_N_COLOURS, dither=Image.Dither.NONE)
    few.save(kept, format="png", optimize=True)
    return kept.getvalue()


def _draw(axes: Axes, content: Content) -> None:
    axes.tick_params(labelsize=7)
    match content:
        case Pairs():
            kinds = content.visible * 2
            _image(axes, kinds, content.visible.shape)
        case Tiles():
            picture, table = content.picture, content.analysis.table
            kinds = np.array([["·▒█".index(mark) for mark in row] for row in picture.lines])
            _image(axes, kinds, (table.n_queries, table.n_keys))
        case Heat():
            _draw_heat(axes, content)
        case Curve():
            axes.plot(content.scores, content.values, color=in_hex(LIGHT[2]))
            axes.grid(color="#dddddd", linewidth=0.5)
            axes.set_xlabel("score", fontsize=7)
            axes.set_ylabel("becomes", fontsize=7)
        case _:
            assert_never(content)


def _image(axes: Axes, kinds: Any, shape: tuple[int, ...]) -> None:
    from matplotlib.colors import ListedColormap

    n_queries, n_keys = shape
    colours = ListedColormap([in_hex(colour) for colour in LIGHT])
    extent = (0, n_keys, n_queries, 0)
    axes.imshow(kinds, cmap=colours, vmin=0, vmax=2, interpolation="nearest", extent=extent)
    _name_axes(axes)


def _draw_heat(axes: Axes, heat: Heat) -> None:
    from matplotlib.colors import ListedColormap

    ramp = ListedColormap([in_hex(of_level(step / 31)) for step in range(32)])
    least, largest = heat.range
    n_rows, n_columns = heat.values.shape
    image = axes.imshow(
        heat.values,
        cmap=ramp,
        vmin=least,
        vmax=largest,
        interpolation="nearest",
        extent=(0, n_columns * heat.column_step, n_rows * heat.row_step, 0),
    )
    assert axes.figure is not None
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8)
    bar.ax.tick_params(labelsize=6)
    _name_axes(axes)


def _name_axes(axes: Axes) -> None:
    axes.set_xlabel("kv_idx", fontsize=7)
    axes.set_ylabel("q_idx", fontsize=7)
