"""Compiling flex_attention for many problems at once, before anything is timed."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress

import torch

from benchmarks.cases import Problem
from benchmarks.contest import candidates
from benchmarks.measure import n_usable_cpus


def compile_ahead(problems: Sequence[Problem], n_threads: int) -> None:
    """Fills Inductor's cache on disk for ``problems``, one process for each usable CPU.

    One problem takes a core 6 to 15 seconds to compile, and half a second to read afterwards.
    ``n_threads`` is what the timed run will use: Inductor writes it into its kernels.
    """
    n_processes = min(n_usable_cpus(), len(problems))
    if n_processes < 2:
        return
    pool = ProcessPoolExecutor(
        n_processes,
        multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(n_threads,),
    )
    with pool:
        compiling = [pool.submit(_compile, problem) for problem in problems]
        for number, done in enumerate(as_completed(compiling), 1):
            done.result()
            print(f"\rcompiled flex_attention for {number} of {len(problems)} problems", end="")
    print("\n")


def _compile(problem: Problem) -> None:
    torch._dynamo.reset()
    with torch.no_grad():
        for name, call in candidates(problem).items():
            if name.startswith("flex"):
                with suppress(Exception):  # the timed run meets the same error, and reports it
                    call()
