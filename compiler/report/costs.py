"""The cost model as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attnc.analysis.counts import share_text
from attnc.cost import Cost
from attnc.stages.texts import scaled, time_text


@dataclass(frozen=True)
class CostRow:
    """One pass.

    Attributes:
        name: Of the pass.
        classes: Its tiles by class, in words.
        full, partial: Shares of all tiles, in percent, as the widths of a bar.
        cells: The other columns.
        time, speedup: None where they are not known.
        is_bound: The time is the least possible, no expectation.
    """

    name: str
    classes: str
    full: str
    partial: str
    cells: tuple[str, ...]
    time: str | None
    speedup: str | None
    is_bound: bool


def cost_rows(costs: Mapping[str, Cost]) -> tuple[CostRow, ...]:
    """A row for each pass, in their order."""
    return tuple(_row(name, cost) for name, cost in costs.items())


def _row(name: str, cost: Cost) -> CostRow:
    n_tiles = max(cost.n_visited + cost.n_empty, 1)
    classes = f"{cost.n_full:,} full, {cost.n_partial:,} partial, {cost.n_empty:,} empty"
    time = None if cost.seconds is None else time_text(cost.seconds)
    speedup = None if cost.speedup is None else f"{cost.speedup:.2f}x"
    cells = (
        f"{cost.n_visited:,}",
        share_text(cost.skipped),
        scaled(cost.flops),
        scaled(cost.n_bytes),
        f"{cost.intensity:.1f}",
        time or "-",
        speedup or "-",
    )
    full, partial = (f"{100 * n / n_tiles:.2f}" for n in (cost.n_full, cost.n_partial))
    return CostRow(name, classes, full, partial, cells, time, speedup, cost.is_bound)
