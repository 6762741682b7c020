"""What checking less in PARTIAL tiles saves: instructions on GPUs, time on CPUs.

``python -m benchmarks.partial_tiles`` compiles the kernels of a few masks for a GPU that need not
be here and reads the instructions of their loops; and it times calls on the CPU beside calls with
the same tiles, given as a block mask, of which PARTIAL ones check the whole mask. It writes
``benchmarks/results/partial_tiles.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

import attnc
from attnc.stages import Inspection
from benchmarks.measure import (
    RESULTS,
    Call,
    in_turns,
    machine_facts,
    markdown_table,
    thread_count,
    write_json,
)

N_TOKENS = 4096
HEADS = 4
HEAD_DIM = 64
GPU = "sm_90"
_SIDE = 64
_IDS = torch.arange(N_TOKENS) // 500
_PARTS = torch.arange(N_TOKENS) // 1024


@dataclass(frozen=True)
class Case:
    """A mask of several conditions, of which some PARTIAL tiles need only one."""

    name: str
    mask: Any


CASES = (
    Case("window of 256", lambda b, h, q, kv: (q >= kv) & (q - kv < 256)),
    Case("causal in documents of 500", lambda b, h, q, kv: (q >= kv) & (_IDS[q] == _IDS[kv])),
    Case(
        "neighbourhood 7 x 7 of 64 x 64",
        lambda b, h, q, kv: (
            ((q // _SIDE - kv // _SIDE).abs() <= 3) & ((q % _SIDE - kv % _SIDE).abs() <= 3)
        ),
    ),
    Case(
        "disc of 5 in a 64 x 64 image, of 4 parts",
        lambda b, h, q, kv: (
            ((q // _SIDE - kv // _SIDE) ** 2 + (q % _SIDE - kv % _SIDE) ** 2 <= 25)
            & (_PARTS[q] == _PARTS[kv])
        ),
    ),
)


def instructions_of(case: Case) -> dict[str, Any]:
    """Of each kernel, per thread and PARTIAL tile: least and most; and of a FULL tile."""
    inspection = Inspection.of(
        case.mask, shape=(1, HEADS, N_TOKENS, N_TOKENS, HEAD_DIM), target=GPU, dtype="bfloat16"
    )
    data = inspection.stage("resources", passes="all").data
    found = {}
    for kernel in data["kernels"]:
        partial = [loop for loop in kernel["loops"] if loop["kind"] == "PARTIAL"]
        full = [loop["n_instructions"] for loop in kernel["loops"] if loop["kind"] == "FULL"]
        if partial:
            found[kernel["name"]] = {
                "partial": [
                    min(loop["n_least_instructions"] for loop in partial),
                    max(loop["n_instructions"] for loop in partial),
                ],
                "full": max(full, default=None),
                "spills": kernel["spills"],
            }
    return found


def calls_of(case: Case, dtype: torch.dtype) -> dict[str, Call]:
    """Forward, and both passes, checking what is needed and the whole mask in PARTIAL tiles."""
    torch.manual_seed(0)
    shape = (1, HEADS, N_TOKENS, HEAD_DIM)
    q, k, v = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3))
    grad = torch.randn(shape, dtype=dtype)
    found = attnc.create_block_mask(case.mask, None, None, N_TOKENS, N_TOKENS, BLOCK_SIZE=_BLOCKS)
    given = attnc.BlockMask.from_kv_blocks(
        found.kv_num_blocks,
        found.kv_indices,
        found.full_kv_num_blocks,
        found.full_kv_indices,
        BLOCK_SIZE=_BLOCKS,
        mask_mod=case.mask,
        seq_lengths=(N_TOKENS, N_TOKENS),
    )

    def forward(mask: Any) -> Call:
        def call() -> Any:
            with torch.no_grad():
                return attnc.attention(q, k, v, mask=mask)

        return call

    def both(mask: Any) -> Call:
        return lambda: torch.autograd.grad(attnc.attention(q, k, v, mask=mask), (q, k, v), grad)

    masks = {"terms": case.mask, "whole mask": given}
    calls = {f"{name}, forward": forward(mask) for name, mask in masks.items()}
    return calls | {f"{name}, both": both(mask) for name, mask in masks.items()}


# The tiles of CPU kernels at this head_dim, of the passes both: given ones would be cut otherwise.
_BLOCKS = (64, 64)


def _processor_clock(call: Call) -> float:
    """Seconds of the processor: calls run on this thread alone."""
    start = time.thread_time()
    call()
    return time.thread_time() - start


def timed(case: Case, dtype: torch.dtype, n_rounds: int) -> dict[str, Any]:
    """Milliseconds of each call, and the shares of time that checking less saves."""
    times = in_turns(calls_of(case, dtype), n_rounds, clock=_processor_clock)
    return {
        "case": case.name,
        "dtype": str(dtype).removeprefix("torch."),
        "ms": {name: taken.in_ms() for name, taken in times.items()},
        "saved": {
            passes: 1 - times[f"terms, {passes}"].fastest / times[f"whole mask, {passes}"].fastest
            for passes in _PASSES
        },
    }


_PASSES = ("forward", "both")


def cells_of_gpu(case: str, found: Mapping[str, Any]) -> list[str]:
    cells = [case]
    for name in ("forward", "dq", "dkdv"):
        kernel = found.get(name)
        if kernel is None:
            cells.append("")
            continue
        least, most = kernel["partial"]
        full = kernel["full"] or "none"
        cells.append(f"{least} to {most}, FULL {full}")
    return cells


def cells_of_cpu(row: Mapping[str, Any]) -> list[str]:
    cells = [f"{row['case']}, {row['dtype']}"]
    for passes in _PASSES:
        cells += [f"{row['ms'][f'{what}, {passes}']['fastest']:.1f}" for what in _COMPARED]
        cells.append(f"{row['saved'][passes]:+.1%}")
    return cells


_COMPARED = ("whole mask", "terms")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--dry", action="store_true", help="print only, write no files")
    options = parser.parse_args()
    gpu = {case.name: instructions_of(case) for case in CASES}
    with thread_count(1):
        dtypes = (torch.float32, torch.bfloat16)
        cpu = [timed(case, dtype, options.rounds) for case in CASES for dtype in dtypes]
        about = machine_facts() | {"heads": HEADS, "head_dim": HEAD_DIM, "n_tokens": N_TOKENS}
    text = (
        f"Instructions per thread and PARTIAL tile of kernels compiled for {GPU}, bfloat16, D "
        f"{HEAD_DIM}: where one condition of the mask is left or none, and where all are.\n\n"
        + markdown_table(
            ["mask", "forward", "dQ", "dK and dV"],
            [cells_of_gpu(name, found) for name, found in gpu.items()],
        )
        + f"\nCalls on a CPU with {N_TOKENS} tokens, {HEADS} heads, D {HEAD_DIM}, one thread of "
        f"{about['processor']} (ms of processor time, fastest of {options.rounds} rounds in turns), "
        "whose PARTIAL tiles check the whole mask or those of its terms that may not hold there.\n\n"
        + markdown_table(
            [
                "mask",
                "forward, whole mask",
                "forward, terms",
                "saved",
                "both passes, whole mask",
                "both passes, terms",
                "saved",
            ],
            map(cells_of_cpu, cpu),
        )
    )
    print(text)
    if not options.dry:
        write_json(RESULTS / "partial_tiles.json", {"about": about, "gpu": gpu, "cpu": cpu})
        (RESULTS / "partial_tiles.md").write_text(text)


if __name__ == "__main__":
    main()
