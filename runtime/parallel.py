"""The function that runs a kernel's loop on several threads: OpenMP's, or one of our own.

Generated code knows no OpenMP. It gets a pointer to ``GOMP_parallel`` of the library that torch
has loaded, so that both share one pool of threads. In a forked child that pool is gone and using
it would hang; there, and where torch has another OpenMP, threads are started for each call.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import threading
from importlib.resources import files
from pathlib import Path

from attnc.runtime import cache
from attnc.runtime.build import COMMON_FLAGS, compile_library, find_compiler, load_library
from attnc.runtime.isa import processor_text

_FORKED_WITHOUT_EXEC = 0x40  # PF_FORKNOEXEC, which Linux has among the flags of a process

_address: int | None = None
_is_forked = False
_lock = threading.Lock()


def _after_fork() -> None:
    global _address, _is_forked, _lock
    _address, _is_forked, _lock = None, True, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def parallel_for() -> int:
    """Address of ``void f(void (*fn)(void*), void* data, unsigned n_threads, unsigned flags)``."""
    global _address
    if _address is None:
        with _lock:
            if _address is None:
                gomp = None if _is_forked or _began_as_a_fork() else _gomp_parallel()
                _address = gomp or _thread_parallel()
    return _address


def _began_as_a_fork() -> bool:
    """Whether this process is a fork, though perhaps of one that had not imported this module."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return bool(int(fields.rpartition(")")[2].split()[6]) & _FORKED_WITHOUT_EXEC)


def _gomp_parallel() -> int | None:
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    for line in maps.splitlines():
        path = line.split(maxsplit=5)[-1]
        if "libgomp" in Path(path).name:
            try:
                return _address_of(ctypes.CDLL(path).GOMP_parallel)
            except (OSError, AttributeError):
                return None  # replaced on disk since it was loaded, or another OpenMP's
    return None


def _thread_parallel() -> int:
    compiler = find_compiler()
    flags = ("-O2", *COMMON_FLAGS, "-pthread")
    template = (files("attnc.codegen_templates") / "threads.cpp.jinja").read_text(encoding="utf-8")
    source = template.split("#}\n", 1)[1]
    machine = processor_text(compiler.command)
    key = "\0".join(("threads", source, machine, compiler.identity, *flags))
    digest = hashlib.sha256(key.encode()).hexdigest()

    def build(folder: Path) -> None:
        (folder / "threads.cpp").write_text(source, encoding="utf-8")
        compile_library(compiler, folder / "threads.cpp", folder / "threads.so", flags)

    library = cache.fetch_loaded(digest, build, lambda entry: load_library(entry, "threads.so"))
    return _address_of(library.attnc_parallel)


def _address_of(function: object) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]
    assert address is not None
    return address
