"""Temporary folders that are known to be alive, so that those of killed processes can go at once.

Who makes such a folder keeps it open and locked (``flock``). The system takes the lock away when
the process ends, however it ends: a folder that can be locked has nobody who works in it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from attnc.runtime.forks import closed_in_forks
from attnc.runtime.locks import locked

_STALE_SECONDS = 3600.0  # where folders cannot be locked; a build that takes longer was killed


@dataclass(frozen=True)
class HeldFolder:
    """A new folder with a lock on it, until ``release``."""

    path: Path
    _descriptor: int

    def release(self) -> None:
        os.close(self._descriptor)

    @contextmanager
    def until_end(self) -> Iterator[Path]:
        """The folder, removed and released in the end; children forked meanwhile do not hold it."""
        with closed_in_forks(self._descriptor):
            try:
                yield self.path
            finally:
                shutil.rmtree(self.path, ignore_errors=True)


def make_held(parent: Path, prefix: str) -> HeldFolder:
    """A new folder in ``parent`` that no ``sweep`` removes; only the user can enter it."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # a sweep saw it before it was locked
        if locked(descriptor) is not False and path.exists():
            return HeldFolder(path, descriptor)
        os.close(descriptor)


def sweep(parent: Path, *prefixes: str) -> None:
    """Removes the folders in ``parent`` so named that belong to the user and to no process."""
    for folder in [f for prefix in prefixes for f in parent.glob(f"{prefix}*")]:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            status = os.fstat(descriptor)
            is_free = locked(descriptor)
            if is_free is None:
                is_free = status.st_mtime < time.time() - _STALE_SECONDS
            if is_free and status.st_uid == os.geteuid():
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)
