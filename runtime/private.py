"""Whose folder it is that code is run from."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from attnc.errors import CacheDirectoryError

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def make_private(root: Path) -> None:
    """Makes ``root`` and what is missing above it, for the user alone whatever the umask is."""
    for folder in (*reversed(root.parents), root):
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder) from None


def is_private_folder(path: Path) -> bool:
    """Whether ``path`` is a real folder of the user's that nobody else can write to."""
    status = path.lstat()
    is_mine = status.st_uid == os.geteuid() and not status.st_mode & _OTHERS
    return stat.S_ISDIR(status.st_mode) and is_mine


def require_private(root: Path) -> None:
    """Does nothing if only the user can put code into ``root``, or another folder in its place.

    Raises:
        CacheDirectoryError: It belongs to, or can be written by, somebody else; or everybody may
            rename a folder above it.
    """
    status = root.stat()
    if status.st_uid != os.geteuid():
        raise CacheDirectoryError(
            root=root,
            problem=f"belongs to user number {status.st_uid}, not to you ({os.geteuid()})",
            remedy="Set ATTNC_CACHE_DIR to a folder of yours",
        )
    if status.st_mode & _OTHERS:
        raise CacheDirectoryError(
            root=root,
            problem=f"can be written by others (mode {stat.S_IMODE(status.st_mode):o})",
            remedy=f"Run `chmod go-w {root}`, or set ATTNC_CACHE_DIR to another folder",
        )
    for parent in root.resolve().parents:
        mode = parent.stat().st_mode
        # In a sticky folder, as /tmp, only its owner can rename a folder.
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise CacheDirectoryError(
                root=root,
                problem=f"lies in {parent}, where everybody may put another folder in its place "
                f"(mode {stat.S_IMODE(mode):o})",
                remedy=f"Run `chmod +t {parent}`, or set ATTNC_CACHE_DIR to another folder",
            )
