"""What is measured with: turns, clocks, facts about the machine, tables, JSON.

Nothing here knows what is measured or on which device; a clock says how one call is timed.
"""

from __future__ import annotations

import json
import math
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._dynamo.utils import counters
from torch.nn.attention.flex_attention import flex_attention

from attnc.runtime.isa import processor_name

MIN_ROUNDS = 5

Call = Callable[[], object]
Clock = Callable[[Call], float]
"""Seconds that one call takes."""


class NotCompiledError(RuntimeError):
    """A candidate that is to be compiled by PyTorch would run, or be compiled again, uncompiled."""


@dataclass(frozen=True)
class Times:
    """How long the timed runs of one candidate took.

    Attributes:
        seconds: Of each run.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds of the run in the middle."""
        return statistics.median(self.seconds)

    @property
    def fastest(self) -> float:
        """Seconds of the fastest run."""
        return min(self.seconds)

    def in_ms(self) -> dict[str, float]:
        """Median and minimum in milliseconds, as they are written to JSON."""
        return {"median": round(1e3 * self.median, 5), "fastest": round(1e3 * self.fastest, 5)}


def wall_clock(call: Call) -> float:
    """Seconds of a call that has done its work when it returns."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def cuda_clock(flushed_bytes: int = 256 << 20) -> Clock:
    """A clock for the current GPU: between two events, after its caches were overwritten.

    Writing ``flushed_bytes`` also gives the CPU time to launch what is timed, so that a short kernel
    is not timed waiting for its launch.
    """
    flushed = torch.empty(flushed_bytes, dtype=torch.int8, device="cuda")

    def clock(call: Call) -> float:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        flushed.zero_()
        start.record()
        call()
        stop.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(stop)) / 1e3

    return clock


def in_turns(
    calls: Mapping[str, Call],
    n_rounds: int,
    *,
    n_warmups: int = 2,
    clock: Clock = wall_clock,
    enough_s: float = math.inf,
    after_round: Callable[[int], object] | None = None,
) -> dict[str, Times]:
    """Times of each call over ``n_rounds`` rounds, after ``n_warmups`` that do not count.

    In a round every call has one turn, so that a busy machine slows all of them alike; the order
    is another in each round, so that none always finds the caches as the same one left them. What
    a call compiles, it compiles in the first warm-up: later rounds would raise. Where calls are
    slow, rounds end early: after ``enough_s`` seconds, but not before ``MIN_ROUNDS``. After each
    timed round ``after_round`` is told how many there have been.

    Raises:
        NotCompiledError: A call needed to be compiled again after its first run.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    enough = time.perf_counter() + enough_s
    orders = random.Random(0)
    with _no_recompilation():
        for number in range(1 - n_warmups, n_rounds):
            if number >= MIN_ROUNDS and time.perf_counter() > enough:
                break
            for name in orders.sample(list(calls), len(calls)):
                taken = clock(calls[name])
                if number >= 0:
                    seconds[name].append(taken)
            if number >= 0 and after_round is not None:
                after_round(number + 1)
    return {name: Times(tuple(taken)) for name, taken in seconds.items()}


@contextmanager
def _no_recompilation() -> Iterator[None]:
    before = _n_graphs()
    try:
        with torch.compiler.set_stance("fail_on_recompile"):
            yield
    except RuntimeError as e:
        if "fail_on_recompile" not in str(e):
            raise
        raise NotCompiledError("A candidate had to be compiled again while it was timed.") from e
    if _n_graphs() != before:
        raise NotCompiledError("Dynamo compiled another graph while candidates were timed.")


def compiled_flex(*, dynamic: bool | None = False) -> Callable[..., Any]:
    """``flex_attention`` as PyTorch recommends to use it; call it once before it is timed.

    It may be called with one set of shapes and mods only; ``torch._dynamo.reset()`` belongs between
    cases, since after 8 recompilations Dynamo would run it uncompiled.

    Raises (from its first call):
        NotCompiledError: PyTorch ran it without compiling it.
    """

    def flex(*args: Any, **kwargs: Any) -> Any:
        return flex_attention(*args, **kwargs)

    compiled = torch.compile(flex, dynamic=dynamic, fullgraph=True)
    is_first = True

    def checked(*args: Any, **kwargs: Any) -> Any:
        nonlocal is_first
        if not is_first:
            return compiled(*args, **kwargs)
        is_first = False
        before = _n_graphs()
        try:
            out = compiled(*args, **kwargs)
        except FailOnRecompileLimitHit as e:
            raise NotCompiledError("Dynamo's recompile limit is reached: reset it first.") from e
        if _n_graphs() == before:
            raise NotCompiledError(
                "PyTorch ran flex_attention without compiling it: its times would mean nothing."
            )
        return out

    return checked


def _n_graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


def geometric_mean(values: Iterable[float]) -> float:
    """Of positive values; NaN if there are none."""
    logarithms = [math.log(value) for value in values]
    return math.exp(statistics.fmean(logarithms)) if logarithms else math.nan


@contextmanager
def thread_count(n_threads: int) -> Iterator[None]:
    """``n_threads`` for everything that asks PyTorch how many to use, attnc included."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def n_usable_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_facts() -> dict[str, Any]:
    """What a reader needs to know to compare results with those of another machine."""
    facts: dict[str, Any] = {
        "processor": processor_name(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "n_cpus": os.cpu_count(),
        "n_usable_cpus": n_usable_cpus(),
        "n_threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "affinity": {
            name: os.environ[name]
            for name in ("OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY")
            if name in os.environ
        },
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
        facts["cuda"] = torch.version.cuda or torch.version.hip
    return facts


def gemm_flops(
    m: int, k: int, n: int, dtype: torch.dtype, *, device: str = "cpu", batch: int = 1
) -> Callable[[], float]:
    """A call that multiplies (batch, m, k) by (batch, k, n) and returns its operations."""
    shape = () if batch == 1 else (batch,)
    a = torch.randn(*shape, m, k, device=device).to(dtype)
    b = torch.randn(*shape, k, n, device=device).to(dtype)
    out = torch.empty(*shape, m, n, device=device, dtype=dtype)

    def multiply() -> float:
        torch.matmul(a, b, out=out)
        return 2.0 * batch * m * k * n

    return multiply


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows as Markdown, aligned; the first column to the left, the others to the right."""
    table = [list(headings), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(headings))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for row in (table[0], rule, *table[1:]):
        first = row[0].ljust(widths[0])
        others = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append(f"| {' | '.join([first, *others])} |")
    return "\n".join(lines) + "\n"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes ``content`` where ``path`` says, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
