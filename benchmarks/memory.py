"""Peak memory of forward and backward, each length in a process of its own.

A process calls once at a tiny length, so that libraries and kernels are loaded, then once at its
own. The memory of what has been loaded is the same for all lengths: growth from one length to the
next is what is looked at.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.cases import Problem
from benchmarks.measure import thread_count
from benchmarks.training_cases import TRAINING_CASES
from benchmarks.training_contest import by_attnc, by_sdpa

ROOT = Path(__file__).parents[1]
SIDES = {"attnc": by_attnc, "sdpa": by_sdpa}
_WARMUP = 64  # tokens


@dataclass(frozen=True)
class Peaks:
    """Peak bytes of a process, by length in tokens, lengths ascending."""

    side: str
    problem: Problem
    by_length: dict[int, int]

    def growth(self) -> float | None:
        """How fast the peak grows at the end, over how fast before: 1 if linear, 2 if quadratic.

        From the last three lengths, each twice the one before; None where there are fewer.
        """
        if len(self.by_length) < 3:
            return None
        (n0, at0), (n1, at1), (n2, at2) = list(self.by_length.items())[-3:]
        return (at2 - at1) / (n2 - n1) / max((at1 - at0) / (n1 - n0), 1.0)

    def bytes_per_token(self) -> float | None:
        """Between the last two lengths."""
        if len(self.by_length) < 2:
            return None
        (n1, at1), (n2, at2) = list(self.by_length.items())[-2:]
        return (at2 - at1) / (n2 - n1)

    def fields(self) -> dict[str, Any]:
        """As they are written to JSON."""
        return {
            "side": self.side,
            "case": self.problem.case,
            "dtype": self.problem.dtype,
            "head_dim": self.problem.head_dim,
            "heads": self.problem.heads,
            "peak_bytes": self.by_length,
            "growth": self.growth(),
            "bytes_per_token": self.bytes_per_token(),
        }


def peaks(side: str, problem: Problem, lengths: Sequence[int], n_threads: int) -> Peaks:
    """Peak memory of ``side`` in ``SIDES`` at ``problem`` with other lengths."""
    by_length = {
        length: _peak_in_child(side, replace(problem, n_queries=length, n_keys=length), n_threads)
        for length in sorted(lengths)
    }
    return Peaks(side, problem, by_length)


def _peak_in_child(side: str, problem: Problem, n_threads: int) -> int:
    arguments = [side, json.dumps(problem.fields()), str(n_threads)]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(run.stdout)


def peak_bytes() -> int:
    """The most memory this process has held so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # What getrusage tells begins, on Linux, with the peak of the process that started this one.
        found = re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.MULTILINE)
        if found is not None:
            return 1024 * int(found[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def forget_peak() -> None:
    """Lets the peak begin anew from what is held now, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    """Prints the peak of one call, in bytes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("side", choices=list(SIDES))
    parser.add_argument("problem", help="fields of a Problem, as JSON")
    parser.add_argument("n_threads", type=int)
    options = parser.parse_args()
    problem = Problem(**json.loads(options.problem))
    assert problem.case in TRAINING_CASES, problem.case
    with thread_count(options.n_threads):
        for length in (_WARMUP, problem.n_keys):
            # Importing and compiling hold more than a short sequence needs.
            forget_peak()
            SIDES[options.side](replace(problem, n_queries=length, n_keys=length)).gradients()
    print(peak_bytes())


if __name__ == "__main__":
    main()
