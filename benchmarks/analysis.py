"""What is decided about a mask without looking at its elements, and how long that takes.

``python -m benchmarks.analysis --systems`` asks about the masks of ``mask_catalogue``: tiles, how
many were evaluated by element, whether the loop bounds have a closed form. ``--scale`` builds the
block mask of causal attention in 1,000 documents from 4k to 8M tokens, beside PyTorch's builders.
Both write JSON and Markdown into ``benchmarks/results``, ``--scale`` a picture as well.

Times are processor time on one thread, so that other programs do not count.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import attnc
from benchmarks.analysis_scale import curve, draw, scale_table
from benchmarks.mask_catalogue import Entry, all_masks
from benchmarks.measure import RESULTS, machine_facts, markdown_table, thread_count, write_json

BATCH, HEADS = 2, 4


def measured(entry: Entry, *, with_bounds: bool = True) -> dict[str, Any]:
    """One row of results about a mask in tiles of 128 x 128."""
    arguments = (entry.mask, BATCH, HEADS, entry.n_queries, entry.n_keys)
    attnc.analyze(*arguments)  # what is imported or traced once does not count
    start = time.process_time()
    analysis = attnc.analyze(*arguments)
    taken = time.process_time() - start
    row: dict[str, Any] = {
        "mask": entry.name,
        "static": entry.static,
        "n_queries": entry.n_queries,
        "n_keys": entry.n_keys,
        "tiles": analysis.table.n_tiles,
        "empty": analysis.n_empty,
        "partial": analysis.n_partial,
        "full": analysis.n_full,
        "evaluated": analysis.n_evaluated,
        "ms": round(1e3 * taken, 2),
    }
    if with_bounds:
        row["closed_form"] = analysis.bounds is not None
    return row


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many of the masks, static and all, are decided without elements or in closed form."""
    result: dict[str, Any] = {}
    for name, some in (("static", [r for r in rows if r["static"]]), ("all", list(rows))):
        result[name] = {
            "masks": len(some),
            "nothing_evaluated": sum(row["evaluated"] == 0 for row in some),
            "closed_form": sum(row.get("closed_form", False) for row in some),
        }
    return result


def systems_table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as Markdown, under a line that sums them up."""

    def cells(row: dict[str, Any]) -> list[str]:
        counts = [f"{row[key]:,}" for key in ("tiles", "empty", "full", "partial", "evaluated")]
        closed = "yes" if row.get("closed_form") else "no"
        kind = "static" if row["static"] else "data"
        size = f"{row['n_queries']} x {row['n_keys']}"
        return [row["mask"], kind, size, *counts, closed, f"{row['ms']:.1f}"]

    lines = [
        f"{counts['masks']} masks ({name}): {counts['nothing_evaluated']} without an evaluated tile, "
        f"{counts['closed_form']} in closed form."
        for name, counts in summary(rows).items()
    ]
    headings = ["mask", "", "size", "tiles", "empty", "full", "partial", "evaluated"]
    headings += ["closed form", "ms"]
    return "\n\n".join([*lines, markdown_table(headings, map(cells, rows))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", action="store_true", help="the masks of published systems")
    parser.add_argument("--scale", action="store_true", help="documents from 4k to 8M tokens")
    parser.add_argument("--lengths", type=int, nargs="+", default=[2**n for n in range(12, 24)])
    parser.add_argument("--dry", action="store_true", help="print only, write no files")
    options = parser.parse_args()
    if not (options.systems or options.scale):
        parser.error("say what to measure: --systems, --scale or both")
    with thread_count(1):
        about = machine_facts()
        if options.systems:
            rows = [measured(entry) for entry in all_masks()]
            table = systems_table(rows)
            print(table)
            if not options.dry:
                content = {"about": about, "summary": summary(rows), "rows": rows}
                write_json(RESULTS / "analysis_systems.json", content)
                (RESULTS / "analysis_systems.md").write_text(table)
        if options.scale:
            points = curve(options.lengths)
            table = scale_table(points)
            print(table)
            if not options.dry:
                write_json(RESULTS / "analysis.json", {"about": about, "points": points})
                (RESULTS / "analysis.md").write_text(table)
                draw(points, RESULTS / "analysis.png")


if __name__ == "__main__":
    main()
