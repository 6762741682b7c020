"""The machines and dtypes that a compilation can be inspected for."""

from __future__ import annotations

from attnc import checks
from attnc.errors import InspectionOptionError
from attnc.target import GPU_TARGETS, CpuTarget, GpuTarget, Target, gpu_of

MACHINES = (
    "cpu",
    "cpu-amx",
    "cpu-avx512_bf16",
    "cpu-avx512",
    "cpu-avx2",
    "cpu-generic",
    "triton",
    *GPU_TARGETS,
)


def require_known(option: str, value: str, known: tuple[str, ...]) -> None:
    if not checks.one_of(value, known):
        problem = f"use one of {', '.join(known)}."
        raise InspectionOptionError(option=option, value=value, problem=problem)


def machine_named(name: str) -> Target:
    require_known("target", name, MACHINES)
    match name:
        case "cpu":
            return local_cpu()
        case "cpu-amx":
            return CpuTarget("amx")
        case "cpu-avx512_bf16":
            return CpuTarget("avx512_bf16")
        case "cpu-avx512":
            return CpuTarget("avx512")
        case "cpu-avx2":
            return CpuTarget("avx2")
        case "cpu-generic":
            return CpuTarget("generic")
        case "triton":
            return default_gpu()
        case _:
            return GPU_TARGETS[name]


def local_cpu() -> CpuTarget:
    from attnc.runtime.isa import best_isa

    return CpuTarget(best_isa())


def default_gpu() -> GpuTarget:
    """The GPU of this machine, else sm_90."""
    return gpu_of() or GPU_TARGETS["sm_90"]
