"""The machines and dtypes that a compilation can be inspected for."""

from __future__ import annotations

from typing import get_args

from attnc import checks
from attnc.errors import InspectionOptionError
from attnc.target import GPU_TARGETS, CpuIsa, CpuTarget, GpuTarget, Target, gpu_of

_CPUS = {(target := CpuTarget(isa)).name: target for isa in get_args(CpuIsa)}
#: "cpu" and "triton" are those of this machine.
MACHINES = ("cpu", *_CPUS, "triton", *GPU_TARGETS)


def require_known(option: str, value: str, known: tuple[str, ...]) -> None:
    """Raises InspectionOptionError unless ``value`` is one of ``known``."""
    if not checks.one_of(value, known):
        problem = f"use one of {', '.join(known)}."
        raise InspectionOptionError(option=option, value=value, problem=problem)


def machine_named(name: str) -> Target:
    """The machine with this name; an InspectionOptionError if it is none of ``MACHINES``."""
    require_known("target", name, MACHINES)
    match name:
        case "cpu":
            return local_cpu()
        case "triton":
            return default_gpu()
        case _:
            return _CPUS.get(name) or GPU_TARGETS[name]


def local_cpu() -> CpuTarget:
    """The CPU of this machine."""
    from attnc.runtime.isa import best_isa

    return CpuTarget(best_isa())


def default_gpu() -> GpuTarget:
    """The GPU of this machine, else sm_90."""
    return gpu_of() or GPU_TARGETS["sm_90"]
