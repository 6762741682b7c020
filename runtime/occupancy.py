"""How many warps of a kernel a core of a GPU holds at once, by the limits its vendor publishes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attnc.target import GpuTarget


@dataclass(frozen=True)
class CoreLimits:
    """What a core (NVIDIA: multiprocessor, AMD: compute unit) has for the programs on it.

    Attributes:
        max_warps, max_programs: That may be resident.
        n_schedulers: Parts of the core with warps and registers of their own.
        registers: Of one thread, 32 bits each, that a scheduler has for each lane of a warp.
        register_unit: Registers of a thread are rounded up to a multiple.
        shared_bytes: Shared memory of all programs.
        shared_reserved: Of it, what the system takes per program.
        shared_unit: Shared memory of a program is rounded up to a multiple.
        tensor_columns: Of tensor memory; 0 where there is none.
    """

    max_warps: int
    max_programs: int
    n_schedulers: int
    registers: int
    register_unit: int
    shared_bytes: int
    shared_reserved: int
    shared_unit: int
    tensor_columns: int = 0


# CUDA programming guide, "Compute Capabilities": 64 warps, 32 programs and 65536 registers of 32
# bits, in units of 256 per warp, on four schedulers; shared memory in units of 128 bytes, of which
# 1 KiB per program is the system's. PTX ISA, "Tensor Memory": 512 columns.
def _nvidia(shared_kib: int, tensor_columns: int = 0) -> CoreLimits:
    return CoreLimits(64, 32, 4, 512, 8, shared_kib << 10, 1 << 10, 128, tensor_columns)


# LLVM, AMDGPUBaseInfo: 8 waves per SIMD, 512 registers of each lane in units of 8, 16 workgroups
# of several waves; ROCm, "GPU hardware specifications": four SIMDs and 64 KiB of LDS.
LIMITS: Mapping[str, CoreLimits] = {
    "sm_80": _nvidia(164),
    "sm_90": _nvidia(228),
    "sm_100": _nvidia(228, tensor_columns=512),
    "gfx942": CoreLimits(32, 16, 4, 512, 8, 64 << 10, 0, 512),
}


@dataclass(frozen=True)
class Occupancy:
    """Attributes:
    programs: Resident on a core.
    warps: Resident on a core.
    max_warps: That a core could hold.
    limited_by: What allows no more.
    """

    programs: int
    warps: int
    max_warps: int
    limited_by: str

    @property
    def share(self) -> float:
        """Of the warps that a core could hold."""
        return self.warps / self.max_warps


def occupancy_of(
    target: GpuTarget, *, registers: int, n_warps: int, shared_bytes: int, tensor_columns: int = 0
) -> Occupancy | None:
    """Of programs with ``n_warps`` warps and ``registers`` per thread; None for unknown machines."""
    limits = LIMITS.get(target.name)
    if limits is None:
        return None
    taken = _rounded(max(registers, 1), limits.register_unit)
    by_registers = limits.n_schedulers * (limits.registers // taken)
    room = {
        "registers": by_registers // n_warps,
        "shared memory": limits.shared_bytes
        // max(_rounded(shared_bytes + limits.shared_reserved, limits.shared_unit), 1),
        "warps": limits.max_warps // n_warps,
        "programs": limits.max_programs,
    }
    if tensor_columns:
        room["tensor memory"] = limits.tensor_columns // tensor_columns
    limited_by = min(room, key=lambda name: room[name])
    programs = room[limited_by]
    return Occupancy(programs, programs * n_warps, limits.max_warps, limited_by)


def _rounded(number: int, unit: int) -> int:
    return -(-number // unit) * unit
