"""The machines that kernels are made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

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
class Peaks:
    """What a GPU reaches at the best, as published: operations per second of matrix products by
    storage dtype, dense, and bytes per second of its memory."""

    gpu: str
    flops: Mapping[str, float]
    bytes_per_second: float


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

    @property
    def peaks(self) -> Peaks | None:
        """Of the GPU that this architecture is best known for; None for others."""
        return _PEAKS.get(self.name)


Target = CpuTarget | GpuTarget

INTERPRETER = GpuTarget("interpret", "interpret", 32)
GPU_TARGETS: dict[str, GpuTarget] = {
    "sm_80": GpuTarget("cuda", 80, 32),
    "sm_90": GpuTarget("cuda", 90, 32),
    "sm_100": GpuTarget("cuda", 100, 32),
    "gfx942": GpuTarget("hip", "gfx942", 64),
}


def gpu_of(device: torch.device | None = None) -> GpuTarget | None:
    """The GPU ``device``, by default the current one; None where PyTorch finds none."""
    if not torch.cuda.is_available():
        return None
    if torch.version.hip:
        arch = torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]
        return GpuTarget("hip", arch, 64)
    major, minor = torch.cuda.get_device_capability(device)
    return GpuTarget("cuda", 10 * major + minor, 32)


def _peaks(gpu: str, half: float, single: float, double: float, bandwidth: float) -> Peaks:
    """From TFLOP/s and TB/s. float32 products here are of full precision, without TF32."""
    flops = {"bfloat16": half, "float16": half, "float32": single, "float64": double}
    return Peaks(gpu, {dtype: 1e12 * peak for dtype, peak in flops.items()}, 1e12 * bandwidth)


# Data sheets: NVIDIA A100, H100 and HGX B200; AMD Instinct MI300X.
_PEAKS = {
    "sm_80": _peaks("A100 80 GB SXM", 312, 19.5, 9.7, 2.039),
    "sm_90": _peaks("H100 SXM", 989.4, 66.9, 33.5, 3.35),
    "sm_100": _peaks("B200", 2250, 75, 37, 8.0),
    "gfx942": _peaks("MI300X", 1307.4, 163.4, 81.7, 5.3),
}
