"""The machines that kernels are made for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CpuIsa = Literal["amx", "avx512_bf16", "avx512", "avx2", "generic"]


@dataclass(frozen=True)
class CpuTarget:
    """A CPU, by the vector instructions that generated code may use.

    ``generic`` is what the compiler's baseline gives, on any architecture.
    """

    isa: CpuIsa

    @property
    def name(self) -> str:
        return f"cpu-{self.isa}"

    @property
    def vector_bytes(self) -> int:
        return {"avx2": 32, "generic": 16}.get(self.isa, 64)

    @property
    def multiplies_bfloat16(self) -> bool:
        """It has products of pairs of bfloat16, summed in float32."""
        return self.isa in ("amx", "avx512_bf16")


@dataclass(frozen=True)
class GpuTarget:
    """A GPU, by Triton's backend and architecture: ``("cuda", 90)`` or ``("hip", "gfx942")``.

    ``backend`` "interpret" is Triton's interpreter on CPU tensors.
    """

    backend: Literal["cuda", "hip", "interpret"]
    arch: int | str
    warp_size: int

    @property
    def name(self) -> str:
        return f"sm_{self.arch}" if self.backend == "cuda" else str(self.arch)


Target = CpuTarget | GpuTarget

INTERPRETER = GpuTarget("interpret", "interpret", 32)
GPU_TARGETS: dict[str, GpuTarget] = {
    "sm_80": GpuTarget("cuda", 80, 32),
    "sm_90": GpuTarget("cuda", 90, 32),
    "sm_100": GpuTarget("cuda", 100, 32),
    "gfx942": GpuTarget("hip", "gfx942", 64),
}
