"""How the time to build a block mask grows with length, for attnc and PyTorch.

The mask is causal attention in 1,000 documents of random lengths. Each builder runs at each length
in a process of its own, which calls once at a small length, then some times at its own: the first
call finds nothing prepared for its mask. A call of more than a minute, or a process of more than
8 GiB, is stopped, and the builder is not asked about greater lengths.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import markdown_table, thread_count
from benchmarks.memory import forget_peak, peak_bytes

ROOT = Path(__file__).parents[1]
N_DOCUMENTS = 1000
TIME_LIMIT, MEMORY_LIMIT = 60, 8 << 30  # seconds, bytes
_SMALL = 2048
_N_REPEATS = 5

Mask = Callable[..., Any]
Point = dict[str, Any]
BUILDERS = {
    "analyze": "`attnc.analyze`",
    "attnc": "`attnc.create_block_mask`",
    "compiled": "PyTorch, compiled",
    "eager": "PyTorch, eager",
}


def documents(length: int) -> Mask:
    """Causal attention within documents; identifiers in int32, ascending."""
    generator = torch.Generator().manual_seed(0)
    n_cuts = min(N_DOCUMENTS, length // 2) - 1
    cuts = torch.randperm(length - 1, generator=generator)[:n_cuts].sort().values + 1
    ids = torch.searchsorted(cuts, torch.arange(length), right=True).int()

    def packed(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (q_idx >= kv_idx) & (ids[q_idx] == ids[kv_idx])

    return packed


def builder(name: str) -> Callable[[Mask, int], object]:
    """A call ``(mask, length)`` that builds the block mask."""
    if name == "analyze":
        from attnc import analyze

        return lambda mask, n: analyze(mask, None, None, n, n)
    if name == "attnc":
        from attnc import create_block_mask

        return lambda mask, n: create_block_mask(mask, None, None, n, n, "cpu")
    from torch.nn.attention.flex_attention import create_block_mask as of_pytorch

    build = torch.compile(of_pytorch, dynamic=False) if name == "compiled" else of_pytorch
    return lambda mask, n: build(mask, None, None, n, n, "cpu")


def measured(name: str, length: int) -> Point:
    """Milliseconds of processor time of the first and of later calls, and the memory they took."""
    build = builder(name)
    build(documents(_SMALL), _SMALL)
    mask = documents(length)
    _return_memory()
    forget_peak()
    before = peak_bytes()
    seconds = []
    for repeat in range(1 + _N_REPEATS):
        signal.alarm(TIME_LIMIT)
        start = time.process_time()
        build(mask, length)
        seconds.append(time.process_time() - start)
        signal.alarm(0)
        if repeat and sum(seconds) > TIME_LIMIT / 4:
            break
    return {
        "builder": name,
        "length": length,
        "first_ms": round(1e3 * seconds[0], 3),
        "ms": round(1e3 * min(seconds[1:]), 3),
        "peak_mib": round((peak_bytes() - before) / 2**20, 1),
    }


def _return_memory() -> None:
    """Gives what is free back to the system: what a call then takes is seen in the peak."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def curve(lengths: Sequence[int]) -> list[Point]:
    """A point for each builder and length, or its last one with the reason why it stopped."""
    points = []
    for name in BUILDERS:
        for length in sorted(lengths):
            point = _in_child(name, length)
            print(json.dumps(point), flush=True)
            points.append(point)
            if "stopped" in point:
                break
    return points


def _in_child(name: str, length: int) -> Point:
    command = [sys.executable, "-m", "benchmarks.analysis_scale", name, str(length)]
    stopped: Point = {"builder": name, "length": length}
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode == 0:
        return dict(json.loads(run.stdout.splitlines()[-1]))
    if run.returncode == -signal.SIGALRM:
        return {**stopped, "stopped": f"more than {TIME_LIMIT} s"}
    lines = run.stderr.strip().splitlines() or ["killed"]
    is_memory = "allocate" in run.stderr or "MemoryError" in run.stderr or run.returncode < 0
    reason = f"more than {MEMORY_LIMIT >> 30} GiB" if is_memory else lines[-1]
    return {**stopped, "stopped": reason}


def scale_table(points: Sequence[Point]) -> str:
    """Rows of lengths, for each builder the first call, later calls and memory."""
    lengths = sorted({point["length"] for point in points})

    def cell(name: str, length: int) -> str:
        found = [p for p in points if p["builder"] == name and p["length"] == length]
        if not found:
            return "-"
        if "stopped" in found[0]:
            return str(found[0]["stopped"])
        point = found[0]
        return f"{point['first_ms']:,.1f} / {point['ms']:,.1f} ms, {point['peak_mib']:,.0f} MiB"

    headings = ["tokens", *BUILDERS.values()]
    rows = [[f"{length:,}", *(cell(name, length) for name in BUILDERS)] for length in lengths]
    heading = (
        f"Causal attention in {N_DOCUMENTS:,} documents, one thread: first call / later calls, "
        "memory on top of what was loaded.\n\n"
    )
    return heading + markdown_table(headings, rows)


def draw(points: Sequence[Point], path: Path) -> None:
    """Writes times by length, both logarithmic, to ``path``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for name, label in BUILDERS.items():
        some = [point for point in points if point["builder"] == name and "ms" in point]
        axes.loglog(
            [point["length"] for point in some],
            [point["first_ms"] for point in some],
            marker="o",
            label=label.replace("`", ""),
        )
    axes.set_xlabel("tokens")
    axes.set_ylabel("ms, first call")
    axes.set_title(f"Block mask of causal attention in {N_DOCUMENTS:,} documents")
    axes.grid(which="major", linewidth=0.4)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Prints one point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.analysis_scale")
    parser.add_argument("builder", choices=list(BUILDERS))
    parser.add_argument("length", type=int)
    options = parser.parse_args()
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))
    with thread_count(1), torch.no_grad():
        print(json.dumps(measured(options.builder, options.length)))


if __name__ == "__main__":
    main()
