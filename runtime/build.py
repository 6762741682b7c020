"""From C++ source to a shared library: finding a compiler, running it, loading the result."""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from attnc.errors import CacheNoExecError, CompilerError, KernelLoadError, NoCompilerError
from attnc.runtime.entries import Entry
from attnc.runtime.process import run_process

# Wrapping integers and no contraction of a * b + c: a kernel must compute a mask exactly as the
# analysis has. -ffast-math would break NaN and infinities.
COMMON_FLAGS = (
    "-std=c++17",
    "-shared",
    "-fPIC",
    "-fwrapv",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
)
TIME_LIMIT = 120.0  # seconds

_CANDIDATES = (["c++"], ["g++"], ["clang++"])


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: its command, and what tells it from other compilers and versions."""

    command: tuple[str, ...]
    identity: str


def find_compiler() -> Compiler:
    """``$CXX`` if set, else the first of c++, g++, clang++ on the PATH.

    Raises:
        NoCompilerError: There is none.
    """
    return _compiler_named(os.environ.get("CXX", ""), os.environ.get("PATH", ""))


@functools.lru_cache(maxsize=16)
def _compiler_named(configured: str, path: str) -> Compiler:
    try:
        configured_words = shlex.split(configured)
    except ValueError as error:
        raise NoCompilerError(tried=f"CXX={configured}: {error}") from error
    for program, *arguments in [configured_words] if configured_words else _CANDIDATES:
        found = shutil.which(program, path=path)
        if found is None:
            continue
        # The file says which version it is, without the milliseconds that running it takes.
        real = Path(found).resolve()
        status = real.stat()
        identity = f"{real} {status.st_size} {status.st_mtime_ns} {arguments}"
        return Compiler((str(Path(found).absolute()), *arguments), identity)
    candidates = ", ".join(program for (program,) in _CANDIDATES)
    tried = f"CXX={configured}" if configured_words else candidates
    raise NoCompilerError(tried=tried)


def compile_library(
    compiler: Compiler,
    source: Path,
    library: Path,
    flags: tuple[str, ...],
    time_limit: float = TIME_LIMIT,
) -> None:
    """Compiles ``source`` to the shared library ``library``.

    Raises:
        CompilerError: The compiler failed, or took longer than ``time_limit`` seconds.
    """
    command = [*compiler.command, *flags, str(source), "-o", str(library)]
    shown = shlex.join(command)
    try:
        done = run_process(
            command, folder=library.parent, time_limit=time_limit, environment=os.environ
        )
    except subprocess.TimeoutExpired:
        problem = f"did not finish in {time_limit:g} s"
        raise CompilerError(command=shown, problem=problem, output="") from None
    except OSError as error:
        problem = f"could not be started ({error})"
        raise CompilerError(command=shown, problem=problem, output="") from None
    if done.code:
        problem = f"failed with code {done.code}"
        output = "\n".join(done.errors.splitlines()[:20])
        raise CompilerError(command=shown, problem=problem, output=output)


def load_library(entry: Entry, name: str) -> ctypes.CDLL:
    """The library ``name`` of a cache entry, loaded.

    Raises:
        CacheNoExecError: The cache lies on a file system that forbids running code.
        KernelLoadError: This machine cannot load it.
    """
    path = entry.folder / name
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        if _is_noexec(entry.folder):
            raise CacheNoExecError(root=entry.folder.parent) from error
        raise KernelLoadError(library=path, reason=error) from error


def _is_noexec(folder: Path) -> bool:
    flags = os.statvfs(folder).f_flag
    return bool(flags & getattr(os, "ST_NOEXEC", 0))
