"""Locks on files and folders, which the system takes away when a process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attnc.runtime.forks import closed_in_forks, forks_pass

_POLL_SECONDS = 0.02


def locked(descriptor: int) -> bool | None:
    """Whether what is open there is now locked by us; None where nothing can be locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextmanager
def alone(file: Path, patience: float) -> Iterator[None]:
    """Runs alone among the threads and processes that ask for ``file``, in a folder made for it.

    Not alone where files cannot be locked, and after waiting for ``patience`` seconds.

    Raises:
        OSError: The file cannot be made or opened.
    """
    end = time.monotonic() + patience
    while True:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(file, flags, 0o600)
        except FileNotFoundError:
            continue  # somebody has just removed the folder
        with closed_in_forks(descriptor):
            is_ours = locked(descriptor)
            is_there = os.fstat(descriptor).st_nlink > 0  # else others lock a new one
            if is_ours is None or (is_ours and is_there) or time.monotonic() >= end:
                if is_ours:
                    os.utime(descriptor)
                yield
                return
        with forks_pass():
            time.sleep(_POLL_SECONDS)
