"""attnc's Triton kernels beside those of PyTorch's flex_attention, compiled for sm_90; no GPU needed.

``python -m benchmarks.inductor`` prints a table and writes ``benchmarks/results/inductor_sm90.json``.
Counted are the instructions of the machine code, of all warps of a program, that one visit of a
tile takes in the innermost loop, per 128 x 64 scores, since tile sizes differ. In "full", flex
knows no FULL tiles: its only loop, over PARTIAL ones, is compared.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import triton

from attnc.ir import DType
from attnc.plan import Spec, make_plan
from attnc.program import build_program
from attnc.runtime.triton_binary import resources_of_cubin
from attnc.runtime.triton_compile import compile_offline
from attnc.runtime.triton_sass import machine_loops
from attnc.target import GPU_TARGETS
from benchmarks.flex_source import compiled_flex_kernel
from benchmarks.gpu_cases import CASES, Case
from benchmarks.measure import RESULTS, geometric_mean, markdown_table, write_json

FILE = RESULTS / "inductor_sm90.json"
UNIT = 128 * 64  # scores
N_HEADS = 16
LENGTH = 4096


@dataclass(frozen=True)
class Cost:
    """What one kernel takes.

    Attributes:
        block_m: Queries per tile.
        block_n: Keys per tile.
        n_warps: Warps per program.
        registers: Per thread.
        spill_bytes: Per thread.
        shared_bytes: Per program.
        loops: Warp instructions per 128 x 64 scores, by kind of tile: PARTIAL and FULL.
    """

    block_m: int
    block_n: int
    n_warps: int
    registers: int
    spill_bytes: int
    shared_bytes: int
    loops: dict[str, float]

    @property
    def full(self) -> float:
        return self.loops.get("FULL") or self.loops["PARTIAL"]


def cost(
    cubin: Path, kinds: tuple[str, ...], block_m: int, block_n: int, n_warps: int, shared: int
) -> Cost:
    """Reads ``cubin``; ``kinds`` are those of its loops, in order."""
    loops = machine_loops(cubin)
    assert len(loops) == len(kinds), f"{len(loops)} loops are no {kinds}"
    factor = n_warps * UNIT / (block_m * block_n)
    # Where two loops are of a kind, the dearer one counts.
    counts = {
        kind: max(
            loop.n_instructions * factor
            for loop, own in zip(loops, kinds, strict=True)
            if own == kind
        )
        for kind in sorted(set(kinds))
    }
    return Cost(block_m, block_n, n_warps, *resources_of_cubin(cubin), shared, counts)


def cost_of_attnc(case: Case, head_dim: int) -> Cost:
    mask = case.bound_mask(case.tensors(LENGTH, "cpu"))
    program = build_program(mask, case.score, DType.FLOAT32)
    target = GPU_TARGETS["sm_90"]
    spec = Spec(
        mask=program.lifted.exprs[0],
        score=program.lifted.exprs[1],
        slots=program.slots,
        params=program.lifted.dtypes,
        dtype="bfloat16",
        head_dim=head_dim,
        value_dim=head_dim,
        target=target,
    )
    binary = compile_offline(spec, target)
    tiles = make_plan(spec).tiles
    sizes = (tiles.block_m, tiles.block_n, binary.n_warps, binary.shared_bytes)
    return cost(binary.binary, binary.loop_kinds, *sizes)


def cost_of_flex(case: Case, head_dim: int) -> Cost:
    kernel = compiled_flex_kernel(case, n_heads=N_HEADS, length=LENGTH, head_dim=head_dim)
    kinds = ("PARTIAL", "FULL") if kernel.has_full_blocks else ("PARTIAL",)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "flex.cubin"
        cubin.write_bytes(kernel.cubin)
        sizes = (kernel.block_m, kernel.block_n, kernel.n_warps, kernel.shared_bytes)
        return cost(cubin, kinds, *sizes)


def row(case: Case, head_dim: int) -> dict[str, Any]:
    ours, theirs = cost_of_attnc(case, head_dim), cost_of_flex(case, head_dim)
    ratios = {"FULL": ours.full / theirs.full}
    if "PARTIAL" in ours.loops and "PARTIAL" in theirs.loops:
        ratios["PARTIAL"] = ours.loops["PARTIAL"] / theirs.loops["PARTIAL"]
    return {
        "case": case.name,
        "head_dim": head_dim,
        "attnc": asdict(ours),
        "flex": asdict(theirs),
        "ratio": {kind: round(ratio, 3) for kind, ratio in ratios.items()},
    }


def table(rows: list[dict[str, Any]]) -> str:
    headings = ["case", "D", "tile", "registers", "spilled", "KiB", "FULL", "ratio", "PARTIAL"]
    headings += ["ratio"]
    lines = []
    for r in rows:
        pair = (r["attnc"], r["flex"])
        full = [c["loops"].get("FULL") or c["loops"]["PARTIAL"] for c in pair]
        partial = [c["loops"].get("PARTIAL") for c in pair]
        lines.append(
            [
                r["case"],
                str(r["head_dim"]),
                _both(f"{c['block_m']}x{c['block_n']}x{c['n_warps']}" for c in pair),
                _both(c["registers"] for c in pair),
                _both(c["spill_bytes"] for c in pair),
                _both(c["shared_bytes"] >> 10 for c in pair),
                _both(round(n) for n in full),
                f"{r['ratio']['FULL']:.2f}",
                _both("-" if n is None else round(n) for n in partial),
                f"{r['ratio']['PARTIAL']:.2f}" if "PARTIAL" in r["ratio"] else "-",
            ]
        )
    return markdown_table(headings, lines)


def _both(values: Any) -> str:
    return " / ".join(map(str, values))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [case.name for case in CASES]
    parser.add_argument("--cases", nargs="+", choices=names, default=names)
    parser.add_argument("--dims", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--out", type=Path, default=FILE, help="file to write")
    options = parser.parse_args(arguments)
    rows = [
        row(case, head_dim)
        for head_dim in options.dims
        for case in CASES
        if case.name in options.cases
    ]
    mean = geometric_mean(r["ratio"]["FULL"] for r in rows)
    print("attnc / flex; a tile is queries x keys x warps; instructions per 128 x 64 scores\n")
    print(table(rows))
    print(f"FULL tiles: attnc takes {mean:.2f} of flex's instructions, in geometric mean.")
    about = {"target": "sm_90", "torch": torch.__version__, "triton": triton.__version__}
    write_json(options.out, {"about": about, "geometric_mean": {"FULL": mean}, "rows": rows})


if __name__ == "__main__":
    main()
