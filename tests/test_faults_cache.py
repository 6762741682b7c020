"""What the disk cache promises when disks, clocks, users and other processes fail it.

``docs/faults.md`` lists the promises. Processes here are real, and really die.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from processes import can_mount, in_mount, output_of, program_with_cache, start

from attnc.errors import CacheDirectoryError
from attnc.runtime import cache
from attnc.runtime.cache import DiskCache

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
needs_mount = pytest.mark.skipif(not can_mount(), reason="may not mount file systems")


# Where flushing to disk takes no time, for tests that build many entries.
MEMORY = next((folder for folder in (Path("/dev/shm"),) if folder.is_dir()), None)


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def fetched(store: DiskCache, name: str) -> str:
    def build(folder: Path) -> None:
        (folder / "source").write_text(name)
        (folder / "binary").write_bytes(name.encode() * 100)

    return (store.fetch(digest(name), build).folder / "source").read_text()


def leftovers(root: Path) -> list[str]:
    return [file.name for file in root.iterdir() if file.name.startswith((".building", ".removed"))]


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="attnc-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


KILLED = """
STEPS = ("open", "os.rename", "os.mkdir", "os.utime", "os.remove", "os.rmdir", "os.scandir",
         "os.listdir", "fcntl.flock", "shutil.rmtree", "tempfile.mkdtemp")

def killed_at(step, name):
    # In a child that dies at its step number `step`; True if it came to its end before.
    child = os.fork()
    if child == 0:
        left = [step]
        def hook(event, arguments):
            if event in STEPS:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        DiskCache(root).fetch(digest(name), writes(name))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

def check(name):
    store = DiskCache(root)
    entry = store.fetch(digest(name), writes(name))
    assert content(entry) == name
    assert content(store.fetch(digest("next"), writes("next"))) == "next"
    seen = {file.name for file in root.iterdir()}
    assert seen == {".locks", digest(name), digest("next")}, (step, seen)
    store.clear()

step = 0
while True:
    if sys.argv[2] == "damaged":
        damaged = DiskCache(root).fetch(digest("a"), writes("a"))
        (damaged.folder / "binary").write_bytes(b"")
    is_over = killed_at(step, "a")
    check("a")
    if is_over:
        break
    step += 1
print(step)
"""


@pytest.mark.parametrize("before", ["missing", "damaged"])
def test_killed_at_any_step_the_next_process_is_right(before: str) -> None:
    """kill -9 at each file that is opened, renamed, made or removed: nothing wrong, nothing left."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        n_steps = int(output_of(program_with_cache(KILLED), folder, before))
    assert n_steps > 20


@given(st.data())
def test_any_change_of_any_byte_is_noticed(data: st.DataObject) -> None:
    """Bits flipped or a file cut anywhere in an entry, its manifest included: the content is right."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        store = DiskCache(Path(folder))
        assert fetched(store, "a") == "a"
        names = sorted(file.name for file in (Path(folder) / digest("a")).iterdir())
        assert names == ["binary", "manifest.json", "source"]
        file = Path(folder) / digest("a") / data.draw(st.sampled_from(names))
        content = bytearray(file.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[place] ^= data.draw(st.integers(1, 255))
        else:
            del content[place:]
        file.write_bytes(content)

        assert fetched(store, "a") == "a"
        assert (Path(folder) / digest("a") / "binary").read_bytes() == b"a" * 100


@given(st.text() | st.binary())
@example("[" * 100_000)
@example('{"digest": null, "sha256": {}}')
def test_any_manifest_is_read_without_harm(text: str | bytes) -> None:
    """Whatever stands in its place, the entry is built again."""
    content = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        entry = Path(folder) / digest("a")
        entry.mkdir()
        (entry / "manifest.json").write_bytes(content)
        assert fetched(DiskCache(Path(folder)), "a") == "a"


def test_a_file_too_many_spoils_an_entry(tmp_path: Path) -> None:
    """What no checksum covers could be loaded in place of what is covered, as a .pyc would be."""
    store = DiskCache(tmp_path)
    fetched(store, "a")
    extra = tmp_path / digest("a") / "__pycache__"
    extra.mkdir()
    assert fetched(store, "a") == "a"
    assert not extra.exists()


@needs_mount
def test_a_full_disk_moves_the_cache(tmp_path: Path) -> None:
    """Kernels then live in a temporary folder; what is in the cache already is used from there."""
    program = """
        store = DiskCache(root)
        old = store.fetch(digest("old"), writes("old"))
        (root / "filler").write_bytes(bytes(150_000))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for name in ("new", "newer"):
                entry = store.fetch(digest(name), writes(name, 50_000))
                assert content(entry) == name and root not in entry.folder.parents
        assert [type(w.message) for w in caught] == [CacheWarning]
        assert store.fetch(digest("old"), None) == old
        print(caught[0].message, sorted(f.name for f in root.iterdir() if f.name[0] == "."))
    """
    printed = in_mount(tmp_path, "size=256k", program_with_cache(program), tmp_path)
    assert "(No space left on device)" in printed
    assert printed.endswith("['.locks']\n")


def test_a_full_disk_everywhere_is_one_error(tmp_path: Path) -> None:
    """Where a process may write no large file, no folder will do."""
    program = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        warnings.simplefilter("ignore")
        try:
            DiskCache(root).fetch(digest("a"), writes("a", 10_000))
        except CacheFullError as error:
            print(error)
    """
    printed = output_of(
        program_with_cache(program), tmp_path / "c", environment={"TMPDIR": str(tmp_path)}
    )
    assert printed.startswith("There is no room for a compiled kernel")
    assert "(File too large)" in printed


@needs_root
def test_a_read_only_cache_is_read(open_path: Path) -> None:
    """Its kernels are used; new ones go to a temporary folder, with one warning."""
    program = f"""
        os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})
        old = DiskCache(root).fetch(digest("old"), writes("old"))
        for folder in (root / ".locks", old.folder, root):
            folder.chmod(0o500)
        os.environ["HOME"] = "/nonexistent"
        store = DiskCache(root)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            new = store.fetch(digest("new"), writes("new"))
            assert store.fetch(digest("new"), None) == new
            assert store.fetch(digest("old"), None) == old
        print(len(caught), caught[0].message)
        for folder in (root / ".locks", old.folder, root):
            folder.chmod(0o700)
    """
    root = open_path / "cache"
    root.mkdir()
    os.chown(root, NOBODY, NOBODY)
    printed = output_of(program_with_cache(program), root)
    assert printed.startswith(f"1 {root} cannot be written to (Permission denied)")


@needs_root
def test_an_entry_of_another_user_is_replaced(open_path: Path) -> None:
    """As one that sudo has left in the user's cache."""
    program = f"""
        os.chown(root, {NOBODY}, {NOBODY})
        os.setegid({NOBODY}), os.seteuid({NOBODY})
        DiskCache(root).fetch(digest("a"), writes("a"))
        os.seteuid(0)
        poisoned = root / digest("a")
        os.chown(poisoned, 12345, 12345)
        for file in poisoned.iterdir():
            os.chown(file, 12345, 12345)
        os.seteuid({NOBODY})
        built = []
        def build(folder):
            built.append(1)
            writes("a")(folder)
        entry = DiskCache(root).fetch(digest("a"), build)
        print(built, content(entry), entry.folder.stat().st_uid)
    """
    root = open_path / "cache"
    root.mkdir()
    assert output_of(program_with_cache(program), root) == f"[1] a {NOBODY}\n"


@needs_root
def test_a_user_without_a_home_gets_a_temporary_cache(open_path: Path) -> None:
    """As in a container that is run for a number: no folder named ~ is made where one stands."""
    open_path.chmod(0o777 | 0o1000)
    program = """
        import platformdirs
        os.chdir(root)
        os.setgroups([]), os.setgid(54321), os.setuid(54321)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            entry = cache.fetch(digest("a"), writes("a"))
        print(content(entry), os.listdir(), caught[0].message)
    """
    environment = {"HOME": None, "ATTNC_CACHE_DIR": None, "XDG_CACHE_HOME": None}
    printed = output_of(program_with_cache(program), open_path, environment=environment)
    assert re.match(r"a \[\] ~\S* cannot be written to \(the user has no home folder\)", printed)


def test_a_folder_may_be_named_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no shell has replaced the ~, as in a Dockerfile."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ATTNC_CACHE_DIR", "~/kernels")
    assert cache.disk_cache().root == tmp_path / "kernels"


def test_a_folder_that_everybody_can_replace_is_refused(tmp_path: Path) -> None:
    """One above it is open to all: a sticky one, as /tmp, is safe."""
    tmp_path.chmod(0o777)
    with pytest.raises(CacheDirectoryError, match=rf"lies in .*Run `chmod \+t {tmp_path}`"):
        DiskCache(tmp_path / "cache")
    tmp_path.chmod(0o1777)
    assert fetched(DiskCache(tmp_path / "cache"), "a") == "a"


@pytest.mark.parametrize("name", ["with space", "ünï→", "new\nline", "$HOME'\"", "x" * 255, "link"])
def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    """Spaces, other alphabets, line breaks, quotes, the longest name, and a symbolic link."""
    (tmp_path / "target").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    store = DiskCache(tmp_path / name)
    assert fetched(store, "a") == "a"
    assert store.clear().n_entries == 1


def test_a_path_that_is_too_long_moves_the_cache(tmp_path: Path) -> None:
    """The system refuses it, so kernels live in a temporary folder."""
    with pytest.warns(UserWarning, match="File name too long"):
        assert fetched(DiskCache(tmp_path / ("x" * 256)), "a") == "a"


@pytest.mark.parametrize("page", ["faults.md", "security.md"])
def test_every_promise_names_its_test(page: str) -> None:
    """The tests in the documentation are there."""
    folder = Path(__file__).parent
    named = set(re.findall(r"`(test_\w+)`", (folder.parent / "docs" / page).read_text()))
    written = {
        name
        for file in folder.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert len(named) > 5
    assert named <= written


def test_only_entries_are_removed(tmp_path: Path) -> None:
    """A folder that holds more than the cache loses nothing, neither to the limit nor to clear."""
    for name in ("photos", ".photos", "a" * 63, ".building", "0" * 64 + ".bak"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(bytes(5000))
    (tmp_path / "letter").write_text("dear")
    mine = sorted(tmp_path.iterdir())

    store = DiskCache(tmp_path, limit=1)
    fetched(store, "a")
    fetched(store, "b")
    assert store.info().n_entries == 2
    store.clear()

    assert sorted(set(tmp_path.iterdir()) - {tmp_path / ".locks"}) == mine


def test_a_clock_set_back_does_not_keep_entries(tmp_path: Path) -> None:
    """A last use in the future says nothing: such entries go first, and the size stays bounded."""
    store = DiskCache(tmp_path, limit=1000)
    future = time.time() + 1e8
    for name in "abc":
        fetched(store, name)
        os.utime(tmp_path / digest(name) / "manifest.json", (future, future))
    fetched(store, "d")
    fetched(store, "e")
    kept = {name for name in "abcde" if (tmp_path / digest(name)).exists()}
    assert {"d", "e"} <= kept
    assert store.info().size <= 1000


RACE = """
import time
n = int(sys.argv[2])
end = time.monotonic() + float(sys.argv[3])
children = []
for number in range(n):
    child = os.fork()
    if child == 0:
        n_loads = 0
        store = DiskCache(root, limit=500)
        cache._cache_at = lambda _: store  # with a limit that every entry exceeds
        cache._IN_USE_SECONDS = 0.0
        while time.monotonic() < end:
            if number == 0:
                store.clear()
                time.sleep(0.01)
                continue
            name = "abcdef"[(n_loads + number) % 6]
            assert cache.fetch_loaded(digest(name), writes(name), content) == name
            n_loads += 1
        os._exit(0 if n_loads or not number else 1)
    children.append(child)
assert not any(os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children)
left = {f.name for f in root.iterdir()} - {digest(name) for name in "abcdef"}
print(sorted(left))
"""


def test_removal_never_breaks_who_loads(tmp_path: Path) -> None:
    """Four processes load, one clears all the time, and every entry is over the limit."""
    environment = {"ATTNC_CACHE_DIR": str(tmp_path)}
    printed = output_of(program_with_cache(RACE), tmp_path, 5, 1.0, environment=environment)
    assert printed in ("[]\n", "['.locks']\n")


def test_a_stuck_process_holds_up_nobody_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is stopped with the lock: after a while others build without it."""
    program = """
        def build(folder):
            print("building", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
            writes("a")(folder)
        print(content(DiskCache(root).fetch(digest("a"), build)))
    """
    monkeypatch.setattr(cache, "_PATIENCE", 0.2)
    with start(program_with_cache(program), tmp_path) as stopped:
        assert stopped.stdout is not None
        assert stopped.stdout.readline() == "building\n"
        try:
            assert fetched(DiskCache(tmp_path), "a") == "a"
        finally:
            stopped.send_signal(18)  # SIGCONT
        assert stopped.communicate(timeout=20)[0] == "a\n"
    assert leftovers(tmp_path) == []


def test_old_locks_are_removed(tmp_path: Path) -> None:
    """They would be one more file for each kernel that ever was."""
    store = DiskCache(tmp_path)
    for name in "abc":
        fetched(store, name)
        os.utime(tmp_path / ".locks" / digest(name), (1.0, 1.0))
    fetched(store, "d")
    assert [lock.name for lock in (tmp_path / ".locks").iterdir()] == [digest("d")]


def test_a_killed_process_s_temporary_cache_goes_with_the_next(tmp_path: Path) -> None:
    """One in use stays, and so does what only looks like one."""
    program = """
        warnings.simplefilter("ignore")
        entry = DiskCache(Path("/dev/null/cache")).fetch(digest("a"), writes("a"))
        print(entry.folder.parent, flush=True)
        if sys.argv[2] == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        sys.stdin.read()
    """
    (tmp_path / "attnc-kernels").mkdir()
    environment = {"TMPDIR": str(tmp_path)}
    with start(program_with_cache(program), tmp_path, "dies", environment=environment) as first:
        dead = Path(first.communicate(timeout=20)[0].strip())
    assert dead.is_dir()
    with start(program_with_cache(program), tmp_path, "dies", environment=environment) as second:
        second.communicate(timeout=20)
    assert not dead.exists()
    assert (tmp_path / "attnc-kernels").is_dir()
