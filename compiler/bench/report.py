"""What a contest has found: as a table, as JSON, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attnc.bench.contest import Entry, Result, spread
from attnc.bench.measure import machine_facts, markdown_table

_HEADINGS = ("", "ms", "quartiles", "/ attnc", "95 %", "of peak", "error", "first call")


def table(result: Result) -> str:
    """``result`` as text: times and ratios of those that were timed; then who was not, and why."""
    lines = [markdown_table(_HEADINGS, (_cells(result, entry) for entry in result.entries))]
    for entry in result.entries:
        lines.append(_sentence(result, entry))
    if result.peak is not None:
        rate = f"{result.peak.flops / 1e9:.0f} GFLOP/s"
        lines.append(f"peak: {rate}, {result.peak.source}; shares count visible pairs only")
    lines.append(f"{result.n_threads} thread{'s' if result.n_threads > 1 else ''}")
    return "\n".join(lines)


def _sentence(result: Result, entry: Entry) -> str:
    match entry.state:
        case "wrong":
            assert entry.error is not None
            off = (
                f"{entry.error.largest:.1e} of the largest value, more than {result.tolerance:.1e}"
            )
            return f"{entry.name}: WRONG by {off}: not timed ({entry.how})"
        case "absent":
            return f"{entry.name}: does not take part: {entry.how}"
        case _:
            return f"{entry.name}: {entry.how}"


def _cells(result: Result, entry: Entry) -> list[str]:
    cells = [entry.name]
    if entry.times is None:
        cells += ["-"] * 2
    else:
        low, high = spread(entry.times)
        cells += [f"{1e3 * entry.times.median:.3f}", f"{1e3 * low:.3f}-{1e3 * high:.3f}"]
    ratio, share = entry.ratio, result.share_of_peak(entry)
    cells += (
        ["-"] * 2 if ratio is None else [f"{ratio.value:.2f}", f"{ratio.low:.2f}-{ratio.high:.2f}"]
    )
    cells.append("-" if share is None else f"{100 * share:.0f} %")
    cells.append("-" if entry.error is None else f"{entry.error.largest:.1e}")
    cells.append("-" if entry.first_call is None else f"{entry.first_call:.2f} s")
    return cells


def content(result: Result, name: str, command: str) -> dict[str, Any]:
    """The same as JSON has it."""
    from importlib.metadata import version

    problem = result.problem
    entries = []
    for entry in result.entries:
        share = result.share_of_peak(entry)
        more = {} if share is None else {"of_peak": share}
        entries.append({**entry.fields(), **more})
    peak = result.peak
    return {
        "function": name,
        "command": command,
        "attnc": version("attnc"),
        "machine": machine_facts(),
        "shape": {
            "batch": problem.n_batch,
            "heads": problem.n_heads,
            "kv_heads": problem.kv_heads,
            "n_queries": problem.n_queries,
            "n_keys": problem.n_keys,
            "head_dim": problem.head_dim,
        },
        "dtype": problem.dtype,
        "device": problem.device,
        "backward": problem.backward,
        "n_visible": problem.n_visible,
        "flops": problem.flops(),
        "tolerance": result.tolerance,
        "peak": None if peak is None else {"gflops": peak.flops / 1e9, "source": peak.source},
        "contestants": entries,
    }


def draw(result: Result, name: str, path: Path) -> None:
    """Writes a bar of the median for each that was timed, with its quartiles, to ``path``."""
    from matplotlib.figure import Figure

    timed = [entry for entry in result.entries if entry.times is not None]
    figure = Figure(figsize=(7, 1.2 + 0.6 * len(timed)), layout="constrained")
    axes = figure.subplots()
    for place, entry in enumerate(timed):
        assert entry.times is not None
        low, high = spread(entry.times)
        median = entry.times.median
        ends = [[1e3 * (median - low)], [1e3 * (high - median)]]
        colour = "#1f4e79" if entry.ratio is None else "#a9a9a9"
        axes.barh(place, 1e3 * median, xerr=ends, color=colour, capsize=3)
        text = f" {1e3 * median:.2f} ms"
        text += "" if entry.ratio is None else f", {entry.ratio.value:.2f} x attnc"
        axes.text(1e3 * high, place, text, va="center")
    axes.set_yticks(range(len(timed)), [entry.name for entry in timed])
    axes.invert_yaxis()
    axes.margins(x=0.35)
    axes.set_xlabel("ms")
    problem = result.problem
    sizes = f"B={problem.n_batch} H={problem.n_heads} {problem.n_queries} x {problem.n_keys}"
    passes = "forward and backward" if problem.backward else "forward"
    axes.set_title(f"{name}: {passes}, {sizes}, D={problem.head_dim}, {problem.dtype}")
    figure.savefig(path, dpi=120)
