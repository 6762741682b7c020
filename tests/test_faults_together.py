"""Forks, threads, signals, kills and versions that meet in one cache. See ``docs/faults.md``."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import (
    becomes,
    is_alive,
    output_of,
    program_with_cache,
    quick_compiler,
    start,
)

import attnc
from attnc import codegen_templates, runtime
from attnc.ir import Const, DType
from attnc.runtime.build import find_compiler
from attnc.runtime.cache import DiskCache
from attnc.runtime.process import run_process

DIGEST = "a" * 64


def write_a(folder: Path) -> None:
    (folder / "source").write_text("a")


def test_forks_wait_for_what_they_would_break() -> None:
    """Until the other thread is through, or waits itself; who forks inside does not wait."""
    program = """
        import os, signal, threading, time
        from attnc.runtime.forks import forks_pass, forks_wait
        signal.alarm(30)

        def forked(value):
            child = os.fork()
            if child == 0:
                os._exit(value())
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        is_through, begun, may_end = [], threading.Event(), threading.Event()
        def prepares(part):
            with forks_wait(), part():
                begun.set()
                may_end.wait(0.5)
                is_through.append(1)
        def meanwhile(part):
            is_through.clear(), begun.clear(), may_end.clear()
            thread = threading.Thread(target=prepares, args=(part,))
            thread.start()
            begun.wait()
            seen = forked(lambda: len(is_through))
            may_end.set()
            thread.join()
            return seen
        seen = [meanwhile(forks_wait), meanwhile(forks_pass)]
        with forks_wait():
            seen.append(forked(lambda: 7))
        print(seen)
    """
    assert output_of(program) == "[1, 0, 7]\n"


FORKED_IN_A_CALL = """
import os, signal, sys, threading, time
import torch, attnc

signal.alarm(100)
torch.set_num_threads(1)
q = torch.ones(1, 1, 30, 8)
def call(n):
    out = attnc.attention(q, q, q, mask=lambda b, h, q_idx, kv_idx: (q_idx - kv_idx) % n != 1)
    assert (out == 1).all()
for seconds in (0.0, 0.1, 0.4, 1.5):
    child = os.fork()  # which has imported nothing more
    if child == 0:
        thread = threading.Thread(target=call, args=(5,))
        thread.start()
        time.sleep(seconds)
        inner = os.fork()
        if inner == 0:
            signal.alarm(40)  # a hang ends it
            call(7)
            os._exit(0)
        thread.join()
        os._exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]) != 0)
    assert os.waitpid(child, 0)[1] == 0, seconds
print("right")
"""


@pytest.mark.slow
def test_a_fork_while_another_thread_makes_its_first_call(tmp_path: Path) -> None:
    """The child is not left with half of an import, or with locks of a thread that it has not."""
    environment = {"ATTNC_CACHE_DIR": str(tmp_path / "c"), "CXX": quick_compiler(tmp_path)}
    with start(FORKED_IN_A_CALL, environment=environment) as process:
        printed, errors = process.communicate(timeout=110)
    assert printed == "right\n", errors


def test_a_child_does_not_keep_its_parent_s_locks(tmp_path: Path) -> None:
    """Nor the compiler, nor the unfinished entry, of a parent that is killed while it builds."""
    program = """
        import threading, time
        from attnc.runtime.process import run_process
        def build(folder):
            run_process(["/bin/sh", "-c", f"echo $$ > '{root}/number'; sleep 300"],
                        folder=folder, time_limit=200, environment=os.environ)
        thread = threading.Thread(target=lambda: DiskCache(root).fetch(digest("a"), build))
        thread.start()
        while not ((root / "number").exists() and (root / "number").read_text()):
            time.sleep(0.01)
        child = os.fork()
        if child == 0:
            os.close(1), os.close(2)
            time.sleep(20)
            os._exit(0)
        print(child, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    with start(program_with_cache(program), tmp_path) as parent:
        child = int(parent.communicate(timeout=30)[0])
    compiler = int((tmp_path / "number").read_text())
    try:
        after = """
            import time
            start = time.monotonic()
            print(content(DiskCache(root).fetch(digest("a"), writes("a"))), time.monotonic() - start < 10)
        """
        assert output_of(program_with_cache(after), tmp_path) == "a True\n"
        assert not list(tmp_path.glob(".building-*"))
        assert becomes(lambda: not is_alive(compiler), 3.0)
    finally:
        os.kill(child, signal.SIGKILL)


KILLER = """
import os, random, signal, sys, time, warnings
from pathlib import Path
import torch, attnc
import attnc.attend, attnc.runtime.cpu, attnc.render.cpp, sympy  # else most kills hit an import

root, n_rounds = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
q = torch.randn(1, 1, 30, 8, generator=torch.Generator().manual_seed(0))
places = torch.arange(30)
draws = random.Random(0)

def is_right(n):
    out = attnc.attention(q, q, q, mask=lambda b, h, q_idx, kv_idx: (q_idx - kv_idx) % n != 1)
    mask = (places[:, None] - places) % n != 1
    expected = torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)
    return torch.allclose(out, expected, atol=1e-5)

def started(n):
    child = os.fork()
    if child == 0:
        warnings.simplefilter("error")
        ok = False
        try:
            ok = is_right(n)
        finally:
            os._exit(0 if ok else 1)
    return child

def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

begin = time.monotonic()
assert ended(started(1000)) == 0
whole = time.monotonic() - begin
n_killed = 0
for number in range(n_rounds):
    children = [started(3 + number) for _ in range(1 + number % 3)]
    for child in children:
        time.sleep(draws.random() * whole / len(children))
        os.kill(child, signal.SIGKILL)
        n_killed += ended(child) != 0
    assert ended(started(3 + number)) == 0, number
    left = [f.name for f in root.iterdir() if f.name.startswith((".building", ".removed"))]
    assert not left, (number, left)
print(n_killed > n_rounds // 4)
"""


@pytest.mark.slow
def test_killed_at_any_instant_the_next_process_is_right(tmp_path: Path) -> None:
    """Up to three processes that build one kernel, killed at random moments; with no warning."""
    root = tmp_path / "cache"
    environment = {"ATTNC_CACHE_DIR": str(root), "CXX": quick_compiler(tmp_path)}
    with start(KILLER, root, 15, environment=environment) as process:
        printed, errors = process.communicate(timeout=200)
    assert printed == "True\n", errors


EIGHT = """
import os, sys, threading
import torch, attnc
from attnc.runtime import cache

sys.setswitchinterval(1e-5)
torch.set_num_threads(1)
q = torch.randn(1, 1, 30, 8, generator=torch.Generator().manual_seed(0))
places = torch.arange(30)
n_threads = int(sys.argv[1])
barrier, failures = threading.Barrier(n_threads), []
def work(number):
    n = 3 + number % 8
    barrier.wait()
    try:
        out = attnc.attention(q, q, q, mask=lambda b, h, q_idx, kv_idx: (q_idx - kv_idx) % n != 1)
        mask = (places[:, None] - places) % n != 1
        expected = torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    except BaseException as error:
        failures.append(error)
threads = [threading.Thread(target=work, args=(number,)) for number in range(n_threads)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failures, failures
print(cache.n_builds())
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_thirty_two_threads_build_eight_kernels(tmp_path: Path, backend: str) -> None:
    """Each once, and each thread gets its own."""
    environment = {
        "ATTNC_CACHE_DIR": str(tmp_path / "c"),
        "CXX": quick_compiler(tmp_path),
        "ATTNC_BACKEND": backend,
        "TRITON_INTERPRET": "1" if backend == "triton" else None,
    }
    n_threads = 32 if backend == "cpu" else 16  # the interpreter takes its time
    with start(EIGHT, n_threads, environment=environment) as process:
        printed, errors = process.communicate(timeout=200)
    assert printed == "8\n", errors


def test_threads_that_ask_at_once_get_one_node() -> None:
    """Equal expressions are one object, also when several threads make the first."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(300):
            barrier, made = threading.Barrier(6), []

            def make(number: int = number, barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                made.append(Const(10**6 + number, DType.INT32))  # noqa: B023 - joined below

            threads = [threading.Thread(target=make) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len({id(node) for node in made}) == 1
    finally:
        sys.setswitchinterval(before)


def test_who_ignores_its_children_hears_of_a_failure(tmp_path: Path) -> None:
    """With SIGCHLD ignored, as in some servers, Python takes every process for a success."""
    program = """
        import os, signal
        from pathlib import Path
        from attnc.errors import CompilerError
        from attnc.runtime.build import compile_library, find_compiler
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        folder = Path(os.environ["FOLDER"])
        (folder / "x.cpp").write_text("int x = ;")
        try:
            compile_library(find_compiler(), folder / "x.cpp", folder / "x.so", ("-shared",))
        except CompilerError as error:
            print("expected" in str(error))
        (folder / "x.cpp").write_text("int x = 1;")
        compile_library(find_compiler(), folder / "x.cpp", folder / "x.so", ("-shared", "-fPIC"))
        print((folder / "x.so").exists())
    """
    assert output_of(program, environment={"FOLDER": str(tmp_path)}) == "True\nTrue\n"


def test_a_process_is_told_by_its_own_code(tmp_path: Path) -> None:
    """Whatever it prints, and however it ends."""
    for command, code, output in (
        ("printf 'a\\n7'; exit 3", 3, "a\n7"),
        ("kill -s KILL $$", 137, ""),
        ("echo 5", 0, "5\n"),
    ):
        done = run_process(
            ["/bin/sh", "-c", command], folder=tmp_path, time_limit=10, environment=os.environ
        )
        assert (done.code, done.output) == (code, output)


@pytest.mark.parametrize("raised", [TimeoutError("time is over"), ConnectionError("gone")])
def test_what_a_signal_s_handler_raises_passes_through(
    tmp_path: Path, raised: OSError, recwarn: pytest.WarningsRecorder
) -> None:
    """A TimeoutError is an OSError, but not one of the disk: the cache stays where it is."""

    def build(folder: Path) -> None:
        raise raised

    store = DiskCache(tmp_path)
    with pytest.raises(type(raised), match=str(raised)):
        store.fetch(DIGEST, build)
    assert store.fetch(DIGEST, write_a).folder.parent == tmp_path
    assert not recwarn.list


def test_a_folder_that_is_removed_is_made_again(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """By ``rm -r ~/.cache`` while the program runs."""
    root = tmp_path / "a" / "cache"
    store = DiskCache(root)
    store.fetch(DIGEST, write_a)
    shutil.rmtree(tmp_path / "a")
    assert store.fetch(DIGEST, write_a).folder == root / DIGEST
    shutil.rmtree(root / ".locks")
    shutil.rmtree(root / DIGEST)
    assert store.fetch(DIGEST, write_a).folder == root / DIGEST
    assert root.stat().st_mode & 0o777 == 0o700
    assert not recwarn.list


WITHOUT_LOCKS = """
#include <cerrno>
#include <sys/stat.h>
extern "C" int flock(int, int) { errno = ENOLCK; return -1; }
extern "C" int fsync(int fd) {
    struct stat status;
    fstat(fd, &status);
    if (!S_ISDIR(status.st_mode)) return 0;
    errno = EINVAL;
    return -1;
}
"""


def test_a_file_system_without_locks_will_do(tmp_path: Path) -> None:
    """Nor with folders that can be flushed, as on some networks: kernels are kept there all the same."""
    (tmp_path / "x.cpp").write_text(WITHOUT_LOCKS)
    library = tmp_path / "x.so"
    compiler = find_compiler().command[0]
    subprocess.run([compiler, "-shared", "-fPIC", tmp_path / "x.cpp", "-o", library], check=True)
    program = """
        warnings.simplefilter("error")
        children = []
        for _ in range(4):
            child = os.fork()
            if child == 0:
                entry = DiskCache(root).fetch(digest("a"), writes("a"))
                os._exit(content(entry) != "a")
            children.append(child)
        assert not any(os.waitpid(child, 0)[1] for child in children)
        print(DiskCache(root).fetch(digest("a"), None).folder.parent == root)
    """
    environment = {"LD_PRELOAD": str(library)}
    root = tmp_path / "cache"
    assert output_of(program_with_cache(program), root, environment=environment) == "True\n"


def planted_link(place: Path, aside: Path) -> None:
    place.symlink_to(aside)


def planted_folder(place: Path, aside: Path) -> None:
    place.mkdir()
    (place / "planted").write_text("")
    place.chmod(0o777)


@pytest.mark.parametrize("plant", [planted_link, planted_folder])
@pytest.mark.parametrize("name", [".locks", ".triton"])
def test_what_others_planted_before_is_not_used(
    tmp_path: Path, name: str, plant: Callable[[Path, Path], None]
) -> None:
    """While the folder was open to all: after ``chmod go-w`` no binary of theirs is left to Triton."""
    root, aside = tmp_path / "cache", tmp_path / "aside"
    store = DiskCache(root)
    aside.mkdir()
    (aside / "planted").write_text("")
    plant(root / name, aside)
    store.fetch(DIGEST, write_a)
    store.binaries()
    assert not (root / name / "planted").exists()
    assert not (root / name).is_symlink()
    assert [file.name for file in aside.iterdir()] == ["planted"]


TWO_VERSIONS = """
import sys, warnings
import torch, attnc
warnings.simplefilter("error")
q = torch.ones(1, 1, 30, 8)
out = attnc.attention(q, q, q, mask=lambda b, h, q_idx, kv_idx: (q_idx - kv_idx) % 5 != 1)
assert (out == 1).all()
from attnc.runtime import cache
print(attnc.__path__[0].startswith(sys.argv[1]), cache.n_builds())
"""


@pytest.mark.slow
def test_two_versions_share_a_folder(tmp_path: Path) -> None:
    """Also when one describes its kernels in other words, and both call themselves the same."""
    package = tmp_path / "other" / "attnc"
    shutil.copytree(attnc.__path__[0], package)
    for part in (runtime, codegen_templates):
        name = part.__name__.rpartition(".")[2]
        shutil.copytree(part.__path__[0], package / name, dirs_exist_ok=True)
    changed = package / "runtime" / "cpu.py"
    changed.write_text(changed.read_text().replace('"uses_table"', '"reads_a_table"'))
    environment = {"ATTNC_CACHE_DIR": str(tmp_path / "c"), "CXX": quick_compiler(tmp_path)}
    there = {**environment, "PYTHONPATH": str(package.parent)}
    printed = [output_of(TWO_VERSIONS, tmp_path, environment=e) for e in (environment, there) * 2]
    assert printed == ["False 1\n", "True 1\n", "False 0\n", "True 0\n"]
