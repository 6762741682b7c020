"""Forks wait for threads whose locks a child would never get.

A fork copies one thread. Locks that others hold stay locked in the child: those of Python around
modules that are being imported, of Jinja, of the loader of libraries. The first call of a function
takes all of these, so ``os.fork`` waits while one is prepared, though not while it waits itself for
a compiler or another process.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Seconds; whoever forks may hold what the other thread waits for, and must get on some time.
_PATIENCE = 10.0


class _Own(threading.local):
    depth = 0


_own = _Own()
_changed = threading.Condition(threading.RLock())  # one that a signal's handler may fork under
_n_inside = 0  # threads
_descriptors: set[int] = set()


@contextmanager
def forks_wait() -> Iterator[None]:
    """Other threads do not fork inside; this one may."""
    if not _own.depth:
        _count(1)
    _own.depth += 1
    try:
        yield
    finally:
        _own.depth -= 1
        if not _own.depth:
            _count(-1)


@contextmanager
def forks_pass() -> Iterator[None]:
    """Within ``forks_wait``: a part in which other threads may fork."""
    depth, _own.depth = _own.depth, 0
    if depth:
        _count(-1)
    try:
        yield
    finally:
        if depth:
            _count(1)
        _own.depth = depth


@contextmanager
def closed_in_forks(descriptor: int) -> Iterator[int]:
    """``descriptor``, closed in the end, and at once in children forked meanwhile.

    What it stands for would else last until the last of these ends.
    """
    _descriptors.add(descriptor)
    try:
        yield descriptor
    finally:
        if descriptor in _descriptors:  # else this is such a child
            _descriptors.discard(descriptor)
            os.close(descriptor)


def _count(change: int) -> None:
    global _n_inside
    with _changed:
        _n_inside += change
        _changed.notify_all()


def _before() -> None:
    _changed.acquire()
    _changed.wait_for(lambda: _n_inside <= bool(_own.depth), _PATIENCE)


def _after_in_parent() -> None:
    _changed.release()


def _after_in_child() -> None:
    global _changed, _n_inside
    _changed, _n_inside = threading.Condition(threading.RLock()), int(bool(_own.depth))
    for descriptor in _descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()


os.register_at_fork(
    before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
