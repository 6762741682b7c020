"""Vector instructions of this machine, and the compiler flags that allow them."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import torch

from attnc.target import CpuIsa

# Spelled out, not -march=native: the same flags give the same binary on every machine.
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (
    *_AVX2,
    "-mavx512f",
    "-mavx512bw",
    "-mavx512dq",
    "-mavx512vl",
    "-mprefer-vector-width=512",
)
_CPUINFO = Path("/proc/cpuinfo")
# Of its lines; what else is there changes from moment to moment.
_IDENTIFYING = frozenset(
    {
        "vendor_id",
        "cpu family",
        "model",
        "model name",
        "flags",
        "features",
        "cpu implementer",
        "cpu part",
    }
)

ISA_FLAGS: dict[CpuIsa, tuple[str, ...]] = {
    "amx": (*_AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"),
    "avx512_bf16": (*_AVX512, "-mavx512bf16"),
    "avx512": _AVX512,
    "avx2": _AVX2,
    "generic": (),
}


def runnable_isas() -> tuple[CpuIsa, ...]:
    """Every set of instructions that this machine can run, the widest vectors first."""
    isas = tuple(ISA_FLAGS)
    return isas[isas.index(best_isa()) :]


@functools.cache
def best_isa() -> CpuIsa:
    """The widest vectors that processor and operating system support."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return "generic"
    # torch has asked cpuid and the operating system already.
    match torch.backends.cpu.get_cpu_capability():
        case "AVX512":
            if not torch.cpu._is_avx512_bf16_supported():
                return "avx512"
            # The system gives a process its tiles only if it asks for them.
            has_tiles = torch.cpu._is_amx_tile_supported() and torch.cpu._init_amx()
            return "amx" if has_tiles else "avx512_bf16"
        case "AVX2":
            return "avx2"
        case _:
            return "generic"


@functools.cache
def processor_name() -> str:
    """The name that the processor gives itself, as far as the system tells."""
    names = (line.split(":", 1)[1].strip() for line in _told() if line.startswith("model name"))
    return next(names, platform.processor())


def processor_text(command: Sequence[str]) -> str:
    """What a binary of the compiler ``command`` depends on in this machine besides its flags.

    That is the architecture; for ``-march=native`` and the like, every feature of the processor:
    a folder that several machines share would else give one machine the instructions of another.
    """
    machine = platform.machine()
    return f"{machine} {_features()}" if any("native" in word for word in command) else machine


@functools.cache
def _features() -> str:
    lines = _told()
    if not lines:
        return platform.processor()
    known = sorted(line for line in lines if line.split(":")[0].strip().lower() in _IDENTIFYING)
    return hashlib.sha256("\n".join(known).encode()).hexdigest()


def _told() -> list[str]:
    """What Linux tells of the first processor, by lines; nothing elsewhere."""
    try:
        with _CPUINFO.open(encoding="utf-8", errors="replace") as file:
            # Up to the empty line: the system takes a while to tell of hundreds of processors.
            return [line.rstrip() for line in takewhile(str.strip, file)]
    except OSError:
        return []
