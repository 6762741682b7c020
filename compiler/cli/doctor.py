"""``attnc doctor``: what attnc needs from this machine, tested by using it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch

from attnc.cli.console import is_terminal
from attnc.errors import AttncError, CacheWarning

Level = Literal["ok", "warn", "fail"]
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``fix`` tells what to do where the level is not ok."""

    level: Level
    what: str
    found: str
    fix: str = ""


def run(calibrate: bool = False) -> int:
    """Prints every finding; 1 if anything fails, else 0.

    ``calibrate``: measures the rates that expected times come from, anew.
    """
    tests = (*_TESTS, _rates) if calibrate else _TESTS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)  # the line about the cache says it
        findings = [_tested(test) for test in tests]
    for finding in findings:
        _print(finding)
    return int(any(finding.level == "fail" for finding in findings))


def _tested(test: Callable[[], Finding]) -> Finding:
    try:
        return test()
    except (AttncError, OSError, ImportError, RuntimeError) as error:
        what = test.__name__.strip("_").replace("_", " ").replace("cpu", "CPU")
        # The first sentence is what is wrong, the others say what to do.
        found, _, fix = " ".join(str(error).split()).partition(". ")
        return Finding("fail", what, found or type(error).__name__, fix)


def _print(finding: Finding) -> None:
    fix = f"\n{'':23}{finding.fix}" if finding.fix else ""
    text = f"{finding.what:16}{finding.found}{fix}"
    if not is_terminal():
        print(f"{finding.level:6} {text}")
        return
    from rich.console import Console
    from rich.text import Text

    Console(soft_wrap=True).print(
        Text(f"{finding.level:6} ", _COLOURS[finding.level]), Text(text), sep=""
    )


def _versions() -> Finding:
    names = ("attnc", "torch", "numpy", "sympy", "jinja2")
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return Finding("ok", "versions", f"Python {platform.python_version()}, {found}")


def _processor() -> Finding:
    from attnc.runtime.isa import best_isa

    isa = best_isa()
    n_threads = torch.get_num_threads()
    if isa == "generic" and platform.machine().lower() in ("x86_64", "amd64"):
        fix = "This processor has no AVX2; kernels will be slow."
        return Finding("warn", "processor", f"generic, {n_threads} threads", fix)
    return Finding("ok", "processor", f"{isa}, {n_threads} threads")


def _compiler() -> Finding:
    from attnc.errors import NoCompilerError
    from attnc.runtime.build import COMMON_FLAGS, compile_library, find_compiler
    from attnc.runtime.isa import ISA_FLAGS, best_isa

    try:
        compiler = find_compiler()
    except NoCompilerError as error:
        fix = "Install one (`apt install g++`), or set CXX. Until then CPU kernels run in torch."
        return Finding("fail", "compiler", str(error).split(". ")[0], fix)
    with TemporaryDirectory() as name:
        source = Path(name) / "probe.cpp"
        source.write_text('#include <cmath>\nextern "C" double f(double x) { return exp(x); }\n')
        flags = (*COMMON_FLAGS, "-O3", *ISA_FLAGS[best_isa()])
        compile_library(compiler, source, Path(name) / "probe.so", flags)
    return Finding("ok", "compiler", f"{' '.join(compiler.command)} works")


def _rates() -> Finding:
    from attnc.cost import rates_of
    from attnc.runtime.isa import best_isa

    found = []
    for dtype in ("float32", "bfloat16"):
        rates = rates_of(best_isa(), dtype, backward=False, measure_anew=True)
        found.append(f"{rates.gflops:.0f} GFLOP/s in {dtype}")
    per_second = 1e-9 / rates.seconds.moved
    return Finding("ok", "rates", f"per thread {', '.join(found)}, {per_second:.1f} GB/s read")


def _libgomp() -> Finding:
    maps = Path("/proc/self/maps")
    if maps.exists() and "libgomp" in maps.read_text():
        return Finding("ok", "libgomp", "shared with torch")
    fix = "Kernels start threads of their own instead, which costs some microseconds per call."
    return Finding("warn", "libgomp", "torch has not loaded it", fix)


def _cpu_kernel() -> Finding:
    error = _largest_error("cpu", torch.device("cpu"), torch.float32)
    if error < 1e-5:
        return Finding("ok", "CPU kernel", f"built and right (largest error {error:.0e})")
    return Finding("fail", "CPU kernel", f"wrong by {error:.1e}", "Please report this.")


def _cache() -> Finding:
    from attnc.runtime.cache import disk_cache

    cache = disk_cache()
    info = cache.info()
    found = f"{info.root}, {info.n_entries} kernels, {info.size / 2**20:.1f} MiB"
    if not os.access(info.root, os.W_OK | os.X_OK):
        fix = "It cannot be written to: set ATTNC_CACHE_DIR to a folder of yours."
        return Finding("warn", "cache", found, fix)
    return Finding("ok", "cache", found)


def _triton() -> Finding:
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        fix = "Only GPUs need it: `pip install triton` on Linux."
        return Finding("warn", "triton", "not installed", fix)
    from attnc.stages import Inspection

    def causal(b: object, h: object, q_idx: int, kv_idx: int) -> bool:
        return q_idx >= kv_idx

    source = Inspection.of(causal, target="sm_90").triton()
    compile(source, "<kernel>", "exec")
    return Finding("ok", "triton", f"{version}, generates kernels")


def _gpu() -> Finding:
    if not torch.cuda.is_available():
        fix = (
            "None is needed: kernels for GPUs can be inspected, and compiled for sm_80 and others."
        )
        return Finding("warn", "GPU", "none that this torch can use", fix)
    name = torch.cuda.get_device_name()
    error = _largest_error("triton", torch.device("cuda"), torch.float16)
    if error < 5e-3:
        return Finding("ok", "GPU", f"{name}, kernel launched and right (error {error:.0e})")
    return Finding("fail", "GPU", f"{name}: wrong by {error:.1e}", "Please report this.")


def _largest_error(backend: str, device: torch.device, dtype: torch.dtype) -> float:
    """Difference of a causal kernel from the float64 reference, on random input."""
    from attnc.attend import attention
    from attnc.runtime.reference import reference_attention

    def causal(b: object, h: object, q_idx: int, kv_idx: int) -> bool:
        return q_idx >= kv_idx

    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 100, 32, generator=generator).to(device, dtype) for _ in range(3))
    out = attention(q, k, v, mask=causal, backend=backend, strict=True)
    assert isinstance(out, torch.Tensor)
    expected = reference_attention(q, k, v, mask=causal).out
    return float((out.double() - expected).abs().max())


_TESTS: tuple[Callable[[], Finding], ...] = (
    _versions,
    _processor,
    _compiler,
    _libgomp,
    _cache,
    _cpu_kernel,
    _triton,
    _gpu,
)
