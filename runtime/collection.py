"""Garbage collection, put off while much is made that will stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_put_off() -> Iterator[None]:
    """No garbage is looked for inside.

    Imports make so many objects that the collector looks through all of torch's as well, which
    takes longer than loading a kernel.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
