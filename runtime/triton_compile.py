"""Triton kernels compiled for a machine that need not be here, and kept on disk."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from attnc.errors import OfflineCompileError, ToolMissingError
from attnc.plan import Plan, Spec
from attnc.render.names import FORWARD
from attnc.render.triton_expressions import outer_row
from attnc.runtime import cache, triton_worker
from attnc.runtime.process import run_process
from attnc.runtime.triton_build import SOURCE, function_facts, kernel_digest, write_source
from attnc.runtime.triton_worker import BINARIES, METADATA, REQUEST, TEXTS
from attnc.target import GpuTarget

_TYPES = {
    "bool": "u8",  # as a launch passes it
    "float16": "fp16",
    "bfloat16": "bf16",
    "float32": "fp32",
    "float64": "fp64",
    **{
        f"{sign}int{bits}": f"{sign or 'i'}{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
    },
}
_COUNTS = (
    "n_heads",
    "n_kv_heads",
    "n_readers",
    "n_queries",
    "n_keys",
    "group_size",
    "n_q_blocks",
    "n_kv_blocks",
    "has_grad_lse",
    "first_program",
    "n_columns",
)
_LOOPS = "loops.json"
TIME_LIMIT = 600.0  # seconds


@dataclass(frozen=True)
class OfflineBinary:
    """A compiled kernel and every stage on the way to it.

    Attributes:
        target: The machine.
        source: Its Triton source.
        texts: Text by stage: ttir, ttgir, llir, and ptx or amdgcn.
        binary: The file for the driver: cubin or hsaco.
        shared_bytes: Shared memory per program.
        n_warps: Warps per program.
        tensor_columns: Columns of tensor memory per program.
        loop_kinds: PARTIAL or FULL for each loop over whole tiles, in order of the source.
    """

    target: GpuTarget
    source: str
    texts: dict[str, str]
    binary: Path
    shared_bytes: int
    n_warps: int
    tensor_columns: int
    loop_kinds: tuple[str, ...]


def compile_offline(spec: Spec, target: GpuTarget, function: str = FORWARD) -> OfflineBinary:
    """A function of the kernel of ``spec`` compiled for ``target``, from disk or by Triton; no GPU is needed.

    The arguments are taken to be as they mostly are: pointers and outer strides divisible by 16,
    innermost strides 1.

    Raises:
        OfflineCompileError: Triton's compiler fails; the message has its output.
        ToolMissingError: Triton is not installed.
    """
    spec = replace(spec, target=target)
    try:
        digest = kernel_digest(spec, f"offline {function}")
    except PackageNotFoundError as error:
        raise ToolMissingError(
            tool="Triton",
            purpose="compiles kernels for GPUs",
            problem="it is not installed",
            remedy="pip install triton.",
        ) from error
    folder = cache.fetch(digest, functools.partial(_build, spec, target, function)).folder
    metadata = json.loads((folder / METADATA).read_text())
    (binary,) = (path for e in BINARIES if (path := folder / f"kernel.{e}").exists())
    return OfflineBinary(
        target=target,
        source=(folder / SOURCE).read_text(),
        texts={e: path.read_text() for e in TEXTS if (path := folder / f"kernel.{e}").exists()},
        binary=binary,
        shared_bytes=metadata["shared"],
        n_warps=metadata["num_warps"],
        tensor_columns=metadata["tmem_size"] or 0,
        loop_kinds=tuple(json.loads((folder / _LOOPS).read_text())),
    )


def _build(spec: Spec, target: GpuTarget, function: str, folder: Path) -> None:
    from attnc.render.triton import loops_of, tiles_of

    plan = write_source(spec, folder)
    types, ones, aligned = signature_of(plan)
    request = {
        "function": function,
        "backend": target.backend,
        "arch": target.arch,
        "warp_size": target.warp_size,
        "types": types,
        "ones": ones,
        "aligned": aligned,
        "options": function_facts(tiles_of(plan, function)).options,
    }
    (folder / REQUEST).write_text(json.dumps(request))
    (folder / _LOOPS).write_text(json.dumps([loop.kind for loop in loops_of(plan, function)]))
    # -P: the worker's own folder has a module named triton.
    command = [sys.executable, "-P", triton_worker.__file__, str(folder)]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    try:
        done = run_process(command, folder=folder, time_limit=TIME_LIMIT, environment=environment)
    except subprocess.TimeoutExpired:
        output = f"did not finish in {TIME_LIMIT:g} s"
        raise OfflineCompileError(target=target.name, output=output) from None
    if done.code:
        raise OfflineCompileError(target=target.name, output=done.errors[-2000:])


def signature_of(plan: Plan) -> tuple[dict[str, str], list[str], list[str]]:
    """Triton type of each argument of any function; those fixed to 1; those divisible by 16."""
    spec = plan.spec
    offset = "i64" if spec.wide_index else "i32"
    dtype, acc = f"*{_TYPES[spec.dtype]}", _TYPES[spec.float_dtype.value]
    types, ones, aligned = {"scale": acc}, [], []
    tensors = [("q", "bhmd"), ("k", "bhnd"), ("v", "bhnd"), ("out", "bhmd")]
    tensors += [(f"grad_{name}", dims) for name, dims in tensors]
    for name, dims in tensors:
        types[f"{name}_ptr"] = dtype
        types |= {f"{name}_stride_{dim}": offset for dim in dims}
        ones.append(f"{name}_stride_d")
        aligned += [f"{name}_ptr", *(f"{name}_stride_{dim}" for dim in dims[:-1])]
    types |= dict.fromkeys(_COUNTS, "i32")
    sums = [f"sum{number}_ptr" for number in range(len(plan.accumulations))]
    for name in ("lse_ptr", "max_ptr", "grad_lse_ptr", "delta_ptr", "values_ptr", *sums):
        types[name] = f"*{acc}"
        aligned.append(name)
    types["places_ptr"] = "*i64"
    aligned.append("places_ptr")
    rows = (row for accumulation in plan.accumulations for row in accumulation.rows)
    types |= {outer_row(row.number): "i32" for row in rows}
    for number, param in enumerate(spec.params):
        types[f"p{number}"] = "fp64" if param.is_float else "i64"
    for slot in plan.slots:
        types[f"t{slot}_ptr"] = f"*{_TYPES[spec.slots[slot].storage]}"
        aligned.append(f"t{slot}_ptr")
        rank = spec.slots[slot].rank
        for dim in range(rank):
            types[f"t{slot}_size{dim}"] = "i32"
            types[f"t{slot}_stride{dim}"] = offset
        if rank:
            ones.append(f"t{slot}_stride{rank - 1}")
    if plan.uses_table:
        types |= {"table_stride_b": "i32", "table_stride_h": "i32"}
        for kind in ("partial", "full"):
            types |= {f"{kind}_starts_ptr": "*i32", f"{kind}_stops_ptr": "*i32"}
            types[f"{kind}_offsets_ptr"] = "*i64"
            aligned += [f"{kind}_{field}_ptr" for field in ("offsets", "starts", "stops")]
        types["partial_held_ptr"] = "*i8"
        aligned.append("partial_held_ptr")
    return types, ones, aligned
