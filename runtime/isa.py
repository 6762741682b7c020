"""Vector instructions of this machine, and the compiler flags that allow them."""

from __future__ import annotations

import functools
import platform

import torch

from attnc.target import CpuIsa

# Spelled out, not -march=native: the same flags give the same binary on every machine.
ISA_FLAGS: dict[CpuIsa, tuple[str, ...]] = {
    "avx512": (
        "-mavx2",
        "-mfma",
        "-mf16c",
        "-mavx512f",
        "-mavx512bw",
        "-mavx512dq",
        "-mavx512vl",
        "-mprefer-vector-width=512",
    ),
    "avx2": ("-mavx2", "-mfma", "-mf16c"),
    "generic": (),
}


@functools.cache
def best_isa() -> CpuIsa:
    """The widest vectors that processor and operating system support."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return "generic"
    # torch has asked cpuid and the operating system already.
    match torch.backends.cpu.get_cpu_capability():
        case "AVX512":
            return "avx512"
        case "AVX2":
            return "avx2"
        case _:
            return "generic"
