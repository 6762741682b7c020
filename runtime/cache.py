"""The disk cache: one folder per kernel, built once however many processes ask for it.

An entry is a folder named by a digest of everything its content depends on. It is written under a
temporary name, flushed to disk and renamed, so that it is there entirely or not at all; a lock
per digest makes other processes and threads wait for the first. A manifest holds the checksum of
every file: what does not agree with it is built again, never trusted and never fatal.
"""

from __future__ import annotations

import atexit
import errno
import functools
import hashlib
import json
import os
import shutil
import stat
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from attnc.errors import CacheDirectoryError, CacheWarning

DEFAULT_LIMIT = 1 << 30  # bytes

_MANIFEST = "manifest.json"
_BUILDING = ".building-"
_REMOVED = ".removed-"
_LOCKS = ".locks"
_BINARIES = ".triton"
_STALE_SECONDS = 3600.0  # a build that takes longer was killed
_IN_USE_SECONDS = 60.0  # an entry used so recently may be about to be loaded: never evicted

_n_builds = 0
_count_lock = threading.Lock()


@dataclass(frozen=True)
class Entry:
    """Files of one kernel, verified: ``folder / name`` for each of ``names``."""

    folder: Path
    names: tuple[str, ...]


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

        folder = user_cache_dir("attnc")
    # Absolute: the compiler runs in another folder, and the program may change its own.
    return _cache_at(str(Path(folder).absolute()))


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

    def __init__(self, root: Path, limit: int = DEFAULT_LIMIT) -> None:
        self.root = root
        self.limit = limit
        self._fallback: DiskCache | None = None
        self._failure: OSError | None = None
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            self._failure = error
        else:
            _require_private(root)

    def fetch(self, digest: str, build: Callable[[Path], None]) -> Entry:
        """The entry named ``digest``; made by ``build(folder)`` if it is missing or damaged.

        Args:
            digest: Hexadecimal; equal digests mean equal content.
            build: Writes the files of the entry into the empty folder that it is given. What it
                raises passes through, and nothing is stored.
        """
        if self._failure is None:
            entry = _verified(self.root / digest, digest)
            if entry is not None:
                _touch(entry)
                return entry
            from filelock import FileLock  # loading a kernel that is there does without

            try:
                (self.root / _LOCKS).mkdir(mode=0o700, exist_ok=True)
                lock = FileLock(self.root / _LOCKS / digest)
                lock.acquire()
            except OSError as error:
                self._failure = error
        if self._failure is not None:
            return self._elsewhere(self._failure).fetch(digest, build)
        try:
            # Another process may have built it while this one waited.
            return _verified(self.root / digest, digest) or self._build(digest, build)
        finally:
            lock.release()

    def binaries(self) -> Path:
        """Folder, made when it is missing, for the files that Triton keeps of what it compiles."""
        folder = self.root / _BINARIES
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
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
        # Whoever waits for one of these locks may now build what another builds: only slower.
        shutil.rmtree(self.root / _LOCKS, ignore_errors=True)
        return info

    def _elsewhere(self, error: OSError) -> DiskCache:
        if self._fallback is None:
            folder = tempfile.mkdtemp(prefix="attnc-")
            atexit.register(_remove_own, folder, os.getpid())
            self._fallback = DiskCache(Path(folder), self.limit)
            warnings.warn(
                f"{self.root} cannot be written to ({error.strerror}): kernels of this process are "
                f"kept in {folder} and lost at its end. Set ATTNC_CACHE_DIR to a folder of yours.",
                CacheWarning,
                stacklevel=3,
            )
        return self._fallback

    def _build(self, digest: str, build: Callable[[Path], None]) -> Entry:
        global _n_builds
        folder = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=self.root))
        try:
            build(folder)
            with _count_lock:
                _n_builds += 1
            names = _write_manifest(folder, digest)
            target = self.root / digest
            self._remove(target)  # damaged, or we would not be here
            try:
                folder.rename(target)
            except OSError:
                if _verified(target, digest) is None:  # else somebody without our lock was faster
                    raise
            _sync(self.root)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._evict()
        return Entry(target, names)

    def _evict(self) -> None:
        """Removes what was used least recently until the rest fits, and leftovers of the killed."""
        entries = sorted((*self._entries(), *self._binaries()), key=lambda entry: entry[1])
        excess = sum(size for _, _, size in entries) - self.limit
        now = time.time()
        for folder, used, size in entries:
            if excess <= 0 or now - used < _IN_USE_SECONDS:
                break
            self._remove(folder)
            excess -= size
        for leftover in self.root.glob(".*-*"):
            is_temporary = leftover.name.startswith((_BUILDING, _REMOVED))
            if is_temporary and _modified(leftover) < now - _STALE_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)

    def _remove(self, folder: Path) -> None:
        # Under another name first, so that nobody sees half an entry.
        doomed = Path(tempfile.mkdtemp(prefix=_REMOVED, dir=self.root))
        try:
            folder.rename(doomed / "entry")
        except FileNotFoundError:
            pass  # somebody else was faster
        finally:
            shutil.rmtree(doomed, ignore_errors=True)

    def _entries(self) -> Iterator[tuple[Path, float, int]]:
        """Folder, time of last use and size in bytes of each entry."""
        for folder, size in _sized_folders(self.root):
            if not folder.name.startswith("."):
                yield folder, _modified(folder / _MANIFEST), size

    def _binaries(self) -> Iterator[tuple[Path, float, int]]:
        """The same for each kernel of Triton, with the time when it was compiled."""
        for folder, size in _sized_folders(self.root / _BINARIES):
            yield folder, _modified(folder), size


@functools.lru_cache(maxsize=16)
def _cache_at(root: str) -> DiskCache:
    return DiskCache(Path(root))


def _require_private(root: Path) -> None:
    status = root.stat()
    if status.st_uid != os.geteuid():
        raise CacheDirectoryError(
            root=root,
            problem=f"belongs to user number {status.st_uid}, not to you ({os.geteuid()})",
            remedy="Set ATTNC_CACHE_DIR to a folder of yours",
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise CacheDirectoryError(
            root=root,
            problem=f"can be written by others (mode {stat.S_IMODE(status.st_mode):o})",
            remedy=f"Run `chmod go-w {root}`, or set ATTNC_CACHE_DIR to another folder",
        )


def _remove_own(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked child, which inherits what runs at exit
        shutil.rmtree(folder, ignore_errors=True)


def _verified(folder: Path, digest: str) -> Entry | None:
    """The entry in ``folder`` if every file is as its manifest says."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        if manifest["digest"] != digest:
            return None
        checksums: dict[str, str] = manifest["sha256"]
        for name, checksum in checksums.items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != checksum:
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Entry(folder, tuple(checksums))


def _write_manifest(folder: Path, digest: str) -> tuple[str, ...]:
    checksums = {}
    for file in sorted(folder.iterdir()):
        checksums[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
        _sync(file)
    manifest = folder / _MANIFEST
    manifest.write_text(json.dumps({"digest": digest, "sha256": checksums}, indent=1))
    _sync(manifest)
    _sync(folder)
    return tuple(checksums)


def _sized_folders(parent: Path) -> Iterator[tuple[Path, int]]:
    """Each folder in ``parent``, with the bytes of its files."""
    if not parent.is_dir():
        return
    for folder in list(parent.iterdir()):
        try:
            yield folder, sum(file.stat().st_size for file in folder.iterdir())
        except OSError:
            continue


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _touch(entry: Entry) -> None:
    try:
        os.utime(entry.folder / _MANIFEST)
    except OSError:
        return  # a read-only cache keeps no order of use


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
