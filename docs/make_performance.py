"""Writes docs/performance.md from what benchmarks recorded in benchmarks/results.

python docs/make_performance.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"

Content = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        title: Its heading.
        results: Name of the file of results, without ``.json``.
        command: What measures again.
        text: Writes it from the content of the file.
    """

    title: str
    results: str
    command: str
    text: Callable[[Content], str]


def page() -> str:
    """Text of the page."""
    parts = [_INTRO]
    for section in SECTIONS:
        content = json.loads((RESULTS / f"{section.results}.json").read_text())
        told = _told(content, section.command, section.results)
        parts += [f"## {section.title}", section.text(content), told]
    return "\n\n".join([*parts, _UNMEASURED]) + "\n"


def _told(content: Content, command: str, name: str) -> str:
    """Where a section's figures come from."""
    about = content.get("machine") or content["about"]
    words = [about["processor"]] if "processor" in about else []
    if "target" in about:
        words.append(f"compiled for {about['target']} with triton {about['triton']}, not run")
    if "capability" in about:
        words.append(about["capability"])
    if "n_threads" in about:
        n_threads = about["n_threads"]
        words.append("one thread" if n_threads == 1 else f"{n_threads} threads")
    words.append(f"torch {about['torch']}")
    if about.get("load_average"):
        words.append(f"load of the machine {about['load_average'][0]:.1f} at the start")
    if "date" in about:
        words.append(about["date"])
    table = RESULTS / f"{name}.md"
    all_figures = f" [All figures](../benchmarks/results/{name}.md)." if table.exists() else ""
    return f"*{', '.join(words)}.* `{command}`{all_figures}"


def _forward(content: Content) -> str:
    rows = content["rows"]
    dtypes = ("float32", "bfloat16")

    def cells(case: str | None) -> Iterable[str]:
        for dtype in dtypes:
            found = [row for row in rows if row["dtype"] == dtype and case in (None, row["case"])]
            yield _ratio(row["flex_over_attnc"] for row in found)
            own = [row["sdpa_over_attnc"] for row in found if "sdpa_over_attnc" in row]
            dense = [
                row["sdpa_dense_mask_over_attnc"]
                for row in found
                if case and "sdpa_dense_mask_over_attnc" in row
            ]
            yield f"({_ratio(dense)})" if dense else _ratio(own)

    cases = list(dict.fromkeys(row["case"] for row in rows))
    lengths = sorted({row["n_queries"] for row in rows})
    widths = sorted({row["head_dim"] for row in rows})
    headings = ("", *(f"{dtype}: {peer}" for dtype in dtypes for peer in ("flex", "SDPA")))
    table = _table(headings, [*((case, *cells(case)) for case in cases), ("**all**", *cells(None))])
    error = [row["error_over_flex"] for row in rows]
    share = {
        dtype: [row["of_gemm"] for row in rows if row["case"] == "full" and row["dtype"] == dtype]
        for dtype in dtypes
    }
    return f"""\
How many times as long the peers take: geometric means over S {_and(lengths)}, D {_and(widths)}, \
{rows[0]["heads"]} heads. *flex* is
`torch.compile(flex_attention)` at its fastest block size. *SDPA* has no mask or its causal flag; \
in brackets a dense boolean
mask, which the last line leaves out. It cannot change scores.

{table}

The least of the {len(rows)} ratios to flex is {min(row["flex_over_attnc"] for row in rows):.2f}. \
Full attention reaches {_percent(share["float32"])} of
the rate of a matrix product of PyTorch in float32, {_percent(share["bfloat16"])} in bfloat16. \
The error against float64 is
{min(error):.1f} to {max(error):.1f} times flex's.

![Times beside the peers](../benchmarks/results/cpu.png)"""


def _backward(content: Content) -> str:
    rows = {(row["case"], row["dtype"]): row for row in content["rows"]}

    def cells(case: str) -> Iterable[str]:
        for dtype in ("float32", "bfloat16"):
            row = rows[case, dtype]
            yield f"{row['sdpa_over_attnc']:.1f}x"
            plain = row.get("backward_over_plain")
            yield "" if plain is None else f"{plain:.2f}"

    table = _table(
        (
            *("", "SDPA over attnc, float32", "bias, float32"),
            *("SDPA over attnc, bfloat16", "bias, bfloat16"),
        ),
        [(case, *cells(case)) for case in dict.fromkeys(case for case, _ in rows)],
    )
    first = content["rows"][0]
    growth = [
        f"{found['growth']:.2f} ({found['case']})"
        for found in content["memory"]
        if found["side"] == "attnc" and found.get("growth") is not None
    ]
    linear = ""
    if growth:
        linear = (
            f" Peak memory grows by {_and(growth)} times the growth of the sequence: 1 is linear."
        )
    return f"""\
Both passes at {first["n_queries"]:,} tokens, {first["heads"]} heads, head size {first["head_dim"]}. \
SDPA has its causal flag or no mask in the
first two lines, a dense mask in all others. *bias* is the time of the backward pass over that of the \
same mask without a learned
bias.{linear}

{table}"""


def _training(content: Content) -> str:
    runs, about = content["runs"], content["about"]
    ours, sdpa = runs["attnc"], runs["sdpa"]
    return f"""\
A byte-level transformer of {about["n_parameters"]:,} parameters on packed documents, window \
{about["window"]}, a learned bias by distance, rows of {about["length"]:,}
bytes; beside it its twin with SDPA and a dense mask, from equal weights, on equal batches.

{
        _table(
            ("", "attnc", "SDPA"),
            [
                ("a step", f"{ours['ms_per_step']:.0f} ms", f"{sdpa['ms_per_step']:.0f} ms"),
                (
                    "bits per byte, last 20 steps",
                    *(f"{run['last_20_steps']:.3f}" for run in (ours, sdpa)),
                ),
                ("bits per byte, held out", *(f"{run['held_out']:.3f}" for run in (ours, sdpa))),
            ],
        )
    }

![Losses of both](../benchmarks/results/train_bytes.png)"""


def _block_masks(content: Content) -> str:
    def ms(row: Content, name: str) -> str:
        return f"{row['ms'][name]['median']:,.1f} ms" if name in row["ms"] else "no room"

    names = ("eager", "compiled", "attnc", "to_torch")
    rows = [(f"{row['length']:,}", *(ms(row, name) for name in names)) for row in content["rows"]]
    headings = ("tokens", "PyTorch", "PyTorch, compiled", "attnc", "attnc, `to_torch()`")
    return f"""\
Causal attention in packed documents. PyTorch computes all pairs, so its time and memory grow with \
their number; compiling is
not counted. The last column is PyTorch's own block mask, with equal lists.

{_table(headings, rows)}"""


def _scale(content: Content) -> str:
    points = {(p["builder"], p["length"]): p for p in content["points"]}
    lengths = sorted({length for builder, length in points if builder == "analyze"})
    rows = []
    for length in lengths[::2]:
        point = points["analyze", length]
        first, later = point["first_ms"], point["ms"]
        rows.append(
            (f"{length:,}", f"{first:.1f} ms", f"{later:.1f} ms", f"{point['peak_mib']} MiB")
        )
    headings = ("tokens", "first call", "later calls", "memory")
    return f"""\
`attnc.analyze` on causal attention in 1,000 documents: the cost follows the boundary of the mask, \
not its area.

{_table(headings, rows)}

![Time over tokens](../benchmarks/results/analysis.png)"""


def _systems(content: Content) -> str:
    summary = content["summary"]
    static, every = summary["static"], summary["all"]
    return f"""\
Of {every["masks"]} masks of published systems, {every["nothing_evaluated"]} are decided without \
evaluating the pairs of a single tile. Of the {static["masks"]} that capture no
tensor, {static["closed_form"]} run on loop bounds computed in registers."""


def _varlen(content: Content) -> str:
    names = ("attnc", "padded", "one by one", "dense mask")
    rows = [
        (row["batch"], *(f"{row['ms'][name]['median']:.1f} ms" for name in names))
        for row in content["rows"]
    ]
    return f"""\
Sequences of a batch end to end, causal. The peers are PyTorch's SDPA on a padded batch, sequence by \
sequence, and packed with a dense
mask.

{_table(("batch", *names), rows)}"""


def _layouts(content: Content) -> str:
    rows = [
        (
            row["case"],
            row["best"],
            *(f"{row['visited'][name]:.1%}" for name in ("raster", "best")),
            *(f"{row['ms'][f'{name}, both']['median']:.0f} ms" for name in ("raster", "ordered")),
        )
        for row in content["rows"]
    ]
    headings = (
        *("mask", "best order", "tiles as they are", "tiles in it"),
        *("both passes as they are", "both passes in it"),
    )
    return f"""\
`attnc.layout.search` finds another order of tokens; permuting q, k, v and the output is counted.

{_table(headings, rows)}"""


def _overhead(content: Content) -> str:
    rows = [
        (
            f"`{row['call']}`",
            *(f"{row['us'][name]['median']:.0f} us" for name in ("attnc", "sdpa", "flex")),
        )
        for row in content["rows"]
    ]
    return f"""\
What a call costs where there is next to nothing to compute: one head, 64 tokens, head size 64. SDPA \
has no mask or score.

{_table(("call", "attnc", "SDPA", "flex, compiled"), rows)}"""


def _cost_model(content: Content) -> str:
    rows = [
        (
            entry["calls"],
            str(entry["n"]),
            *(f"{entry[name]:.1%}" for name in ("median", "ninety_percent", "worst")),
        )
        for entry in content["summaries"]
    ]
    return f"""\
How far `Analysis.cost` is from the processor time that calls take.

{_table(("calls", "number", "median", "90 % below", "worst"), rows)}"""


def _binaries(content: Content) -> str:
    def ratio(row: Content, loop: str) -> str:
        return f"{row['ratio'][loop]:.2f}" if loop in row["ratio"] else "-"

    rows = [
        (f"{row['case']}, D {row['head_dim']}", ratio(row, "FULL"), ratio(row, "PARTIAL"))
        for row in content["rows"]
    ]
    spilled = sum(row["attnc"]["spill_bytes"] > 0 for row in content["rows"])
    return f"""\
Machine instructions of our Triton kernels per tile of scores, divided by those of the kernels that \
Inductor renders for
`flex_attention` at its default configuration; bfloat16. {spilled or "None"} of ours spills. These \
are counts, no times: less is a promise, not a proof.

{_table(("kernel", "FULL tiles", "PARTIAL tiles"), rows)}

Geometric mean of FULL tiles: {content["geometric_mean"]["FULL"]:.2f}."""


SECTIONS = (
    Section("Forward pass on CPUs", "cpu", "python -m benchmarks.cpu", _forward),
    Section(
        "Forward and backward on CPUs",
        "backward",
        "OMP_NUM_THREADS=1 python -m benchmarks.backward --threads 1 --dims 64 --rounds 5 --seconds 2",
        _backward,
    ),
    Section(
        "Training on CPUs",
        "train_bytes",
        "python examples/train_bytes.py --attention both",
        _training,
    ),
    Section("Block masks", "block_masks", "python -m benchmarks.block_masks", _block_masks),
    Section(
        "The analysis in long sequences",
        "analysis",
        "python -m benchmarks.analysis --scale",
        _scale,
    ),
    Section(
        "Masks of published systems",
        "analysis_systems",
        "python -m benchmarks.analysis --systems",
        _systems,
    ),
    Section("Packed sequences", "varlen", "python -m benchmarks.varlen", _varlen),
    Section("Orders of tokens", "layouts", "python -m benchmarks.layouts", _layouts),
    Section("Small calls", "overhead", "python -m benchmarks.overhead", _overhead),
    Section("Expected times", "cost_model", "python -m benchmarks.cost_model", _cost_model),
    Section("Triton binaries", "inductor_sm90", "python -m benchmarks.inductor", _binaries),
)

_INTRO = """\
# Measured

Every figure is read from `benchmarks/results` by `python docs/make_performance.py`. Each section names its peers, the machine
and the command that measures again. Times are medians of calls in turns with the peers; other programs shared the
machine, so ratios are worth more than times.

**Nothing here was timed on a GPU.** Triton kernels are compiled for sm_80, sm_90, sm_100 and gfx942 and run in Triton's
interpreter; none was ever launched on a GPU. `python -m benchmarks.gpu --quick` measures where there is one."""

_UNMEASURED = """\
## What was not measured

- Any time on a GPU, forward or backward.
- CPUs without AVX-512, and ARM: kernels for AVX2 and for no extension at all are tested, not timed.
- More than two threads.
- FlashInfer, FlashAttention, FlashMask and NATTEN: they need a GPU."""


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ratio(values: Iterable[float]) -> str:
    found = list(values)
    return f"{exp(fmean(map(log, found))):.1f}x" if found else "-"


def _percent(shares: Sequence[float]) -> str:
    return f"{min(shares):.0%} to {max(shares):.0%}"


def _and(parts: Iterable[object]) -> str:
    return " and ".join(map(str, parts))


if __name__ == "__main__":
    PAGE.write_text(page())
