"""Tile sizes, warps and stages for each kind of machine."""

from __future__ import annotations

from dataclasses import dataclass, replace

from attnc.errors import BlockSizeError
from attnc.target import CpuTarget, GpuTarget, Target


@dataclass(frozen=True)
class Tiles:
    """How a kernel cuts its work.

    Attributes:
        block_m: Queries per tile.
        block_n: Keys per tile.
        n_warps: Warps per program; 0 on CPUs.
        n_stages: Depth of the software pipeline; 0 on CPUs.
        reason: Why these, for people.
    """

    block_m: int
    block_n: int
    n_warps: int
    n_stages: int
    reason: str

    def dividing(self, queries: int, keys: int) -> Tiles:
        """The largest tiles that are no larger and divide a block of ``queries x keys``.

        Raises:
            BlockSizeError: No power of two from 16 up divides the block.
        """
        block_m = _largest_divisor(queries, self.block_m)
        block_n = _largest_divisor(keys, self.block_n)
        if block_m == self.block_m and block_n == self.block_n:
            return self
        reason = f"{self.reason}; they must divide the mask's blocks of {queries} x {keys}"
        return replace(self, block_m=block_m, block_n=block_n, reason=reason)


def _largest_divisor(block: int, at_most: int) -> int:
    size = at_most
    while size >= 16:
        if block % size == 0:
            return size
        size //= 2
    raise BlockSizeError(block=block)


def tiles_for(
    target: Target, dtype: str, head_dim: int, value_dim: int, short_queries: bool
) -> Tiles:
    """Tiles for a forward kernel.

    Args:
        target: The machine.
        dtype: Storage dtype of q, k and v.
        head_dim: Width of q and k.
        value_dim: Width of v.
        short_queries: There are at most 16 queries.
    """
    if isinstance(target, CpuTarget):
        return _cpu_tiles(target, dtype, head_dim, value_dim, short_queries)
    return _gpu_tiles(target, dtype, head_dim, value_dim, short_queries)


def _cpu_tiles(
    target: CpuTarget, dtype: str, head_dim: int, value_dim: int, short_queries: bool
) -> Tiles:
    reason = "a tile of scores and its operands fit the second-level cache"
    return Tiles(16 if short_queries else 64, 64, 0, 0, reason)


def _gpu_tiles(
    target: GpuTarget, dtype: str, head_dim: int, value_dim: int, short_queries: bool
) -> Tiles:
    width = max(head_dim, value_dim)
    if target.backend == "interpret":
        return Tiles(16 if short_queries else 64, 64, 4, 1, "few, large steps for the interpreter")
    if dtype in ("float32", "float64"):
        n = 32 if width <= 64 and dtype == "float32" else 16
        return Tiles(16 if short_queries else 64, n, 4, 2, "full-precision operands are wide")
    if short_queries:
        return Tiles(16, 64, 4, 2, "at most 16 queries")
    if width <= 64:
        return Tiles(128, 64, 4, 3, "head_dim <= 64")
    if width <= 128:
        return Tiles(128, 64, 8, 2, "head_dim <= 128")
    return Tiles(64, 32, 4, 2, "operands wider than 128 fill the registers")
