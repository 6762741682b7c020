"""The cost of one call."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What one call takes, over all batches and heads.

    Attributes:
        block_m, block_n: Tiles of the kernel, in tokens.
        n_full, n_partial, n_empty: Its tiles by class, exact.
        flops: Operations of the matrix products over the pairs of the visited tiles, counting a
            multiplication and an addition as two.
        dense_flops: The same if every tile were visited.
        n_bytes: Read and written by this schedule of tiles: queries and results once per tile of
            queries, keys and values once per visited tile, and the table of tiles.
        seconds: Predicted time, or None where this machine cannot run the kernel.
        dense_seconds: The same without a mask, every tile FULL.
        is_bound: The seconds are what the machine's published peaks allow at the best; else what
            rates measured on this machine predict.
    """

    block_m: int
    block_n: int
    n_full: int
    n_partial: int
    n_empty: int
    flops: float
    dense_flops: float
    n_bytes: float
    seconds: float | None
    dense_seconds: float | None
    is_bound: bool

    @property
    def n_visited(self) -> int:
        return self.n_full + self.n_partial

    @property
    def skipped(self) -> float:
        """Share of the tiles that are skipped, from 0 to 1; 0 if there are none."""
        n_tiles = self.n_visited + self.n_empty
        return self.n_empty / n_tiles if n_tiles else 0.0

    @property
    def intensity(self) -> float:
        """Operations per byte; 0 if nothing is read."""
        return self.flops / self.n_bytes if self.n_bytes else 0.0

    @property
    def speedup(self) -> float | None:
        """How many times as long the call would take without a mask; None without seconds."""
        if self.seconds is None or self.dense_seconds is None:
            return None
        return self.dense_seconds / self.seconds
