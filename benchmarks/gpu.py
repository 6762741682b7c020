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
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_cells import BY_NAME, Cell, measured, peaks
from benchmarks.measure import (
    RESULTS,
    cuda_clock,
    geometric_mean,
    machine_facts,
    markdown_table,
    wall_clock,
    write_json,
)

PEERS = ("flex", "sdpa")
SECONDS_PER_CELL = 120.0


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
    names = list(BY_NAME)
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
