"""The mask and the score as pictures: data for the script, and SVG for readers without scripts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from attnc.analysis import Analysis
from attnc.pictures import Tiles, content_of, svg_of
from attnc.report.tiles import Heads, heads_of, reasons_of
from attnc.stages import Inspection

_MAX_CELLS = 96


@dataclass(frozen=True)
class KindOfTile:
    """A class of tiles with what it means and how many there are, or nothing."""

    name: str
    meaning: str
    count: str


@dataclass(frozen=True)
class MaskPicture:
    """The mask.

    Attributes:
        title: Its sizes.
        svg: The first batch and head, drawn to scale.
        kinds: The legend.
        notes: What the picture leaves out.
        data: All for the script, as JSON's types.
    """

    title: str
    svg: Markup
    kinds: tuple[KindOfTile, ...]
    notes: tuple[str, ...]
    data: Any


@dataclass(frozen=True)
class ScorePicture:
    """What a score_mod makes of scores: a heat map or a curve."""

    title: str
    svg: Markup


def mask_picture(analysis: Analysis) -> MaskPicture:
    """All distinct batches and heads, as far as there is room, with reasons."""
    heads = heads_of(analysis.table)
    table = heads.table
    drawn = analysis if heads.factor == 1 else _of_table(analysis, heads)
    reasons = reasons_of(drawn, heads)
    tiles = Tiles(drawn.drawn(_MAX_CELLS, _MAX_CELLS), drawn)
    data = {
        "blockM": table.block_m,
        "blockN": table.block_n,
        "nQueries": table.n_queries,
        "nKeys": table.n_keys,
        "nBatch": table.n_batch,
        "nHeads": table.n_heads,
        "heads": [
            {"of": head.also, "runs": head.runs, "nRuns": head.n_runs, "counts": head.counts}
            for head in heads.shown
        ],
        "reasons": reasons.text,
    }
    meanings = (
        ("empty", "skipped", analysis.n_empty),
        ("partial", "computed with the mask", analysis.n_partial),
        ("full", "computed without the mask", analysis.n_full),
    )
    return MaskPicture(
        tiles.title,
        Markup(svg_of(tiles, 'class="picture" role="img" aria-label="Tiles of the mask"')),
        tuple(KindOfTile(name, meaning, f"{count:,}") for name, meaning, count in meanings),
        tuple(_notes(analysis, heads, reasons.n_tiles, reasons.are_all)),
        data,
    )


def _of_table(analysis: Analysis, heads: Heads) -> Analysis:
    """The same mask on the larger tiles that are drawn."""
    return replace(analysis, table=heads.table)


def _notes(analysis: Analysis, heads: Heads, n_reasons: int, are_all: bool) -> Iterator[str]:
    table = analysis.table
    if heads.factor > 1:
        sizes = f"{heads.table.block_m} x {heads.table.block_n}"
        yield (
            f"Drawn in tiles of {sizes}: the kernel's own, {table.block_m} x {table.block_n}, are "
            f"{len(table.starts):,} runs, too many for a page. The counts are those of the kernel."
        )
    if heads.n_left_out:
        yield f"{heads.n_left_out:,} more batches and heads differ; there is no room for them."
    if are_all:
        yield "Every visited tile tells why it is of its class."
    else:
        yield (
            f"{n_reasons:,} tiles, the ends and the middle of runs in rows at even steps, tell why "
            "they are of their class; others tell the reason of the nearest of these."
        )


def score_picture(inspection: Inspection, block: int) -> ScorePicture | None:
    """What the score_mod does; None without one."""
    if inspection.program.score is None:
        return None
    content = content_of(
        inspection, "score_mod", block=block, max_rows=_MAX_CELLS, max_columns=_MAX_CELLS
    )
    name = 'class="picture" role="img" aria-label="What becomes of scores"'
    return ScorePicture(content.note, Markup(svg_of(content, name)))
