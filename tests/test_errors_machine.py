"""Cache and compilers. See ``error_texts``."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from cpu_kernels import program_of, spec_of
from error_texts import attend, causal, command, in_new_process, tells

from attnc import errors
from attnc.runtime import cpu, isa
from attnc.runtime.build import load_library
from attnc.runtime.cache import DiskCache
from attnc.runtime.disassembly import disassembled
from attnc.runtime.entries import Entry
from attnc.runtime.triton_compile import compile_offline
from attnc.target import GPU_TARGETS, GpuTarget
from attnc.tiles import tiles_for


@tells(
    errors.CacheWarning,
    "TMP/file/cache cannot be written to (Not a directory): kernels of this process are kept in "
    "ELSEWHERE and lost at its end. Set ATTNC_CACHE_DIR to a folder of yours.",
)
def test_a_folder_that_cannot_be_made_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "file" / "cache"))
    attend(mask=lambda b, h, q_idx, kv_idx: q_idx * 7 == kv_idx * 11)


@tells(
    errors.CacheDirectoryError,
    "TMP cannot hold compiled kernels: it can be written by others (mode 777), and code from it "
    "would be run. Run `chmod go-w TMP`, or set ATTNC_CACHE_DIR to another folder.",
)
def test_a_folder_open_to_others_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path))
    command("cache", "info")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@tells(
    errors.CacheDirectoryError,
    "TMP cannot hold compiled kernels: it belongs to user number 12345, not to you (0), and code "
    "from it would be run. Set ATTNC_CACHE_DIR to a folder of yours.",
)
def test_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(tmp_path, 12345, -1)
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path))
    command("cache", "info")


@tells(
    errors.CacheNoExecError,
    "TMP is mounted noexec, so a compiled kernel cannot be loaded from it. Set ATTNC_CACHE_DIR "
    "to a folder on another file system.",
)
def test_a_folder_mounted_noexec_holds_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In a mount namespace of its own, which ends with the process.
    namespace = ["unshare", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o noexec,mode=700 tmpfs {tmp_path}"
    if os.geteuid() or subprocess.run([*namespace, mount], check=False).returncode:
        pytest.skip("may not mount file systems")
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path))
    in_new_process(
        """
        import attnc, torch
        attnc.attention(*[torch.ones(1, 1, 4, 8)] * 3)
        """,
        wrapped=lambda line: [*namespace, f"{mount} && {line}"],
    )


@tells(
    errors.CacheFullError,
    "There is no room for a compiled kernel: TMP/cache cannot be written to (No space left on "
    "device), and no temporary folder either. Free some space, or set ATTNC_CACHE_DIR to a folder "
    "with room.",
)
def test_no_disk_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fills_the_disk(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    DiskCache(tmp_path / "cache").fetch("0" * 64, fills_the_disk)


@tells(
    errors.KernelLoadError,
    "TMP/kernel.so was just built, but cannot be loaded: TMP/kernel.so: file too short. Set CXX "
    "to a compiler for this machine and its C library.",
)
def test_a_library_for_another_machine_is_reported(tmp_path: Path) -> None:
    (tmp_path / "kernel.so").touch()
    load_library(Entry(tmp_path, ("kernel.so",)), "kernel.so")


@tells(
    errors.InstructionSetError,
    "A kernel with amx instructions cannot run on this machine, which has avx2, generic. Ask for "
    "one of these.",
)
def test_no_kernel_of_another_processor_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isa, "best_isa", lambda: "avx2")
    cpu.load_cpu_kernels([spec_of(program_of(causal.fn, None), isa="amx")])


@tells(
    errors.NoCompilerError,
    "no C++ compiler found (tried c++, g++, clang++). Install one, for example g++, or set CXX "
    "to its command.",
)
def test_strict_needs_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    attend(mask=lambda b, h, q_idx, kv_idx: q_idx * 3 == kv_idx * 5, strict=True)


@tells(
    errors.NoCompilerWarning,
    "attention runs tile by tile in torch operations, many times slower: no C++ compiler found "
    "(tried CXX=no-such-compiler). Install one, for example g++, or set CXX to its command.",
)
def test_without_a_compiler_it_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(cpu, "_warned", False)
    attend(mask=lambda b, h, q_idx, kv_idx: q_idx * 3 == kv_idx * 5)


@tells(
    errors.CompilerError,
    "the C++ compiler failed with code 4. Run `attnc doctor`, or set CXX to another one; its "
    "command and output were:\n"
    "TMP/c++ OPTIONS\n"
    "out of memory",
)
def test_the_compiler_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'out of memory' >&2\nexit 4\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "cache"))
    attend(mask=lambda b, h, q_idx, kv_idx: q_idx * 5 == kv_idx * 7)


@tells(
    errors.ToolMissingError,
    "objdump, which reads machine code of CPUs, is missing: it is not on the PATH. Install it, in "
    "Debian the package binutils.",
)
def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    disassembled(tmp_path / "kernel.so")


@tells(
    errors.OfflineCompileError,
    "Triton cannot compile the kernel for gfx1. Its output ends with:\n"
    "Traceback (most recent call last):\n"
    "  ...\n"
    "ValueError: invalid literal for int() with base 10: ''",
)
def test_triton_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path))
    spec = spec_of(program_of(causal.fn, None))
    compile_offline(spec, GpuTarget("hip", "gfx1", 64))


@tells(
    errors.HeadTooWideError,
    "Heads of width 2000 in float32 do not fit into gfx942: the smallest tiles take 256 KiB of "
    "its 64 KiB of shared memory. Use narrower heads or a smaller dtype.",
)
def test_wide_heads() -> None:
    tiles_for(GPU_TARGETS["gfx942"], "float32", 2000, 64, False)


@tells(
    errors.InterpreterNotActiveError,
    "A Triton kernel was asked for on CPU tensors, but Triton was imported without its "
    "interpreter. Set TRITON_INTERPRET=1 in the environment before Python starts.",
)
def test_the_interpreter_is_switched_on_before_python_starts() -> None:
    in_new_process(
        """
        import os, torch, triton, attnc
        os.environ["TRITON_INTERPRET"] = "1"
        attnc.attention(*[torch.ones(1, 1, 4, 8)] * 3, backend="triton")
        """
    )
