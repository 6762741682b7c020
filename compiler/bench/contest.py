"""A contest: everyone is compared with float64, who is right is timed in turns."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from attnc.bench.contestants import ATTNC, Absent, Contestant, first_line
from attnc.bench.measure import Call, Times, cuda_clock, gemm_flops, in_turns, wall_clock
from attnc.bench.problem import Error, Oracle, Problem
from attnc.target import gpu_of

GEMM = "matrix product"
_GEMM_SIZE = 1024  # large enough to reach the machine's rate, and a short turn
_MAX_ROUNDS = 1000
_N_RESAMPLED = 1000


@dataclass(frozen=True)
class Ratio:
    """How many times as long a contestant takes as attnc.

    Attributes:
        value: By medians.
        low, high: Limits that hold it with 95 % confidence, by drawing rounds anew.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Entry:
    """What was found about one contestant.

    Attributes:
        name, how: As in ``Contestant``; ``how`` is why it is absent where it is.
        state: "timed", "wrong" (then not timed), or "absent".
        first_call: Seconds of the first call, compiling included; None if absent.
        error: Distance from float64, or None.
        times: Seconds of the timed calls, or None.
        ratio: To attnc; None for attnc itself, and where one of the two was not timed.
    """

    name: str
    how: str
    state: str
    first_call: float | None = None
    error: Error | None = None
    times: Times | None = None
    ratio: Ratio | None = None

    def fields(self) -> dict[str, Any]:
        """As they are written to JSON; milliseconds."""
        found: dict[str, Any] = {"name": self.name, "how": self.how, "state": self.state}
        if self.first_call is not None:
            found["first_call_s"] = round(self.first_call, 4)
        if self.error is not None:
            gradients = list(self.error.gradients)
            found["error"] = {"out": self.error.out, "gradients": gradients}
        if self.times is not None:
            low, high = spread(self.times)
            found["ms"] = {**self.times.in_ms(), "low": 1e3 * low, "high": 1e3 * high}
            found["n_calls"] = len(self.times.seconds)
        if self.ratio is not None:
            found["over_attnc"] = asdict(self.ratio)
        return found


@dataclass(frozen=True)
class Peak:
    """What the machine reaches at the best.

    Attributes:
        flops: Operations per second.
        source: Where that figure is from, in words.
    """

    flops: float
    source: str


@dataclass(frozen=True)
class Result:
    """A contest that has been held.

    Attributes:
        problem: What was computed.
        entries: One for each that was to take part, attnc among them.
        tolerance: The error, as in ``Error``, from which on a contestant is wrong.
        peak: What the machine reaches, or None where that is not known.
        n_threads: Of the CPU.
    """

    problem: Problem
    entries: tuple[Entry, ...]
    tolerance: float
    peak: Peak | None
    n_threads: int

    @property
    def ours(self) -> Entry:
        """attnc's entry."""
        return next(entry for entry in self.entries if entry.name == ATTNC)

    def share_of_peak(self, entry: Entry) -> float | None:
        """Operations over visible pairs per second of ``entry``, as a share of the peak.

        None without a peak, and where the entry was not timed.
        """
        if entry.times is None or self.peak is None:
            return None
        return self.problem.flops() / entry.times.median / self.peak.flops


def spread(times: Times) -> tuple[float, float]:
    """First and third quartile, in seconds."""
    if len(times.seconds) < 2:
        return times.median, times.median
    low, _, high = statistics.quantiles(times.seconds, n=4, method="inclusive")
    return low, high


def hold(
    problem: Problem,
    taking_part: Sequence[Contestant | Absent],
    *,
    enough_s: float,
    on_step: Callable[[str, float], object] = lambda text, share: None,
) -> Result:
    """Everyone in turns on ``problem``, for about ``enough_s`` seconds.

    Args:
        problem: What is computed.
        taking_part: attnc among them, by its name.
        enough_s: When to stop timing, once each has had a few turns.
        on_step: Told what happens, and the share of the timing that is done, from 0 to 1.
    """
    torch._dynamo.reset()
    on_step("float64", 0.0)
    oracle = Oracle(problem)
    entries: dict[str, Entry] = {}
    calls: dict[str, Call] = {}
    for one in taking_part:
        if isinstance(one, Absent):
            entries[one.name] = Entry(one.name, one.reason, "absent")
            continue
        on_step(f"first call of {one.name}", 0.0)
        entries[one.name] = _tried(one, problem, oracle)
        if entries[one.name].state == "timed":
            calls[one.name] = problem.call_of(one.forward)
    times = _times(problem, calls, enough_s, on_step)
    ours = times.get(ATTNC)
    for name in calls:
        ratio = None if ours is None or name == ATTNC else ratio_of(times[name], ours)
        entry = entries[name]
        entries[name] = Entry(
            name, entry.how, "timed", entry.first_call, entry.error, times[name], ratio
        )
    return Result(
        problem,
        tuple(entries.values()),
        oracle.tolerance(),
        _peak(problem, times),
        torch.get_num_threads(),
    )


def ratio_of(theirs: Times, ours: Times) -> Ratio:
    """Quotient of the medians; its interval by drawing whole rounds with replacement."""
    pairs = list(zip(theirs.seconds, ours.seconds, strict=True))
    draws = random.Random(0)
    found = sorted(
        statistics.median(a for a, _ in drawn) / statistics.median(b for _, b in drawn)
        for drawn in (draws.choices(pairs, k=len(pairs)) for _ in range(_N_RESAMPLED))
    )
    low, high = found[round(0.025 * len(found))], found[round(0.975 * len(found)) - 1]
    return Ratio(theirs.median / ours.median, low, high)


def _tried(one: Contestant, problem: Problem, oracle: Oracle) -> Entry:
    """A contestant after its first call: right, wrong, or absent because it failed."""
    start = time.perf_counter()
    try:
        problem.call_of(one.forward)()
        if problem.device != "cpu":
            torch.cuda.synchronize()
        first_call = time.perf_counter() - start
        error = oracle.error_of(one.forward)
    except Exception as failure:
        if one.name == ATTNC:
            raise
        told = f"{type(failure).__name__}: {first_line(failure)}"
        return Entry(one.name, told, "absent")
    is_right = error.largest <= oracle.tolerance()
    return Entry(one.name, one.how, "timed" if is_right else "wrong", first_call, error)


def _times(
    problem: Problem,
    calls: dict[str, Call],
    enough_s: float,
    on_step: Callable[[str, float], object],
) -> dict[str, Times]:
    if not calls:
        return {}
    clock = wall_clock if problem.device == "cpu" else cuda_clock()
    turns = dict(calls)
    if problem.device == "cpu":
        size = _GEMM_SIZE
        turns[GEMM] = gemm_flops(size, size, size, getattr(torch, problem.dtype))
    start = time.perf_counter()

    def after_round(number: int) -> None:
        share = min(1.0, (time.perf_counter() - start) / enough_s) if enough_s else 1.0
        on_step(f"round {number}", share)

    return in_turns(turns, _MAX_ROUNDS, clock=clock, enough_s=enough_s, after_round=after_round)


def _peak(problem: Problem, times: dict[str, Times]) -> Peak | None:
    if GEMM in times:
        size = _GEMM_SIZE
        source = f"a product of {size} x {size} {problem.dtype} matrices, in turns with the others"
        return Peak(2.0 * size**3 / times[GEMM].median, source)
    gpu = None if problem.device == "cpu" else gpu_of()
    peaks = None if gpu is None else gpu.peaks
    if peaks is None:
        return None
    return Peak(peaks.flops[problem.dtype], f"published of the {peaks.gpu}")
