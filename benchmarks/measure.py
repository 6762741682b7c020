"""What the benchmarks measure with: as ``attnc bench`` does."""

from __future__ import annotations

from pathlib import Path

from attnc.bench.measure import (
    MIN_ROUNDS,
    Call,
    Clock,
    NotCompiledError,
    Times,
    compiled_flex,
    cuda_clock,
    gemm_flops,
    geometric_mean,
    in_turns,
    machine_facts,
    markdown_table,
    n_usable_cpus,
    thread_count,
    wall_clock,
    write_json,
)

RESULTS = Path(__file__).parent / "results"

__all__ = [
    "MIN_ROUNDS",
    "RESULTS",
    "Call",
    "Clock",
    "NotCompiledError",
    "Times",
    "compiled_flex",
    "cuda_clock",
    "gemm_flops",
    "geometric_mean",
    "in_turns",
    "machine_facts",
    "markdown_table",
    "n_usable_cpus",
    "thread_count",
    "wall_clock",
    "write_json",
]
