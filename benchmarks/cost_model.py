"""How far ``Analysis.cost`` is from the time that calls take on this CPU, on one thread.

``python -m benchmarks.cost_model`` prints a table and writes it to ``benchmarks/results/``:
``cost_model.json`` and ``cost_model.md``. The rates are measured anew at the start, on calls that
are none of these; no constant belongs to a case. All cases take turns, round after round, so that
a machine that becomes slower is slower for all of them. A time is the least that the processor
spent on the thread: what other programs take of a busy machine does not count.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import attnc
from attnc.cost import Cost, rates_of
from attnc.runtime.isa import best_isa
from benchmarks.cases import CASES, Problem
from benchmarks.measure import (
    RESULTS,
    Call,
    in_turns,
    machine_facts,
    markdown_table,
    thread_count,
    write_json,
)

GOAL = 0.25
_HEADINGS = ("call", "tiles full", "partial", "empty", "predicted ms", "measured ms", "error")
_LEGEND = (
    "One thread; least of the processor's time over the rounds, all calls in turns. The error is\n"
    "predicted / measured - 1.\n"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what the arguments ask for, prints and writes it."""
    options = _parser().parse_args(arguments)
    passes = [(False, options.lengths), (True, options.backward_lengths)]
    passes = [(backward, lengths) for backward, lengths in passes if lengths]
    problems = [
        (Problem(case, dtype, head_dim, length, length), backward)
        for backward, lengths in passes
        for dtype in options.dtypes
        for head_dim in options.dims
        for length in lengths
        for case in options.cases
    ]
    with thread_count(1):
        facts = machine_facts()
        isa = best_isa()
        for dtype in options.dtypes:
            for backward, _ in passes:
                kernels = "avx512_bf16" if backward and isa == "amx" else isa
                rates_of(kernels, dtype, backward=backward, measure_anew=True)
        costs = [predicted(problem, backward) for problem, backward in problems]
        calls = {
            name_of(problem, backward): call_of(problem, backward) for problem, backward in problems
        }
        times = in_turns(calls, options.rounds, clock=processor_clock, enough_s=options.seconds)
    rows = [
        _row(problem, backward, cost, times[name_of(problem, backward)].fastest)
        for (problem, backward), cost in zip(problems, costs, strict=True)
    ]
    summaries = summaries_of(rows)
    about = f"{facts['processor']}, one thread, torch {facts['torch']}\n"
    headings = ("calls", "number", "median error", "90 % below", "worst", "within 25 %")
    tables = [
        markdown_table(headings, map(_summary_cells, summaries)),
        markdown_table(_HEADINGS, map(_cells, rows)),
    ]
    print("\n".join([about, *tables]))
    write_json(
        options.output / "cost_model.json",
        {"machine": facts, "summaries": summaries, "rows": rows},
    )
    (options.output / "cost_model.md").write_text("\n".join([about, *tables, _LEGEND]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost_model", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--backward-lengths", type=int, nargs="*", default=[2048])
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each call")
    parser.add_argument(
        "--seconds", type=float, default=120, help="after which there are 5 rounds at least"
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    return parser


def processor_clock(call: Call) -> float:
    """Seconds that the processor spends on a call, of this thread only."""
    start = time.thread_time()
    call()
    return time.thread_time() - start


def name_of(problem: Problem, backward: bool) -> str:
    return problem.label() + ", backward" * backward


def predicted(problem: Problem, backward: bool) -> Cost:
    """What the public analysis says about a problem."""
    case = problem.mods()
    mask = attnc.noop_mask if case.mask is None else case.mask
    found = attnc.analyze(mask, problem.batch, problem.heads, problem.n_queries, problem.n_keys)
    return found.cost(
        problem.head_dim,
        kv_heads=problem.kv_heads,
        dtype=problem.dtype,
        score=case.score,
        n_threads=1,
        backward=backward,
    )


def call_of(problem: Problem, backward: bool) -> Callable[[], object]:
    """The call that is predicted."""
    q, k, v = problem.inputs()
    case = problem.mods()
    gqa = problem.heads != problem.kv_heads

    def attend() -> Any:
        return attnc.attention(q, k, v, mask=case.mask, score=case.score, enable_gqa=gqa)

    if not backward:
        return attend
    for tensor in (q, k, v):
        tensor.requires_grad_()
    out = attend()
    grad_out = torch.ones_like(out)
    return lambda: torch.autograd.grad(out, (q, k, v), grad_out, retain_graph=True)


def _row(problem: Problem, backward: bool, cost: Cost, seconds: float) -> dict[str, Any]:
    assert cost.seconds is not None
    return {
        **problem.fields(),
        "backward": backward,
        "tiles": [cost.n_full, cost.n_partial, cost.n_empty],
        "predicted_ms": round(1e3 * cost.seconds, 4),
        "measured_ms": round(1e3 * seconds, 4),
        "predicted_speedup": round(cost.speedup or 0.0, 3),
        "error": round(cost.seconds / seconds - 1, 4),
    }


def summaries_of(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The distribution of the relative errors, of all rows and by pass and dtype."""
    groups: dict[str, list[float]] = {"all": []}
    for row in rows:
        direction = "backward" if row["backward"] else "forward"
        for name in ("all", f"{direction}, {row['dtype']}"):
            groups.setdefault(name, []).append(abs(row["error"]))
    return [
        {
            "calls": name,
            "n": len(errors),
            "median": round(statistics.median(errors), 4),
            "ninety_percent": round(sorted(errors)[int(0.9 * (len(errors) - 1))], 4),
            "worst": round(max(errors), 4),
            "within_goal": sum(error <= GOAL for error in errors),
        }
        for name, errors in groups.items()
        if errors
    ]


def _summary_cells(summary: dict[str, Any]) -> list[str]:
    return [
        summary["calls"],
        str(summary["n"]),
        *(f"{100 * summary[field]:.1f} %" for field in ("median", "ninety_percent", "worst")),
        f"{summary['within_goal']} of {summary['n']}",
    ]


def _cells(row: dict[str, Any]) -> list[str]:
    fields = {field: row[field] for field in Problem.__dataclass_fields__}
    return [
        name_of(Problem(**fields), row["backward"]),
        *(f"{n:,}" for n in row["tiles"]),
        f"{row['predicted_ms']:.2f}",
        f"{row['measured_ms']:.2f}",
        f"{100 * row['error']:+.0f} %",
    ]


if __name__ == "__main__":
    main()
