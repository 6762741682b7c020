"""The compiler process: finding it, its failures, loading what it made."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from cpu_kernels import program_of, run, spec_of

from attnc.errors import CompilerError, NoCompilerError
from attnc.runtime import cache
from attnc.runtime.build import compile_library, find_compiler
from attnc.runtime.cpu import load_cpu_kernel
from attnc.testing.backends import available_backends


def test_cxx_may_have_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """And they tell one compiler from another."""
    plain = find_compiler()
    monkeypatch.setenv("CXX", f"{plain.command[0]} -DX=1")
    found = find_compiler()
    assert found.command[1:] == ("-DX=1",)
    assert found.identity != plain.identity


def test_no_compiler_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It says what was tried and what to do."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(NoCompilerError) as caught:
        find_compiler()
    assert str(caught.value) == (
        "no C++ compiler found (tried c++, g++, clang++). Install one, for example g++, or set "
        "CXX to its command."
    )


def test_the_compiler_s_message_is_shown(tmp_path: Path) -> None:
    """With the command, which can be run again."""
    source = tmp_path / "x.cpp"
    source.write_text("int main( {")
    with pytest.raises(CompilerError, match=r"failed with code 1[\s\S]*x\.cpp:1:12: error"):
        compile_library(find_compiler(), source, tmp_path / "x.so", ())


def test_a_compiler_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time limit."""
    program = tmp_path / "slow"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("CXX", str(program))
    with pytest.raises(CompilerError, match=r"did not finish in 0\.1 s"):
        compile_library(find_compiler(), tmp_path / "x.cpp", tmp_path / "x.so", (), 0.1)


def test_a_second_compiler_makes_a_second_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache holds both, and the first is found again."""
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path))
    spec = spec_of(program_of(lambda b, h, q_idx, kv_idx: q_idx == kv_idx, None))
    before = cache.n_builds()
    first = load_cpu_kernel(spec)
    monkeypatch.setenv("CXX", f"{find_compiler().command[0]} -DX=1")
    second = load_cpu_kernel(spec)
    monkeypatch.delenv("CXX")
    assert load_cpu_kernel(spec) is first
    assert second is not first
    assert cache.n_builds() - before == 2


def test_windows_of_all_sizes_share_a_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Constants are arguments; also one that is as large as an integer can be."""
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path))
    q = torch.randn(1, 1, 150, 8)
    before = cache.n_builds()
    for size in (2, 70, 2**31 - 1):
        program = program_of(lambda b, h, q_idx, kv_idx, s=size: abs(q_idx - kv_idx) < s, None)
        out = run(load_cpu_kernel(spec_of(program, head_dim=8)), program, q, q, q).out
        near = (torch.arange(150)[:, None] - torch.arange(150)).abs() < size
        expected = torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=near)
        torch.testing.assert_close(out, expected, atol=2e-5, rtol=2e-5)
    assert cache.n_builds() - before == 1


LOAD_FROM_NOEXEC = """
    import sys
    from pathlib import Path
    from attnc.errors import CacheNoExecError
    from attnc.runtime.build import compile_library, find_compiler, load_library
    from attnc.runtime.cache import DiskCache

    def build(folder):
        (folder / "x.cpp").write_text("int x;")
        compile_library(find_compiler(), folder / "x.cpp", folder / "x.so", ("-shared",))

    try:
        load_library(DiskCache(Path(sys.argv[1])).fetch("0" * 64, build), "x.so")
    except CacheNoExecError as error:
        print(error)
"""


def test_noexec_is_reported(tmp_path: Path) -> None:
    """A library cannot be loaded from a file system mounted noexec; the error says so."""
    # In a mount namespace of its own, which ends with the process.
    namespace = ["unshare", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o noexec,mode=700 tmpfs {tmp_path}"
    if os.geteuid() or subprocess.run([*namespace, mount], check=False).returncode:
        pytest.skip("may not mount file systems")
    python = shlex.join([sys.executable, "-c", textwrap.dedent(LOAD_FROM_NOEXEC), str(tmp_path)])
    command = [*namespace, f"{mount} && {python}"]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)
    assert done.stdout == (
        f"{tmp_path} is mounted noexec, so a compiled kernel cannot be loaded from it. Set "
        "ATTNC_CACHE_DIR to a folder on another file system.\n"
    )


@pytest.mark.parametrize(("configured", "found"), [("", True), ("no-such-compiler", False)])
def test_backends_are_those_that_a_call_would_find(
    configured: str, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty CXX stands for no choice; a wrong one is not passed over for another compiler."""
    monkeypatch.setenv("CXX", configured)
    assert ("cpu" in available_backends()) is found
