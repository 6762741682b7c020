"""What an order of tokens gains: raster order and the one that ``attnc.layout.search`` finds.

``python -m benchmarks.layouts`` times windows on an image and three masks on videos, forward and
with backward, in raster order and in the best order, permutations of q, k, v, out and gradients
included, and forward by SDPA with a dense mask. It writes ``benchmarks/results/layouts.json`` and ``.md``.
Both orders are checked against each other.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

import attnc
from attnc import layout, library
from benchmarks.measure import (
    RESULTS,
    Call,
    in_turns,
    machine_facts,
    markdown_table,
    thread_count,
    write_json,
)


@dataclass(frozen=True)
class Case:
    """A mask of the tokens of a grid."""

    name: str
    mask: attnc.Kernel
    grid: tuple[int, ...]


CASES = (
    Case("Swin, windows of 8 x 8", library.windows((64, 64), 8), (64, 64)),
    Case("Swin, shifted by 4", library.windows((64, 64), 8, shift=4), (64, 64)),
    Case(
        "neighbourhood 7 x 7, dilation 4", library.neighborhood((64, 64), 7, dilation=4), (64, 64)
    ),
    Case("neighbourhood 7 x 7", library.neighborhood((64, 64), 7), (64, 64)),
    Case("video, each pixel over time", library.axial((16, 16, 32), 0), (16, 16, 32)),
    Case(
        "video, tiles of 4 x 8 x 8, 1 x 3 x 3 of them",
        library.sliding_tiles((8, 32, 32), (4, 8, 8), (1, 3, 3)),
        (8, 32, 32),
    ),
)


def calls_of(case: Case, chosen: layout.Layout, heads: int, head_dim: int) -> dict[str, Call]:
    """Forward, and forward with backward, of each way to compute the same."""
    n = chosen.n_tokens
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, heads, n, head_dim, requires_grad=True) for _ in range(3))
    grad = torch.randn(1, heads, n, head_dim)
    dense = attnc.create_mask(case.mask, 1, 1, n, n)

    def raster() -> torch.Tensor:
        return attnc.attention(q, k, v, mask=case.mask)  # type: ignore[return-value]

    def ordered() -> torch.Tensor:
        return attnc.attention(q, k, v, mask=case.mask, layout=chosen)  # type: ignore[return-value]

    def sdpa() -> torch.Tensor:
        return scaled_dot_product_attention(q, k, v, attn_mask=dense)

    torch.testing.assert_close(ordered(), raster(), rtol=1e-3, atol=1e-4)

    def forward(way: Any) -> Call:
        def call() -> Any:
            with torch.no_grad():
                return way()

        return call

    def both(way: Any) -> Call:
        return lambda: torch.autograd.grad(way(), (q, k, v), grad)

    return {
        "raster, forward": forward(raster),
        "ordered, forward": forward(ordered),
        "sdpa, forward": forward(sdpa),
        "raster, both": both(raster),
        "ordered, both": both(ordered),
    }


def measured(case: Case, heads: int, head_dim: int, n_rounds: int) -> dict[str, Any]:
    """Tile counts and times of a case, as they are written to JSON."""
    start = time.perf_counter()
    found = layout.search(case.mask, case.grid)
    seconds = time.perf_counter() - start
    own = next(each for each in found.candidates if each.layout.is_own)
    best = next(each for each in found.candidates if each.layout is found.best)
    times = in_turns(calls_of(case, found.best, heads, head_dim), n_rounds)
    return {
        "case": case.name,
        "grid": case.grid,
        "best": found.best.name,
        "candidates": len(found.candidates),
        "search_ms": round(1e3 * seconds, 1),
        "visited": {"raster": own.n_visited / own.n_tiles, "best": best.n_visited / best.n_tiles},
        "ms": {name: taken.in_ms() for name, taken in times.items()},
    }


def row_of(result: dict[str, Any]) -> list[str]:
    ms = {name: taken["median"] for name, taken in result["ms"].items()}
    visited = result["visited"]
    cells = [result["case"], result["best"]]
    cells.append(f"{visited['raster']:.1%} to {visited['best']:.1%}")
    for passes in ("forward", "both"):
        raster, ordered = ms[f"raster, {passes}"], ms[f"ordered, {passes}"]
        cells.append(f"{raster:.1f} to {ordered:.1f} ms, {raster / ordered:.2f}x")
    cells.append(f"{ms['sdpa, forward']:.0f} ms")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dry", action="store_true", help="print only, write no files")
    options = parser.parse_args()
    with thread_count(1):
        rows = [measured(case, options.heads, options.head_dim, options.rounds) for case in CASES]
        about = machine_facts() | {"heads": options.heads, "head_dim": options.head_dim}
    headings = ["mask", "best order", "tiles visited", "forward", "with backward", "SDPA, forward"]
    table = markdown_table(headings, map(row_of, rows))
    print(table)
    if not options.dry:
        write_json(RESULTS / "layouts.json", {"about": about, "rows": rows})
        heading = (
            f"From raster order to the best, permutations included: float32, {options.heads} heads,"
            f" D {options.head_dim}, one thread of {about['processor']}.\n\n"
        )
        (RESULTS / "layouts.md").write_text(heading + table)


if __name__ == "__main__":
    main()
