"""Forward and backward passes: attnc against SDPA on this CPU.

``python -m benchmarks.backward`` prints tables and writes them to ``benchmarks/results/``:
``backward.json`` and ``backward.md``. Both take turns in one process with the same number of
threads; figures are medians; compiling is not timed. SDPA has its own causal flag, a dense boolean
mask, or, where a bias is learned, mask and bias as a dense float mask that it passes gradients to.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import Problem
from benchmarks.measure import (
    RESULTS,
    machine_facts,
    markdown_table,
    n_usable_cpus,
    thread_count,
    write_json,
)
from benchmarks.memory import Peaks, peaks
from benchmarks.targets import Target
from benchmarks.training_cases import TRAINING_CASES
from benchmarks.training_contest import ATTNC, BACKWARD, SDPA, row_of

GOALS = {
    ("causal", "float32"): 1.1,
    ("causal", "bfloat16"): 1.8,
    ("window 256", "float32"): 3.0,
    ("window 256", "bfloat16"): 3.0,
}
"""How many times as long SDPA is to take, forward and backward."""
PLAIN_GOAL = 1.5  # backward with a learned bias over backward without
GROWTH_GOAL = 1.25  # of memory, where 1 is linear and 2 quadratic
MEMORY_CASES = ("causal", "T5 bias, learned, causal")
_HEADINGS = (
    "problem",
    "attnc ms",
    "SDPA ms",
    "SDPA / attnc",
    "backward: attnc ms",
    "SDPA ms",
    "SDPA / attnc",
    "/ without bias",
    "GFLOP/s",
    "of gemm",
    "error",
    "SDPA's",
)
_LEGEND = (
    "Forward and backward, then backward alone; medians. SDPA in brackets: with a dense mask. *Without\n"
    "bias*: backward alone beside that of the same mask, the fastest runs of both. GFLOP/s\n"
    "count seven products of the visible pairs; the limit is a 2048 x 2048 x 2048 product in the same\n"
    "dtype, in turns with the others. Errors are the largest difference from float64 gradients of the\n"
    "first and the last head, over the largest gradient, and the worst of q, k, v and bias.\n"
)
_MEMORY_LEGEND = (
    "Peak memory of a process that computes forward and backward once, libraries included. Growth\n"
    "compares the last two steps from one length to the next: 1 is linear, 2 quadratic.\n"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what the arguments ask for, prints and writes it."""
    options = _parser().parse_args(arguments)
    problems = [
        Problem(case, dtype, head_dim, length, length)
        for dtype in options.dtypes
        for head_dim in options.dims
        for length in options.lengths
        for case in options.cases
    ]
    with thread_count(options.threads):
        facts = machine_facts()
        print("  ".join(f"{key}: {value}" for key, value in facts.items() if value), end="\n\n")
        memory = _memory(options)
        rows = []
        for number, problem in enumerate(problems, 1):
            print(f"\r{number} of {len(problems)}: {problem.label():50}", end="", flush=True)
            rows.append(row_of(problem, options.rounds, options.seconds))
    reached = [*targets(problems, rows), *memory_targets(memory)]

    about = f"{facts['processor']}, {facts['n_threads']} threads, torch {facts['torch']}\n"
    parts = [about, markdown_table(_HEADINGS, map(_cells, problems, rows)), _LEGEND]
    if memory:
        headings = ("peak MiB", *(f"S={n}" for n in memory[0].by_length), "growth", "bytes / token")
        parts += [markdown_table(headings, map(_memory_cells, memory)), _MEMORY_LEGEND]
    if reached:
        headings = ("target", "goal", "reached", "", "furthest")
        parts.append(markdown_table(headings, (target.cells() for target in reached)))
    print("\n\n" + "\n".join(parts[1:]))
    content = {
        "machine": facts,
        "rows": rows,
        "memory": [found.fields() for found in memory],
        "targets": [target.fields() for target in reached],
    }
    write_json(options.output / "backward.json", content)
    (options.output / "backward.md").write_text("\n".join(parts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.backward", description=(__doc__ or "").splitlines()[0]
    )
    cases = list(TRAINING_CASES)
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048])
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--cases", nargs="+", choices=cases, default=cases)
    parser.add_argument(
        "--memory-lengths",
        type=int,
        nargs="*",
        default=[2048, 4096, 8192, 16384],
        help="each twice the one before; none to leave this out",
    )
    parser.add_argument("--threads", type=int, default=n_usable_cpus())
    parser.add_argument("--rounds", type=int, default=9, help="timed runs of each candidate")
    parser.add_argument(
        "--seconds", type=float, default=20, help="after which a case has 5 rounds at least"
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    return parser


def _memory(options: argparse.Namespace) -> list[Peaks]:
    """attnc with and without a bias, and SDPA where it needs no dense mask."""
    if not options.memory_lengths:
        return []
    length = options.memory_lengths[0]
    asked = [(ATTNC, case) for case in MEMORY_CASES] + [(SDPA, MEMORY_CASES[0])]
    return [
        peaks(
            side,
            Problem(case, options.dtypes[0], options.dims[0], length, length),
            options.memory_lengths,
            options.threads,
        )
        for side, case in asked
    ]


def targets(problems: Sequence[Problem], rows: Sequence[dict[str, Any]]) -> list[Target]:
    """Of speed, one for each problem that has a goal."""
    found = []
    for problem, row in zip(problems, rows, strict=True):
        label = problem.label()
        goal = GOALS.get((problem.case, problem.dtype))
        if goal is not None:
            found.append(Target("SDPA / attnc", goal, row["sdpa_over_attnc"], 1, label))
        if "backward_over_plain" in row:
            name, reached = "backward / without bias", row["backward_over_plain"]
            found.append(Target(name, PLAIN_GOAL, reached, 1, label, is_upper=True))
    return found


def memory_targets(memory: Sequence[Peaks]) -> list[Target]:
    """Of memory: attnc's peak is to be linear in the length."""
    return [
        Target("growth of memory", GROWTH_GOAL, growth, 1, found.problem.case, is_upper=True)
        for found in memory
        if found.side == ATTNC and (growth := found.growth()) is not None
    ]


def _cells(problem: Problem, row: dict[str, Any]) -> list[str]:
    is_dense = problem.case not in ("causal", "full")

    def ms(name: str) -> str:
        shown = f"{row['ms'][name]['median']:.2f}"
        return f"({shown})" if is_dense and name.startswith(SDPA) else shown

    def ratio(field: str) -> str:
        return f"{row[field]:.2f}" if field in row else "-"

    return [
        problem.label(),
        ms(ATTNC),
        ms(SDPA),
        ratio("sdpa_over_attnc"),
        ms(BACKWARD.format(ATTNC)),
        ms(BACKWARD.format(SDPA)),
        ratio("sdpa_over_attnc_backward"),
        ratio("backward_over_plain"),
        f"{row['gflops']:.1f}",
        f"{100 * row['of_gemm']:.0f} %",
        *(f"{max(row['error'][name].values()):.1e}" for name in (ATTNC, SDPA)),
    ]


def _memory_cells(found: Peaks) -> list[str]:
    growth, per_token = found.growth(), found.bytes_per_token()
    return [
        f"{found.side}, {found.problem.case}",
        *(f"{peak / 2**20:.0f}" for peak in found.by_length.values()),
        "-" if growth is None else f"{growth:.2f}",
        "-" if per_token is None else f"{per_token:,.0f}",
    ]


if __name__ == "__main__":
    main()
