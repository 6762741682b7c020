"""What a build promises when compilers fail, hang or lie, and when the process that waits is killed."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest
from cpu_kernels import program_of, spec_of
from processes import (
    becomes,
    can_mount,
    end,
    hanging_compiler,
    in_mount,
    is_alive,
    output_of,
    quick_compiler,
    script,
    start,
)

from attnc.errors import CompilerError, NoCompilerError, OfflineCompileError
from attnc.runtime import cache, isa, triton_compile
from attnc.runtime.build import compile_library, find_compiler, load_library
from attnc.runtime.entries import MANIFEST
from attnc.runtime.triton import load_module
from attnc.runtime.triton_build import SOURCE, source_entry
from attnc.target import GPU_TARGETS

BUILD = """
import sys
from pathlib import Path
from attnc.runtime.build import compile_library, find_compiler, load_library
from attnc.runtime.cache import DiskCache

def build(folder):
    (folder / "x.cpp").write_text("extern \\"C\\" int answer() { return 42; }")
    compile_library(find_compiler(), folder / "x.cpp", folder / "x.so", ("-shared", "-fPIC"))

entry = DiskCache(Path(sys.argv[1])).fetch("0" * 64, build)
print(load_library(entry, "x.so").answer())
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_compiler_outlives_who_waits_for_it(tmp_path: Path, how: signal.Signals) -> None:
    """Ctrl-C, kill and kill -9 in a build: no process is left, no lock, and with Ctrl-C no file."""
    compiler, numbers = hanging_compiler(tmp_path)
    root = tmp_path / "cache"
    with start(BUILD, root, environment={"CXX": compiler}) as builder:
        assert becomes(numbers.exists)
        compilers = [int(number) for number in numbers.read_text().split()]
        assert all(map(is_alive, compilers))
        end(builder, how)
    assert becomes(lambda: not any(map(is_alive, compilers)), 3.0)
    if how is signal.SIGINT:
        assert [file.name for file in root.iterdir()] == [".locks"]

    assert output_of(BUILD, root) == "42\n"
    assert sorted(file.name for file in root.iterdir()) == [".locks", "0" * 64]


def test_a_compiler_that_hangs_ends_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the time limit."""
    compiler, numbers = hanging_compiler(tmp_path)
    monkeypatch.setenv("CXX", compiler)
    with pytest.raises(CompilerError, match="did not finish in 1 s"):
        compile_library(find_compiler(), tmp_path / "x.cpp", tmp_path / "x.so", (), 1.0)
    compilers = [int(number) for number in numbers.read_text().split()]
    assert becomes(lambda: not any(map(is_alive, compilers)), 3.0)


def test_triton_s_compiler_that_hangs_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a time limit too, and leaves nothing in the cache."""
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(triton_compile, "TIME_LIMIT", 0.5)
    monkeypatch.setattr(triton_compile.sys, "executable", script(tmp_path / "python", "sleep 300"))
    spec = spec_of(program_of(lambda b, h, q_idx, kv_idx: q_idx >= kv_idx, None))
    with pytest.raises(OfflineCompileError, match=r"did not finish in 0\.5 s"):
        triton_compile.compile_offline(spec, GPU_TARGETS["sm_80"])
    assert cache.disk_cache().info().n_entries == 0


def test_what_a_compiler_says_cannot_move_the_cursor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor break on bytes that are no UTF-8: escapes are shown as such."""
    says = script(tmp_path / "says", r"printf 'caf\351 \033[2J\007 \342\200\256 end' >&2; exit 1")
    monkeypatch.setenv("CXX", says)
    with pytest.raises(CompilerError) as caught:
        compile_library(find_compiler(), tmp_path / "x.cpp", tmp_path / "x.so", ())
    assert str(caught.value).endswith("\ncaf\ufffd \\x1b[2J\\x07 \\u202e end")


def test_a_compiler_that_crashes_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the code that shells give for the signal."""
    monkeypatch.setenv("CXX", script(tmp_path / "crashes", "kill -s SEGV $$"))
    with pytest.raises(CompilerError, match="failed with code 139"):
        compile_library(find_compiler(), tmp_path / "x.cpp", tmp_path / "x.so", ())


@pytest.mark.parametrize("configured", ["g++ 'unfinished", "/dev/null", "no-such-compiler -O3"])
def test_a_compiler_that_is_none_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, configured: str
) -> None:
    """Whatever CXX holds."""
    monkeypatch.setenv("CXX", configured)
    with pytest.raises(NoCompilerError, match=re.escape(f"tried CXX={configured}")):
        find_compiler()


def test_a_blank_cxx_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is not set."""
    monkeypatch.delenv("CXX", raising=False)
    plain = find_compiler()
    monkeypatch.setenv("CXX", "  ")
    assert find_compiler() == plain


@pytest.mark.parametrize("name", ["with space", "ünï→", "new\nline", "'\"\\", "x" * 250])
def test_kernels_are_built_and_loaded_in_any_path(tmp_path: Path, name: str) -> None:
    """The compiler and the loader take it as it is; TMPDIR does not matter to them."""
    environment = {"TMPDIR": "/nonexistent", "LC_ALL": "C"}
    assert output_of(BUILD, tmp_path / name, environment=environment) == "42\n"


@pytest.mark.skipif(not can_mount(), reason="may not mount file systems")
def test_a_disk_that_fills_while_the_compiler_runs_moves_the_cache(tmp_path: Path) -> None:
    """The compiler's own failure is not what is told."""
    printed = in_mount(tmp_path, "size=8k", f"import warnings\n{BUILD}", tmp_path)
    assert printed == "42\n"


def test_a_library_that_this_machine_cannot_load_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is whole, but was made where the C library, or the processor, is another."""
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path))

    def build_for_another(folder: Path) -> None:
        (folder / "x.so").write_bytes(b"\x7fELF")

    cache.fetch("0" * 64, build_for_another)
    n_builds = cache.n_builds()

    def build(folder: Path) -> None:
        (folder / "x.cpp").write_text('extern "C" int answer() { return 42; }')
        compile_library(find_compiler(), folder / "x.cpp", folder / "x.so", ("-shared", "-fPIC"))

    library = cache.fetch_loaded("0" * 64, build, lambda entry: load_library(entry, "x.so"))

    assert library.answer() == 42
    assert cache.n_builds() == n_builds + 1


def test_native_code_is_for_one_kind_of_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that several machines share keeps a kernel for each."""
    plain, native = ("g++",), ("g++", "-march=native")
    here = isa.processor_text(plain), isa.processor_text(native)
    monkeypatch.setattr(isa, "_features", lambda: "another")
    assert isa.processor_text(plain) == here[0]
    assert isa.processor_text(native) != here[1]


CALLS = """
import os, sys, threading
import torch, attnc

torch.set_num_threads(1)
q = torch.randn(1, 2, 100, 16, generator=torch.Generator().manual_seed(0))
def attend():
    return attnc.attention(q, q, q, mask=lambda b, h, q_idx, kv_idx: q_idx % 7 >= kv_idx % 5)
barrier = threading.Barrier(32)
results, errors = [None] * 32, []
def work(number):
    barrier.wait()
    try:
        results[number] = attend()
    except BaseException as error:
        errors.append(error)
threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not errors, errors
assert all(torch.equal(result, results[0]) for result in results)
dense = (torch.arange(100)[:, None] % 7) >= (torch.arange(100) % 5)
expected = torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=dense)
torch.testing.assert_close(results[0], expected, atol=1e-5, rtol=1e-5)
"""


@pytest.mark.parametrize("backend", ["cpu", pytest.param("triton", marks=pytest.mark.slow)])
def test_thirty_two_threads_build_once(tmp_path: Path, backend: str) -> None:
    """At once, in their first call; the compiler is run once, and all get the right answer."""
    log = tmp_path / "log"
    environment = {
        "CXX": quick_compiler(tmp_path, f"echo run >> '{log}'"),
        "ATTNC_CACHE_DIR": str(tmp_path / "cache"),
        "ATTNC_BACKEND": backend,
        "TRITON_INTERPRET": "1" if backend == "triton" else None,
    }
    ending = "from attnc.runtime import cache; print(cache.n_builds())"
    assert output_of(CALLS + ending, environment=environment) == "1\n"
    assert (log.read_text() if log.exists() else "") == ("run\n" if backend == "cpu" else "")


FORKS = """
import multiprocessing, os, signal, sys
import torch, attnc

signal.alarm(50)  # a hang ends the test
torch.set_num_threads(4)
q = torch.randn(1, 4, 512, 32, generator=torch.Generator().manual_seed(0))
expected = torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
def attend(number=0):
    out = attnc.attention(q, q, q, mask=lambda b, h, q_idx, kv_idx: q_idx >= kv_idx)
    # In NumPy: after a fork, torch hangs in its own operations on several threads.
    return abs(out.numpy() - expected.numpy()).max() < 1e-5
def forked():
    child = os.fork()
    if child == 0:
        signal.alarm(50)
        ok = False
        try:
            ok = attend() and attend()
        finally:
            os._exit(0 if ok else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

order = sys.argv[1]
if order == "child first":
    assert forked()
assert attend()
assert forked() and forked()
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(attend, range(4)) == [True] * 4
assert attend()
print("right")
"""


@pytest.mark.parametrize("order", ["child first", "parent first"])
@pytest.mark.slow
def test_forks_compute_before_and_after_the_first_use(tmp_path: Path, order: str) -> None:
    """os.fork and multiprocessing, with threads: the right answer and no hang."""
    environment = {"ATTNC_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": None}
    assert output_of(FORKS, order, environment=environment) == "right\n"


@pytest.mark.parametrize(
    "setting", ["OMP_THREAD_LIMIT=1", "OMP_THREAD_LIMIT=2", "OMP_DYNAMIC=true"]
)
@pytest.mark.slow
def test_openmp_may_give_fewer_threads(setting: str) -> None:
    """Than are asked for: the work is shared among those that come."""
    name, _, value = setting.partition("=")
    program = FORKS.partition("order =")[0] + "assert attend(); print('right')"
    assert output_of(program, environment={"OMP_NUM_THREADS": None, name: value}) == "right\n"


NO_OPENMP = """
from pathlib import Path
from attnc.runtime import parallel
parallel._gomp_parallel = lambda: None  # as where torch was built with another OpenMP
"""


@pytest.mark.slow
def test_without_openmp_there_are_threads() -> None:
    """Of the standard library."""
    program = FORKS.partition("order =")[0] + NO_OPENMP + "assert attend(); print('right')"
    assert output_of(program, environment={"OMP_NUM_THREADS": None}) == "right\n"


MANY = """
import os, sys
import torch
from cpu_kernels import program_of, spec_of
from attnc.runtime import cache
from attnc.runtime.triton_build import source_entry
from attnc.runtime.triton_compile import compile_offline
from attnc.target import GPU_TARGETS

program = program_of(lambda b, h, q_idx, kv_idx: q_idx % 3 >= kv_idx, None)
spec = spec_of(program, dtype=torch.bfloat16, head_dim=64)
for child in range(16):
    if os.fork() == 0:
        binary = compile_offline(spec, GPU_TARGETS["sm_80"]).binary
        assert binary.read_bytes()[:4] == b"\\x7fELF"
        os._exit(cache.n_builds())
print(sum(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(16)))
"""


@pytest.mark.slow
def test_sixteen_processes_compile_a_triton_kernel_once(tmp_path: Path) -> None:
    """Into one binary for a GPU that is not here."""
    environment = {
        "ATTNC_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parent),
        "PYTHONDONTWRITEBYTECODE": None,
    }
    assert output_of(MANY, environment=environment) == "1\n"


DAMAGED = """
import os, random, sys
from pathlib import Path
import torch, attnc
from attnc.runtime import cache

root = Path(sys.argv[1])
torch.set_num_threads(1)
q = torch.randn(1, 2, 40, 16, generator=torch.Generator().manual_seed(0))
expected = torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
draws = random.Random(0)

def attend():
    child = os.fork()  # which has loaded nothing yet
    if child == 0:
        out = attnc.attention(q, q, q, mask=lambda b, h, q_idx, kv_idx: q_idx >= kv_idx)
        os._exit(cache.n_builds() if torch.allclose(out, expected, atol=1e-5) else 99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

assert attend() == 1 and attend() == 0
(entry,) = (f for f in root.iterdir() if len(f.name) == 64)
for file in sorted(f.name for f in entry.iterdir()) * 2:
    content = bytearray((entry / file).read_bytes())
    content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
    (entry / file).write_bytes(content)
    assert attend() in (0, 1), file  # 0: white space of the manifest
    assert attend() == 0, file
print("right")
"""


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.slow
def test_bits_flipped_in_a_kernel_are_repaired(tmp_path: Path, backend: str) -> None:
    """In its source, its library, its plan and its manifest: the answer is right each time."""
    environment = {
        "ATTNC_CACHE_DIR": str(tmp_path / "cache"),
        "ATTNC_BACKEND": backend,
        "TRITON_INTERPRET": "1" if backend == "triton" else None,
        "CXX": quick_compiler(tmp_path),
    }
    assert output_of(DAMAGED, tmp_path / "cache", environment=environment) == "right\n"


def test_a_triton_kernel_leaves_no_bytecode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python would load it another time, though no checksum covers it."""
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    program = program_of(lambda b, h, q_idx, kv_idx: q_idx % 5 >= kv_idx, None)
    entry = source_entry(spec_of(program))
    load_module(entry.folder / SOURCE, "0" * 64)
    assert sorted(f.name for f in entry.folder.iterdir()) == sorted([*entry.names, MANIFEST])
