"""attnc against ``torch.compile(flex_attention)`` and SDPA on this CPU, forward.

``python -m benchmarks.cpu`` prints a table and writes it to ``benchmarks/results/``: ``cpu.json``,
``cpu.md`` and, with matplotlib, ``cpu.png``. ``--section shapes`` measures other shapes instead and
writes ``cpu_shapes.*``. Candidates take turns in one process with the same number of threads, so
that a busy machine slows all of them alike; figures are medians. Compiling is not timed, nor is
making flex's block masks; for attnc what the mask needs is part of the call.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.ahead import compile_ahead
from benchmarks.cases import CASES, Problem
from benchmarks.contest import GEMM_SIZE, row_of
from benchmarks.measure import (
    RESULTS,
    gemm_flops,
    in_turns,
    machine_facts,
    markdown_table,
    n_usable_cpus,
    thread_count,
    write_json,
)
from benchmarks.shapes import problems as other_shapes
from benchmarks.targets import targets

_SUMMED_BYTES = 512 << 20  # far more than a cache holds
_HEADINGS = (
    "problem",
    "attnc ms",
    "flex ms",
    "SDPA ms",
    "flex / attnc",
    "SDPA / attnc",
    "GFLOP/s",
    "of gemm",
    "error",
    "/ flex's",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what the arguments ask for, prints and writes it."""
    options = _parser().parse_args(arguments)
    problems = _main_problems(options) if options.section == "main" else other_shapes()
    name = "cpu" if options.section == "main" else "cpu_shapes"
    with thread_count(options.threads):
        compile_ahead(problems, options.threads)
        facts = machine_facts()
        print("  ".join(f"{key}: {value}" for key, value in facts.items() if value), end="\n\n")
        limits = _limits(options.rounds)
        print(markdown_table(("limit", "measured"), limits.items()), flush=True)
        rows = _rows(problems, options)
    reached = targets(rows, [p.label() for p in problems]) if options.section == "main" else []

    tables = [markdown_table(_HEADINGS, map(_cells, problems, rows))]
    if reached:
        headings = ("target", "goal", "reached", "", "furthest")
        tables.append(markdown_table(headings, (target.cells() for target in reached)))
        print(f"\n{tables[-1]}")
    content = {
        "machine": facts,
        "limits": limits,
        "rows": rows,
        "targets": [target.fields() for target in reached],
    }
    write_json(options.output / f"{name}.json", content)
    about = f"{facts['processor']}, {facts['n_threads']} threads, torch {facts['torch']}\n"
    tables.insert(0, markdown_table(("limit", "measured"), limits.items()))
    (options.output / f"{name}.md").write_text("\n".join([about, *tables, _LEGEND]))
    if options.picture:
        _draw(rows, options.output / f"{name}.png")


_LEGEND = (
    "Medians. flex: the fastest of BLOCK_SIZE 128, (64, 128) and, without a mask, no block mask.\n"
    "SDPA: with its own causal flag, or (in brackets) with a dense boolean mask. GFLOP/s count the\n"
    "visible pairs only; the limit is a 2048 x 2048 x 2048 product in the same dtype, in turns with\n"
    "the others. Errors are the largest difference from float64 over 128 rows of every head.\n"
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cpu", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--section", choices=("main", "shapes"), default="main")
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--threads", type=int, default=n_usable_cpus())
    parser.add_argument("--rounds", type=int, default=9, help="timed runs of each candidate")
    parser.add_argument(
        "--seconds", type=float, default=10, help="after which a case has 5 rounds at least"
    )
    parser.add_argument("--no-picture", dest="picture", action="store_false")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    return parser


def _main_problems(options: argparse.Namespace) -> list[Problem]:
    return [
        Problem(case, dtype, head_dim, length, length)
        for dtype in options.dtypes
        for head_dim in options.dims
        for length in options.lengths
        for case in options.cases
    ]


def _limits(n_rounds: int) -> dict[str, str]:
    """What the machine reaches at products as attention makes them, and at reading."""
    size = GEMM_SIZE
    products = {
        f"{name} {batch} x ({m} x {k} x {n})": gemm_flops(m, k, n, dtype, batch=batch)
        for name, dtype in (("sgemm", torch.float32), ("bf16 gemm", torch.bfloat16))
        for batch, m, k, n in ((1, size, size, size), (8, size, 64, size), (8, size, size, 64))
    }
    numbers = torch.ones(_SUMMED_BYTES // 4)
    times = in_turns({**products, "reading": numbers.sum}, n_rounds)
    limits = {
        name: f"{multiply() / times[name].median / 1e9:.1f} GFLOP/s"
        for name, multiply in products.items()
    }
    return {**limits, "reading": f"{_SUMMED_BYTES / times['reading'].median / 1e9:.1f} GB/s"}


def _rows(problems: Sequence[Problem], options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    widths = [max(len(problem.label()) for problem in problems), *map(len, _HEADINGS[1:])]
    _print_aligned(_HEADINGS, widths)
    for problem in problems:
        rows.append(row_of(problem, options.rounds, options.seconds))
        _print_aligned(_cells(problem, rows[-1]), widths)
        for name, reason in rows[-1].get("failed", {}).items():
            print(f"  {name} failed: {reason}")
    return rows


def _print_aligned(cells: Sequence[str], widths: Sequence[int]) -> None:
    first, *others = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    print(f"{cells[0]:{len(first)}}", *others, sep="  ", flush=True)


def _cells(problem: Problem, row: dict[str, Any]) -> list[str]:
    def ms(name: str | None) -> str:
        return f"{row['ms'][name]['median']:.2f}" if name in row["ms"] else "-"

    def ratio(field: str) -> str:
        return f"{row[field]:.2f}" if field in row else "-"

    dense = "sdpa, dense mask" in row["ms"]
    in_brackets = "({})" if dense else "{}"
    return [
        problem.label(),
        ms("attnc"),
        ms(row.get("flex")),
        in_brackets.format(ms("sdpa, dense mask" if dense else "sdpa")),
        ratio("flex_over_attnc"),
        in_brackets.format(ratio(f"sdpa{'_dense_mask' if dense else ''}_over_attnc")),
        f"{row['gflops']:.1f}",
        f"{100 * row['of_gemm']:.0f} %",
        f"{row['error']['attnc']['largest']:.1e}",
        ratio("error_over_flex"),
    ]


def _draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    try:
        from benchmarks.picture import draw
    except ImportError as missing:
        print(f"no picture: {missing}")
    else:
        draw(rows, path)


if __name__ == "__main__":
    main()
