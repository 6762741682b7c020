"""Garbage collection, put off while much is made that will stay."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

_is_put_off = False


def _after_fork() -> None:
    if _is_put_off:  # perhaps by a thread that is not here
        gc.enable()


os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def collection_put_off() -> Iterator[None]:
    """No garbage is looked for inside.

    Imports make so many objects that the collector looks through all of torch's as well, which
    takes longer than loading a kernel.
    """
    global _is_put_off
    was_enabled = gc.isenabled()
    if was_enabled:
        _is_put_off = True
        gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
            _is_put_off = False
