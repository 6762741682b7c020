"""What checking less in PARTIAL tiles saves: instructions on GPUs, time on CPUs.

``python -m benchmarks.partial_tiles`` compiles the kernels of a few masks for a GPU that need not
be here and reads the instructions of their loops; and it times calls on the CPU, whose PARTIAL
tiles check the whole mask, beside calls that visit the same tiles and check one condition of it, or
none: no kernel that checks less could be faster. The results of those are wrong and not looked
at. It writes ``benchmarks/results/partial_tiles.json`` and ``.md``.
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


@dataclass(frozen=True)
class Case:
    """A mask, and one of its conditions, which is all that some PARTIAL tiles need."""

    name: str
    mask: Any
    condition: Any


CASES = (
    Case("causal", lambda b, h, q, kv: q >= kv, lambda b, h, q, kv: q >= kv),
    Case(
        "window of 256",
        lambda b, h, q, kv: (q >= kv) & (q - kv < 256),
        lambda b, h, q, kv: q >= kv,
    ),
    Case(
        "causal in documents of 500",
        lambda b, h, q, kv: (q >= kv) & (_IDS[q] == _IDS[kv]),
        lambda b, h, q, kv: q >= kv,
    ),
    Case(
        "neighbourhood 7 x 7 of 64 x 64",
        lambda b, h, q, kv: (
            ((q // _SIDE - kv // _SIDE).abs() <= 3) & ((q % _SIDE - kv % _SIDE).abs() <= 3)
        ),
        lambda b, h, q, kv: (q % _SIDE - kv % _SIDE).abs() <= 3,
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
    """Forward, and both passes, checking the whole mask, one condition, and nothing."""
    torch.manual_seed(0)
    shape = (1, HEADS, N_TOKENS, HEAD_DIM)
    q, k, v = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3))
    grad = torch.randn(shape, dtype=dtype)
    whole = attnc.create_block_mask(case.mask, None, None, N_TOKENS, N_TOKENS, BLOCK_SIZE=_BLOCKS)
    lists = (
        whole.kv_num_blocks,
        whole.kv_indices,
        whole.full_kv_num_blocks,
        whole.full_kv_indices,
    )
    sizes: dict[str, Any] = {"BLOCK_SIZE": _BLOCKS, "seq_lengths": (N_TOKENS, N_TOKENS)}
    masks = {
        "whole mask": whole,
        "one condition": attnc.BlockMask.from_kv_blocks(*lists, mask_mod=case.condition, **sizes),
        "no mask": attnc.BlockMask.from_kv_blocks(*lists, mask_mod=_always, **sizes),
    }

    def forward(mask: Any) -> Call:
        def call() -> Any:
            with torch.no_grad():
                return attnc.attention(q, k, v, mask=mask)

        return call

    def both(mask: Any) -> Call:
        return lambda: torch.autograd.grad(attnc.attention(q, k, v, mask=mask), (q, k, v), grad)

    calls = {f"{name}, forward": forward(mask) for name, mask in masks.items()}
    return calls | {f"{name}, both": both(mask) for name, mask in masks.items()}


# A multiple of the tiles of every CPU kernel at this head_dim.
_BLOCKS = (64, 128)


def _always(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return kv_idx >= 0


def _processor_clock(call: Call) -> float:
    """Seconds of the processor: calls run on this thread alone."""
    start = time.thread_time()
    call()
    return time.thread_time() - start


def timed(case: Case, dtype: torch.dtype, n_rounds: int) -> dict[str, Any]:
    """Milliseconds of each call, and the shares that checking less could save at most."""
    times = in_turns(calls_of(case, dtype), n_rounds, clock=_processor_clock)
    shares = {}
    for passes in ("forward", "both"):
        whole = times[f"whole mask, {passes}"].fastest
        for less in ("one condition", "no mask"):
            shares[f"{less}, {passes}"] = 1 - times[f"{less}, {passes}"].fastest / whole
    return {
        "case": case.name,
        "dtype": str(dtype).removeprefix("torch."),
        "ms": {name: taken.in_ms() for name, taken in times.items()},
        "saved": shares,
    }


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
    cells = [f"{row['case']}, {row['dtype']}", f"{row['ms']['whole mask, forward']['fastest']:.1f}"]
    return cells + [
        f"{row['saved'][f'{less}, {passes}']:+.1%}"
        for passes in ("forward", "both")
        for less in ("one condition", "no mask")
    ]


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
        + f"\nTime that checking less could save at most on a CPU, of calls with {N_TOKENS} tokens, "
        f"{HEADS} heads, D {HEAD_DIM}, one thread of {about['processor']} (processor time, fastest of "
        f"{options.rounds} rounds in turns): the same tiles, of which PARTIAL ones check one "
        "condition, or none. Negative: it takes longer, since the whole mask tells which columns of "
        "a tile are visible, and only those are computed.\n\n"
        + markdown_table(
            [
                "mask",
                "forward, ms",
                "one condition, forward",
                "no mask, forward",
                "one condition, both passes",
                "no mask, both passes",
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
