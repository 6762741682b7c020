"""The disk cache: single flight, damage, order of use, whose folder it is."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from processes import quick_compiler

from attnc.errors import CacheDirectoryError, CacheWarning
from attnc.runtime import cache
from attnc.runtime.cache import DiskCache
from attnc.runtime.leftovers import make_held


def digest_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def writes(text: str, calls: list[str] | None = None):
    def build(folder: Path) -> None:
        if calls is not None:
            calls.append(text)
        (folder / "source").write_text(text)
        (folder / "binary").write_bytes(text.encode() * 100)

    return build


def fetched(store: DiskCache, name: str, calls: list[str]) -> str:
    entry = store.fetch(digest_of(name), writes(name, calls))
    return (entry.folder / "source").read_text()


def test_an_entry_is_built_once(tmp_path: Path) -> None:
    """The second fetch reads what the first has built, also through another DiskCache."""
    calls: list[str] = []
    for store in (DiskCache(tmp_path), DiskCache(tmp_path)):
        assert [fetched(store, name, calls) for name in "aba"] == ["a", "b", "a"]
    assert calls == ["a", "b"]


def damage_truncate(folder: Path) -> None:
    (folder / "binary").write_bytes(b"")


def damage_change_a_byte(folder: Path) -> None:
    content = bytearray((folder / "binary").read_bytes())
    content[-1] ^= 1
    (folder / "binary").write_bytes(content)


def damage_remove_a_file(folder: Path) -> None:
    (folder / "binary").unlink()


def damage_cut_the_manifest(folder: Path) -> None:
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text()[:50])


def damage_manifest_of_another_shape(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"digest": [], "sha256": 3}')


def damage_swap_with_another_entry(folder: Path) -> None:
    other = DiskCache(folder.parent).fetch(digest_of("other"), writes("other")).folder
    aside = folder.parent / ".aside"
    folder.rename(aside)
    other.rename(folder)


@pytest.mark.parametrize(
    "damage",
    [
        damage_truncate,
        damage_change_a_byte,
        damage_remove_a_file,
        damage_cut_the_manifest,
        damage_manifest_of_another_shape,
        damage_swap_with_another_entry,
    ],
)
def test_a_damaged_entry_is_built_again(tmp_path: Path, damage) -> None:
    """Whatever is wrong with it, it is neither used nor in the way."""
    calls: list[str] = []
    store = DiskCache(tmp_path)
    fetched(store, "a", calls)
    damage(tmp_path / digest_of("a"))
    assert fetched(store, "a", calls) == "a"
    assert fetched(store, "a", calls) == "a"
    assert calls == ["a", "a"]


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    """Its error passes through, and the next fetch builds anew."""
    store = DiskCache(tmp_path)

    def fails(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.fetch(digest_of("a"), fails)
    assert store.info().n_entries == 0
    assert fetched(store, "a", []) == "a"
    assert not list(tmp_path.glob(".building-*"))


def test_threads_wait_for_one_build(tmp_path: Path) -> None:
    """Ten threads that ask for one entry at once build it once."""
    calls: list[str] = []

    def slow(folder: Path) -> None:
        time.sleep(0.05)
        writes("a", calls)(folder)

    store = DiskCache(tmp_path)
    threads = [threading.Thread(target=store.fetch, args=(digest_of("a"), slow)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == ["a"]


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    """The size stays below the limit; an entry used again is kept."""
    calls: list[str] = []
    store = DiskCache(tmp_path, limit=1000)
    for age, name in ((900, "a"), (800, "b"), (700, "c")):
        fetched(store, name, calls)
        then = time.time() - age
        os.utime(tmp_path / digest_of(name) / "manifest.json", (then, then))
    fetched(store, "a", calls)  # now the newest
    fetched(store, "d", calls)

    kept = {name for name in "abcd" if (tmp_path / digest_of(name)).exists()}
    assert {"a", "d"} <= kept
    assert "b" not in kept
    assert store.info().size <= 1000


def test_clear_removes_everything(tmp_path: Path) -> None:
    """It returns what there was."""
    store = DiskCache(tmp_path)
    for name in "abc":
        fetched(store, name, [])
    before = store.info()
    assert before.n_entries == 3
    assert store.clear() == before
    assert store.info().n_entries == 0
    assert fetched(store, "a", []) == "a"


def test_what_triton_keeps_counts_and_goes_too(tmp_path: Path) -> None:
    """Files of Triton's own cache are in the size, fall to the limit, and are cleared."""
    store = DiskCache(tmp_path, limit=1000)
    kernel = store.binaries() / "kernel"
    kernel.mkdir()
    (kernel / "binary").write_bytes(bytes(600))
    assert store.info().size == 600

    os.utime(kernel, (1.0, 1.0))
    fetched(store, "abcde", [])
    assert not kernel.exists()

    kernel.mkdir()
    store.clear()
    assert not kernel.exists()


def test_triton_writes_elsewhere_where_it_cannot_write(tmp_path: Path) -> None:
    """Where the cache folder cannot be made, what Triton compiles goes to the temporary one."""
    (tmp_path / "file").write_text("")

    with pytest.warns(CacheWarning, match="cannot be written to"):
        folder = DiskCache(tmp_path / "file" / "cache").binaries()

    assert folder.is_dir()
    assert tmp_path not in folder.parents


def test_leftovers_of_killed_builds_are_removed(tmp_path: Path) -> None:
    """By the next build, whatever their age; those at work are not, as old as they may be."""
    store = DiskCache(tmp_path)
    dead = tmp_path / ".building-dead"
    dead.mkdir()
    working = make_held(tmp_path, ".building-")
    os.utime(working.path, (0, 0))
    fetched(store, "a", [])
    assert not dead.exists()
    assert working.path.exists()

    working.release()
    fetched(store, "b", [])
    assert not working.path.exists()


def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    """The error gives the command that repairs it."""
    tmp_path.chmod(0o777)
    with pytest.raises(CacheDirectoryError, match=f"Run `chmod go-w {tmp_path}`"):
        DiskCache(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """Whoever owns it could replace the code in it."""
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(CacheDirectoryError, match="belongs to user number 12345"):
        DiskCache(tmp_path)


def test_a_folder_that_cannot_be_made_is_replaced(tmp_path: Path) -> None:
    """Kernels then live in a temporary folder, with one warning."""
    (tmp_path / "file").write_text("")
    store = DiskCache(tmp_path / "file" / "cache")
    with pytest.warns(CacheWarning, match="cannot be written to"):
        entry = store.fetch(digest_of("a"), writes("a"))
    calls: list[str] = []
    assert fetched(store, "a", calls) == "a"
    assert calls == []
    assert tmp_path not in entry.folder.parents


def test_a_relative_folder_is_one_of_where_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compilers run elsewhere, so entries have absolute paths."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTNC_CACHE_DIR", "relative")

    entry = cache.fetch(digest_of("a"), writes("a"))

    assert entry.folder == tmp_path / "relative" / digest_of("a")


def test_dump_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ATTNC_DUMP receives every file, from the cache or new."""
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "cache"))
    cache.fetch(digest_of("a"), writes("a"))
    monkeypatch.setenv("ATTNC_DUMP", str(tmp_path / "dump"))
    cache.fetch(digest_of("a"), writes("a"))
    copy = tmp_path / "dump" / digest_of("a")[:16]
    assert sorted(file.name for file in copy.iterdir()) == ["binary", "source"]
    assert (copy / "source").read_text() == "a"


CALL = """
    import os, sys, torch
    from attnc import attention
    from attnc.runtime import cache

    torch.set_num_threads(1)
    q = torch.ones(1, 1, 20, 8)

    def build_two():
        for size in (3, 5):
            attention(q, q, q, mask=lambda b, h, q_idx, kv_idx: (q_idx - kv_idx) % size == 0)
        return cache.n_builds()

    # Importing torch sixteen times would take most of the test's time.
    for child in range(int(sys.argv[1])):
        if os.fork() == 0:
            os._exit(build_two())
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(int(sys.argv[1]))]
    print(sum(codes) if codes else build_two())
"""


def n_builds_of(n_processes: int, folder: Path) -> int:
    """Kernels built by so many processes at once; 0 stands for one without a fork."""
    command = [sys.executable, "-c", textwrap.dedent(CALL), str(n_processes)]
    compiler = quick_compiler(folder.parent, f"echo run >> '{folder}.log'")
    environment = {**os.environ, "ATTNC_CACHE_DIR": str(folder), "CXX": compiler}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=True)
    return int(done.stdout)


def test_sixteen_processes_build_each_kernel_once(tmp_path: Path) -> None:
    """And a new process after them builds none; the compiler is run as often as that."""
    assert n_builds_of(16, tmp_path / "cache") == 2
    assert n_builds_of(0, tmp_path / "cache") == 0
    assert (tmp_path / "cache.log").read_text() == "run\n" * 2


def test_a_killed_build_is_in_nobodys_way(tmp_path: Path) -> None:
    """kill -9 while the lock is held: the next process builds."""
    program = """
        import os, signal, sys
        from pathlib import Path
        from attnc.runtime.cache import DiskCache
        def build(folder):
            (folder / "half").write_text("x")
            os.kill(os.getpid(), signal.SIGKILL)
        DiskCache(Path(sys.argv[1])).fetch(sys.argv[2], build)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path), digest_of("a")]
    assert subprocess.run(command, check=False, timeout=60).returncode == -9
    assert fetched(DiskCache(tmp_path), "a", []) == "a"
