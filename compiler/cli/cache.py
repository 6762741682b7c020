"""``attnc cache``: what the disk cache holds."""

from __future__ import annotations

from attnc.runtime.cache import disk_cache


def info() -> None:
    """Prints folder, number of kernels and sizes."""
    found = disk_cache().info()
    print(f"folder   {found.root}")
    print(f"kernels  {found.n_entries}")
    print(f"size     {_readable(found.size)} of at most {_readable(found.limit)}")


def clear() -> None:
    """Removes every kernel and says how many there were."""
    removed = disk_cache().clear()
    print(f"removed {removed.n_entries} kernels, {_readable(removed.size)}, from {removed.root}")


def _readable(n_bytes: int) -> str:
    size = float(n_bytes)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
