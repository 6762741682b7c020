"""The disk cache: one folder per kernel, built once however many processes ask for it.

An entry (see ``entries``) is written under a temporary name, flushed to disk and renamed, so that
it is there entirely or not at all; a lock per digest makes other processes and threads wait for
the first. What does not agree with its manifest is built again, never trusted and never fatal.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import hashlib
import os
import secrets
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from attnc.errors import (
    AttncError,
    CacheDirectoryError,
    CacheFullError,
    CacheNoExecError,
    CacheWarning,
)
from attnc.runtime.entries import (
    MANIFEST,
    Entry,
    is_entry_name,
    sized_folders,
    sync,
    verified,
    write_manifest,
)
from attnc.runtime.leftovers import HeldFolder, make_held, sweep
from attnc.runtime.locks import alone
from attnc.runtime.private import is_private_folder, make_private, require_private

_T = TypeVar("_T")

DEFAULT_LIMIT = 1 << 30  # bytes

_BUILDING = ".building-"
_REMOVED = ".removed-"
_LOCKS = ".locks"
_BINARIES = ".triton"
_TEMPORARY = "attnc-kernels_"
_STALE_SECONDS = 3600.0  # nobody holds a lock for longer
_IN_USE_SECONDS = 60.0  # an entry used so recently may be about to be loaded: never evicted
_PATIENCE = 150.0  # seconds; the C++ compiler has less, so whoever has the lock for longer is stuck
_ROOM = 8 << 20  # bytes; a build takes less
_ATTEMPTS = 20  # at an entry that others keep removing
_DISK_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
)

_n_builds = 0
_count_lock = threading.Lock()


def _after_fork() -> None:
    global _count_lock
    _count_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True)
class CacheInfo:
    """What a cache holds; sizes in bytes."""

    root: Path
    n_entries: int
    size: int
    limit: int


def n_builds() -> int:
    """How many entries this process has built itself."""
    return _n_builds


def disk_cache() -> DiskCache:
    """The cache at ``ATTNC_CACHE_DIR``, or in the user's cache folder."""
    folder = os.environ.get("ATTNC_CACHE_DIR")
    if not folder:
        from platformdirs import user_cache_dir

        try:
            folder = user_cache_dir("attnc")
        except RuntimeError:  # as newer versions tell that there is no home
            folder = "~"
    if folder.startswith("~"):  # as it is in a container without a home
        folder = os.path.expanduser(folder)  # noqa: PTH111 - that of Path raises
    # Absolute: the compiler runs in another folder, and the program may change its own.
    return _cache_at(folder if folder.startswith("~") else str(Path(folder).absolute()))


def fetch(digest: str, build: Callable[[Path], None]) -> Entry:
    """``disk_cache().fetch``, and a copy of the files under ``ATTNC_DUMP`` if that is set."""
    entry = disk_cache().fetch(digest, build)
    dump = os.environ.get("ATTNC_DUMP")
    if dump:
        copy = Path(dump) / digest[:16]
        copy.mkdir(parents=True, exist_ok=True)
        for name in entry.names:
            shutil.copyfile(entry.folder / name, copy / name)
    return entry


def fetch_loaded(digest: str, build: Callable[[Path], None], load: Callable[[Entry], _T]) -> _T:
    """What ``load`` makes of the entry named ``digest``; for the other arguments see ``fetch``.

    An entry that another process removes before it is loaded is fetched again. One that is whole
    but cannot be loaded is built again, once: it was made for a machine that is like this one in
    all that the digest knows, but not, say, in its C library.
    """
    is_renewed = False
    for _ in range(_ATTEMPTS):
        entry = fetch(digest, build)
        try:
            return load(entry)
        except CacheNoExecError:
            raise
        except OSError as error:
            if error.errno is None and not isinstance(error, AttncError):
                raise
            if verified(entry.folder, digest) is None:
                continue
            if is_renewed:
                raise
            disk_cache().discard(digest)
            is_renewed = True
    return load(fetch(digest, build))


def joint_digest(digests: Sequence[str]) -> str:
    """Digest of an entry that holds what several digests name, in this order."""
    return hashlib.sha256("\0".join(digests).encode()).hexdigest()


class DiskCache:
    """Entries in the folder ``root``, of at most ``limit`` bytes in all.

    The folder is made when it is missing. It must belong to the user and be closed to writers
    other than the user, because code from it is run. If it cannot be written to, new entries go to
    a private temporary folder, with one warning.

    Raises:
        CacheDirectoryError: The folder belongs to, or can be written by, somebody else.
    """

    def __init__(self, root: Path, limit: int = DEFAULT_LIMIT, *, is_last: bool = False) -> None:
        self.root = root
        self.limit = limit
        self._is_last = is_last  # there is no other folder to go to
        self._fallback: DiskCache | None = None
        self._failure: OSError | None = None
        try:
            if not root.is_absolute() and root.parts[:1] and root.parts[0].startswith("~"):
                raise FileNotFoundError(errno.ENOENT, "the user has no home folder")
            self._prepare()
        except CacheDirectoryError:
            raise
        except OSError as error:
            self._failure = error
        self._is_there = self._failure is None

    def fetch(self, digest: str, build: Callable[[Path], None]) -> Entry:
        """The entry named ``digest``; made by ``build(folder)`` if it is missing or damaged.

        Args:
            digest: SHA-256 in hexadecimal; equal digests mean equal content.
            build: Writes the files of the entry into the empty folder that it is given. What it
                raises passes through, and nothing is stored; but where the disk is full or
                read-only it is called again, for another folder.

        Raises:
            CacheFullError: There is no folder with room for the entry.
        """
        entry = verified(self.root / digest, digest) if self._is_there else None
        if entry is not None:
            _touch(entry)
            return entry
        if self._failure is None:
            try:
                self._prepare()  # somebody may have removed the folder since
                # Two builds of one entry are harmless: nobody waits for ever.
                with alone(self._own_folder(_LOCKS) / digest, _PATIENCE):
                    # Another process may have built it while this one waited.
                    return verified(self.root / digest, digest) or self._build(digest, build)
            except AttncError:
                raise
            except OSError as error:
                if error.errno is None:  # raised by a program, as TimeoutError by signals' handlers
                    raise
                self._failure = error
        return self._elsewhere(self._failure).fetch(digest, build)

    def discard(self, digest: str) -> None:
        """Removes the entry named ``digest``, if it can be removed."""
        for store in (self, self._fallback):
            if store is not None:
                try:
                    store._remove(store.root / digest)
                except OSError as error:
                    store._failure = error

    def binaries(self) -> Path:
        """Folder, made when it is missing, for the files that Triton keeps of what it compiles."""
        try:
            if self._failure is not None:
                raise self._failure
            folder = self._own_folder(_BINARIES)
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            return self._elsewhere(error).binaries()
        return folder

    def info(self) -> CacheInfo:
        """Number of the entries; size of these and of Triton's files."""
        sizes = [size for _, _, size in self._entries()]
        size = sum(sizes) + sum(size for _, _, size in self._binaries())
        return CacheInfo(self.root, len(sizes), size, self.limit)

    def clear(self) -> CacheInfo:
        """Removes every entry; what there was. Kernels in use go on working."""
        info = self.info()
        for folder, _, _ in (*self._entries(), *self._binaries()):
            self._remove(folder)
        sweep(self.root, _BUILDING, _REMOVED)
        # Whoever waits for one of these locks may now build what another builds: only slower.
        shutil.rmtree(self.root / _LOCKS, ignore_errors=True)
        return info

    def _prepare(self) -> None:
        """Makes the folder where it is missing, and refuses it where it is not the user's alone."""
        make_private(self.root)
        require_private(self.root)

    def _own_folder(self, name: str) -> Path:
        """A folder in the cache for the user alone, whoever made what has been in its place."""
        folder = self.root / name
        folder.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # somebody has just removed it
            if not is_private_folder(folder):
                self._remove(folder)  # from a time when others could write here
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _elsewhere(self, error: OSError) -> DiskCache:
        reason = error.strerror or str(error)
        if self._is_last:
            if error.errno not in _DISK_ERRORS:
                raise error  # of what is built, then
            raise CacheFullError(root=self.root, reason=reason) from error
        with _count_lock:
            # A fork inherits the folder of its parent, which removes it in the end.
            if self._fallback is None or not self._fallback.root.is_dir():
                try:
                    folder = _temporary_folder()
                except OSError as another:
                    raise CacheFullError(root=self.root, reason=reason) from another
                self._fallback = DiskCache(folder, self.limit, is_last=True)
                warnings.warn(
                    f"{self.root} cannot be written to ({reason}): kernels of this process are "
                    f"kept in {folder} and lost at its end. Set ATTNC_CACHE_DIR to a folder of "
                    "yours.",
                    CacheWarning,
                    stacklevel=3,
                )
            return self._fallback

    def _build(self, digest: str, build: Callable[[Path], None]) -> Entry:
        global _n_builds
        sweep(self.root, _BUILDING, _REMOVED)
        with make_held(self.root, _BUILDING).until_end() as folder:
            try:
                build(folder)
            except Exception:
                _require_room(folder)  # else that is the cause
                raise
            with _count_lock:
                _n_builds += 1
            entry = write_manifest(folder, digest)
            target = self.root / digest
            try:
                folder.rename(target)
            except OSError:  # there is one
                if verified(target, digest) is None:  # else somebody without our lock was faster
                    self._remove(target)
                    folder.rename(target)
            sync(self.root)
        self._evict()
        return Entry(target, entry.names)

    def _evict(self) -> None:
        """Removes what was used least recently until the rest fits, and locks nobody waits for."""
        now = time.time()
        entries = sorted(
            # A time to come tells nothing: the clock has been set back since.
            (
                (folder, used if used <= now + _IN_USE_SECONDS else 0.0, size)
                for folder, used, size in (*self._entries(), *self._binaries())
            ),
            key=lambda entry: entry[1],
        )
        excess = sum(size for _, _, size in entries) - self.limit
        for folder, used, size in entries:
            if excess <= 0 or now - used < _IN_USE_SECONDS:
                break
            self._remove(folder)
            excess -= size
        with contextlib.suppress(FileNotFoundError):  # they may be cleared meanwhile
            for lock in (self.root / _LOCKS).iterdir():
                if abs(now - _modified(lock)) > _STALE_SECONDS:
                    lock.unlink(missing_ok=True)

    def _remove(self, folder: Path) -> None:
        # Under another name first, so that nobody sees half an entry.
        doomed = self.root / f"{_REMOVED}{secrets.token_hex(8)}"
        try:
            folder.rename(doomed)
        except FileNotFoundError:
            return  # somebody else was faster
        if doomed.is_dir() and not doomed.is_symlink():
            shutil.rmtree(doomed, ignore_errors=True)
        else:
            doomed.unlink()

    def _entries(self) -> Iterator[tuple[Path, float, int]]:
        """Folder, time of last use and size in bytes of each entry."""
        for folder, size in sized_folders(self.root):
            if is_entry_name(folder.name):
                yield folder, _modified(folder / MANIFEST), size

    def _binaries(self) -> Iterator[tuple[Path, float, int]]:
        """The same for each kernel of Triton, with the time when it was compiled."""
        for folder, size in sized_folders(self.root / _BINARIES):
            yield folder, _modified(folder), size


@functools.lru_cache(maxsize=16)
def _cache_at(root: str) -> DiskCache:
    return DiskCache(Path(root))


def _temporary_folder() -> Path:
    """A folder that goes at the end of this process; if it is killed, with the next such folder."""
    parent = Path(tempfile.gettempdir())
    sweep(parent, _TEMPORARY)
    held = make_held(parent, _TEMPORARY)
    atexit.register(_remove_own, held, os.getpid())
    return held.path


def _remove_own(held: HeldFolder, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked child, which inherits what runs at exit
        shutil.rmtree(held.path, ignore_errors=True)


def _require_room(folder: Path) -> None:
    """An OSError if nothing as large as an entry can be written to ``folder``."""
    probe = folder / "probe"
    try:
        probe.write_bytes(bytes(_ROOM))
    finally:
        probe.unlink(missing_ok=True)


def _touch(entry: Entry) -> None:
    try:
        os.utime(entry.folder / MANIFEST)
    except OSError:
        return  # a read-only cache keeps no order of use


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
