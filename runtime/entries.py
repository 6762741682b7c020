"""What an entry of the disk cache is: a folder, and a manifest that tells whether it is whole.

An entry is named by a digest of everything its content depends on. The manifest has a checksum of
every other file; it is JSON, as everything is that the cache reads itself.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from attnc.runtime.private import is_private_folder

MANIFEST = "manifest.json"
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """Files of one kernel, verified: ``folder / name`` for each of ``names``."""

    folder: Path
    names: tuple[str, ...]


def is_entry_name(name: str) -> bool:
    """Whether an entry may have this name: a SHA-256 in hexadecimal.

    Whatever else lies in the folder of a cache is not the cache's, so it is never removed.
    """
    return _DIGEST.fullmatch(name) is not None


def verified(folder: Path, digest: str) -> Entry | None:
    """The entry in ``folder`` if it is the user's and every file is as its manifest says."""
    try:
        if not is_private_folder(folder):
            return None
        manifest = json.loads(_content(folder / MANIFEST))
        checksums: dict[str, str] = manifest["sha256"]
        if manifest["digest"] != digest or {file.name for file in folder.iterdir()} != {
            *checksums,
            MANIFEST,
        }:
            return None
        for name, checksum in checksums.items():
            if hashlib.sha256(_content(folder / name)).hexdigest() != checksum:
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return Entry(folder, tuple(checksums))


def _content(file: Path) -> bytes:
    """What ``file`` holds; an OSError unless it is a plain file of the user's."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise PermissionError(f"{file} is no plain file of this user")
        return opened.read()


def write_manifest(folder: Path, digest: str) -> Entry:
    """Makes an entry of the files in ``folder``, flushed to disk."""
    checksums = {}
    for file in sorted(folder.iterdir()):
        checksums[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
        sync(file)
    manifest = folder / MANIFEST
    text = json.dumps({"digest": digest, "sha256": checksums}, indent=1)
    manifest.write_text(text, encoding="utf-8")
    sync(manifest)
    sync(folder)
    return Entry(folder, tuple(checksums))


def sync(path: Path) -> None:
    """Flushes a file or folder to disk, where the file system can."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def sized_folders(parent: Path) -> Iterator[tuple[Path, int]]:
    """Each folder in ``parent``, with the bytes of its files."""
    if not parent.is_dir():
        return
    for folder in list(parent.iterdir()):
        try:
            yield folder, sum(file.stat().st_size for file in folder.iterdir())
        except OSError:
            continue
