"""attnc against ``torch.compile(flex_attention)`` and SDPA on this GPU, forward, in bfloat16.

``python -m benchmarks.gpu --quick`` prints a table and writes ``benchmarks/results/gpu.json``, and
a picture beside it where matplotlib is installed. Every result is first compared with dense
float64. Candidates take turns between flushes of the cache; medians count, compilation does not.
The block masks of flex are made before; for attnc that is part of the call.

The work is done by a process of its own, which is started again for the remaining cases should a
case take it down. Exit codes: 0 all went well, or there is no GPU; 1 a case failed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask

import attnc
from attnc.runtime.reference import reference_attention
from benchmarks.gpu_cases import CASES
from benchmarks.measure import (
    RESULTS,
    Call,
    Clock,
    compiled_flex,
    cuda_clock,
    gemm_flops,
    geometric_mean,
    in_turns,
    machine_facts,
    markdown_table,
    wall_clock,
    write_json,
)

PEERS = ("flex", "sdpa")
SECONDS_PER_CELL = 120.0
TOLERANCE = 0.03  # of values of variance 1: rounding of weights and output to bfloat16
_BY_NAME = {case.name: case for case in CASES}


@dataclass(frozen=True)
class Cell:
    """One row of the table; ``direction`` is "forward", the only one there is a kernel for."""

    case: str
    head_dim: int
    length: int
    n_heads: int
    device: str
    peers: tuple[str, ...]
    n_rounds: int
    direction: str = "forward"

    @property
    def label(self) -> str:
        return f"{self.case}, D={self.head_dim}, S={self.length}"


def inputs(cell: Cell) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q, k and v, (1, n_heads, length, head_dim) in bfloat16; float32 on CPUs."""
    generator = torch.Generator(cell.device).manual_seed(0)
    shape = (1, cell.n_heads, cell.length, cell.head_dim)
    dtype = torch.bfloat16 if cell.device == "cuda" else torch.float32
    q, k, v = (
        torch.randn(shape, generator=generator, device=cell.device).to(dtype) for _ in range(3)
    )
    return q, k, v


def candidates(cell: Cell, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> dict[str, Call]:
    """What is compared, ready to be called; each gives (1, n_heads, length, head_dim)."""
    case = _BY_NAME[cell.case]
    mask = case.bound_mask(case.tensors(cell.length, cell.device))
    calls: dict[str, Call] = {
        "attnc": lambda: attnc.attention(q, k, v, mask=mask, score=case.score)
    }
    if "flex" in cell.peers:
        blocks = None
        if mask is not None:
            blocks = create_block_mask(mask, None, None, cell.length, cell.length, cell.device)
        flex = compiled_flex()
        calls["flex"] = lambda: flex(q, k, v, score_mod=case.score, block_mask=blocks)
    if "sdpa" in cell.peers and cell.case in ("full", "causal"):
        is_causal = cell.case == "causal"
        calls["sdpa"] = lambda: torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=is_causal
        )
    return calls


def largest_error(cell: Cell, q: Any, k: Any, v: Any, out: torch.Tensor) -> float:
    """Greatest difference from dense float64 in the first and the last head."""
    case = _BY_NAME[cell.case]
    mask = case.bound_mask(case.tensors(cell.length, cell.device))
    errors = []
    for head in sorted({0, cell.n_heads - 1}):
        part = slice(head, head + 1)
        score = None if case.score is None else _of_head(case.score, head)
        expected = reference_attention(
            q[:, part], k[:, part], v[:, part], mask=mask, score=score
        ).out
        errors.append(float((out[:, part].double() - expected).abs().max()))
    return math.nan if any(map(math.isnan, errors)) else max(errors)


def _of_head(score: Callable[..., Any], head: int) -> Callable[..., Any]:
    return lambda s, b, h, q_idx, kv_idx: score(s, b, h + head, q_idx, kv_idx)


def measured(cell: Cell, clock: Clock) -> dict[str, Any]:
    """Errors and times of every candidate of ``cell``.

    Raises:
        ArithmeticError: attnc's result is wrong; it is not timed.
    """
    torch._dynamo.reset()
    q, k, v = inputs(cell)
    with torch.no_grad():
        calls = candidates(cell, q, k, v)
        errors = {name: largest_error(cell, q, k, v, call()) for name, call in calls.items()}  # type: ignore[arg-type]
        if not errors["attnc"] <= TOLERANCE:
            raise ArithmeticError(f"attnc differs from float64 by {errors['attnc']:.3g}")
        times = in_turns(calls, cell.n_rounds, clock=clock)
        launches = {name: launch_us(call, cell.device) for name, call in calls.items()}
    flops = 4.0 * cell.head_dim * cell.n_heads * _BY_NAME[cell.case].n_visible(cell.length)
    return {
        "ms": {name: t.in_ms() for name, t in times.items()},
        "tflops": {name: round(flops / t.median / 1e12, 2) for name, t in times.items()},
        "launch_us": launches,
        "max_error": errors,
        "over_attnc": {
            name: round(t.median / times["attnc"].median, 3)
            for name, t in times.items()
            if name != "attnc"
        },
    }


def launch_us(call: Call, device: str, n_calls: int = 20) -> float:
    """Microseconds until a call returns, whatever the GPU still has to do; the median."""
    taken = []
    for _ in range(n_calls):
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(wall_clock(call))
    return round(1e6 * sorted(taken)[n_calls // 2], 1)


def peaks(device: str, clock: Clock) -> dict[str, float]:
    """Rate of a large matrix product, in TFLOP/s, and of a copy, in GB/s read and written."""
    n, n_bytes = (8192, 1 << 30) if device == "cuda" else (256, 1 << 20)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    multiply = gemm_flops(n, n, n, dtype, device=device)
    source = torch.zeros(n_bytes, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    times = in_turns({"gemm": multiply, "copy": lambda: target.copy_(source)}, 20, clock=clock)
    return {
        "gemm_tflops": round(multiply() / times["gemm"].median / 1e12, 1),
        "copy_gb_s": round(2 * n_bytes / times["copy"].median / 1e9, 1),
    }


def work(cells: Sequence[Cell], wants_peaks: bool) -> None:
    """Measures ``cells`` in turn; prints one line of JSON for each."""
    clock = cuda_clock() if cells[0].device == "cuda" else wall_clock
    if wants_peaks:
        _tell({"peaks": peaks(cells[0].device, clock), "about": machine_facts()})
    for cell in cells:
        start = time.perf_counter()
        try:
            result = measured(cell, clock)
        except Exception as e:  # noqa: BLE001 - whatever it is, the other cases are measured
            text = traceback.format_exception_only(e)[-1].strip()
            result = {"error": text[:2000], "traceback": traceback.format_exc()[-4000:]}
        result["seconds"] = round(time.perf_counter() - start, 1)
        _tell({"cell": asdict(cell), **result})
        if cell.device == "cuda":
            torch.cuda.synchronize()  # raises where a fault has made the process useless


def _tell(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def results_of(cells: Sequence[Cell]) -> Iterator[dict[str, Any]]:
    """What workers say of ``cells``, a new one taking over where one breaks down or hangs."""
    remaining, wants_peaks = list(cells), True
    while remaining:
        request = json.dumps({"cells": [asdict(c) for c in remaining], "peaks": wants_peaks})
        worker = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu", "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(),
        )
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(request)
        worker.stdin.close()
        n_before = len(remaining)
        while True:
            alarm = threading.Timer(SECONDS_PER_CELL, worker.kill)
            alarm.start()
            line = worker.stdout.readline()
            alarm.cancel()
            if not line:
                break
            if not line.startswith("{"):
                print(line, end="", file=sys.stderr)
                continue
            message = json.loads(line)
            if "cell" in message:
                remaining.pop(0)
            wants_peaks = wants_peaks and "peaks" not in message
            yield message
        code = worker.wait()
        if remaining and len(remaining) == n_before:
            lost = remaining.pop(0)  # it does not get past this one
            yield {"cell": asdict(lost), "error": f"its process ended with code {code}"}


def _environment() -> dict[str, str]:
    """That of a worker: kernels are kept somewhere even where platformdirs is not installed."""
    folder = str(Path(tempfile.gettempdir()) / f"attnc-benchmark-{os.getuid()}")
    place = {} if importlib.util.find_spec("platformdirs") else {"ATTNC_CACHE_DIR": folder}
    return {**place, **os.environ}


def table(rows: Sequence[dict[str, Any]]) -> str:
    headings = ["case", "D", "S", "attnc ms", "flex ms", "SDPA ms", "flex/attnc", "SDPA/attnc"]
    headings += ["TFLOP/s", "error", "launch us"]
    lines = []
    for row in rows:
        cell = row["cell"]
        start = [cell["case"], str(cell["head_dim"]), str(cell["length"])]
        if "error" in row:
            lines.append([*start, "failed", *["-"] * 7])
            continue
        ms = {name: f"{t['median']:.3f}" for name, t in row["ms"].items()}
        over = {name: f"{ratio:.2f}" for name, ratio in row["over_attnc"].items()}
        lines.append(
            [
                *start,
                *(ms.get(name, "-") for name in ("attnc", *PEERS)),
                *(over.get(name, "-") for name in PEERS),
                f"{row['tflops']['attnc']:.0f}",
                f"{row['max_error']['attnc']:.1e}",
                f"{row['launch_us']['attnc']:.0f}",
            ]
        )
    return markdown_table(headings, lines)


def draw(rows: Sequence[dict[str, Any]], peak: float, path: Path) -> None:
    """A picture of the rates, if matplotlib is here."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        print("No picture: matplotlib is not installed.")
        return
    figure, axes = plt.subplots(figsize=(11, 0.5 + 0.42 * len(rows)), layout="constrained")
    places = range(len(rows))
    for number, name in enumerate(("attnc", *PEERS)):
        rates = [row["tflops"].get(name, 0.0) for row in rows]
        axes.barh([p + 0.27 * (number - 1) for p in places], rates, 0.25, label=name)
    cells = [Cell(**row["cell"]) for row in rows]
    axes.set_yticks(list(places), [cell.label for cell in cells])
    axes.invert_yaxis()
    axes.set_xlabel(f"TFLOP/s of visible scores; a matrix product reaches {peak:.0f}")
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = list(_BY_NAME)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and lengths: 6 minutes")
    parser.add_argument("--tiny", action="store_true", help="sizes to try the harness itself with")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--cases", nargs="+", choices=names, default=names)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json", help="file to write")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        request = json.load(sys.stdin)
        cells = [Cell(**{**cell, "peers": tuple(cell["peers"])}) for cell in request["cells"]]
        work(cells, request["peaks"])
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        print("There is no GPU here that PyTorch can use; nothing was measured.")
        return 0
    lengths, n_rounds = ([2048, 8192], 20) if options.quick else ([2048, 8192, 32768], 50)
    dims, n_heads = [64, 128], 16
    if options.tiny:
        lengths, n_rounds, dims, n_heads = [128], 2, [16], 2
    cells = [
        Cell(name, head_dim, length, n_heads, options.device, tuple(options.peers), n_rounds)
        for name in options.cases
        for head_dim in dims
        for length in lengths
    ]
    return _run(cells, options.out)


def _run(cells: Sequence[Cell], out: Path) -> int:
    content: dict[str, Any] = {"about": {}, "peaks": {}, "rows": []}
    rows = content["rows"]
    for message in results_of(cells):
        if "cell" not in message:
            content |= message
            print(message["peaks"], flush=True)
            continue
        rows.append(message)
        cell = Cell(**message["cell"])
        outcome = message.get("error") or f"{message['ms']['attnc']['median']:.3f} ms"
        print(f"[{len(rows)}/{len(cells)}] {cell.label}: {outcome}", flush=True)
        write_json(out, content)  # what is known so far, should the next case take everything down
    good = [row for row in rows if "error" not in row]
    content["geometric_mean"] = {
        name: round(geometric_mean(ratios), 3)
        for name in PEERS
        if (ratios := [r["over_attnc"][name] for r in good if name in r["over_attnc"]])
    }
    write_json(out, content)
    text = table(rows)
    out.with_suffix(".md").write_text(text)
    print(f"\n{text}")
    for name, mean in content["geometric_mean"].items():
        print(f"{name} takes {mean:.2f} times as long as attnc, in geometric mean.")
    if good:
        draw(good, content["peaks"].get("gemm_tflops", math.nan), out.with_suffix(".png"))
    failed = [row for row in rows if "error" in row]
    for row in failed:
        print(f"FAILED {Cell(**row['cell']).label}: {row['error']}")
        print(row.get("traceback", ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
