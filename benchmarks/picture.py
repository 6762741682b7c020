"""The table of ``benchmarks.cpu`` as a picture; needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Row = dict[str, Any]
_COLOURS = ("#1f4e79", "#2e86c1", "#85c1e9", "#d6eaf8", "#a9a9a9", "#696969")


def draw(rows: Sequence[Row], path: Path) -> None:
    """Writes bars by case and size, one column of axes for each dtype, to ``path``.

    Above how many times as long flex takes, below the share of the gemm's rate that attnc reaches.
    """
    dtypes = list(dict.fromkeys(row["dtype"] for row in rows))
    figure = Figure(figsize=(6 * len(dtypes), 8), layout="constrained")
    axes = figure.subplots(2, len(dtypes), squeeze=False, sharey="row")
    for column, dtype in enumerate(dtypes):
        here = [row for row in rows if row["dtype"] == dtype]
        faster, share = axes[:, column]
        _bars(faster, here, "flex_over_attnc")
        faster.axhline(1, color="black", linewidth=1)
        faster.axhline(2, color="black", linewidth=0.5, linestyle="--")
        faster.set_title(f"{dtype}: time of compiled flex_attention / time of attnc")
        _bars(share, here, "of_gemm")
        share.axhline(1, color="black", linewidth=0.5, linestyle="--")
        share.set_ylim(0, 1.05)
        share.set_title(f"{dtype}: GFLOP/s over visible pairs / GFLOP/s of a matrix product")
        faster.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def _bars(axes: Axes, rows: Sequence[Row], field: str) -> None:
    """Groups of bars by case; within a group one for each size."""
    cases = list(dict.fromkeys(row["case"] for row in rows))
    sizes = list(dict.fromkeys(map(_size, rows)))
    width = 0.8 / len(sizes)
    for number, size in enumerate(sizes):
        heights = {row["case"]: row[field] for row in rows if _size(row) == size and field in row}
        axes.bar(
            [cases.index(case) + (number - (len(sizes) - 1) / 2) * width for case in heights],
            list(heights.values()),
            width,
            label=size,
            color=_COLOURS[number % len(_COLOURS)],
        )
    axes.set_xticks(range(len(cases)), cases, rotation=20, ha="right")


def _size(row: Row) -> str:
    heads = "" if row["batch"] * row["heads"] == 8 else f"B={row['batch']} H={row['heads']}, "
    return f"{heads}S={row['n_keys']}, D={row['head_dim']}"
