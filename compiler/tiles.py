"""Tile sizes, warps and stages for each kind of machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from attnc.errors import HeadTooWideError
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
        max_registers: Of a thread (NVIDIA); 0 leaves them to the compiler, which may keep some in
            memory so that more programs run at once.
    """

    block_m: int
    block_n: int
    n_warps: int
    n_stages: int
    reason: str
    max_registers: int = 0

    def dividing(self, queries: int, keys: int) -> Tiles:
        """The largest tiles that are no larger and divide a block of ``queries x keys``, both
        multiples of 16."""
        block_m = _largest_divisor(queries, self.block_m)
        block_n = _largest_divisor(keys, self.block_n)
        if block_m == self.block_m and block_n == self.block_n:
            return self
        reason = f"{self.reason}; they must divide the mask's blocks of {queries} x {keys}"
        return replace(self, block_m=block_m, block_n=block_n, reason=reason)


def _largest_divisor(block: int, at_most: int) -> int:
    assert block % 16 == 0, "masks of other blocks are evaluated"
    size = at_most
    while block % size:
        size //= 2
    return size


_ONE_BY_ONE = "products of full precision run without tensor cores, one by one"
_ROWS = "without tensor cores a thread keeps whole rows of its operands in registers: few of them"


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

    Raises:
        HeadTooWideError: The smallest tiles exceed the shared memory of the GPU.
    """
    if isinstance(target, CpuTarget):
        return _cpu_tiles(target, dtype, head_dim, value_dim, short_queries)
    tiles = _gpu_tiles(target, dtype, head_dim, value_dim, short_queries)
    return _fitting(tiles, target, dtype, head_dim, value_dim, _shared_bytes)


def backward_tiles_for(
    target: Target, dtype: str, head_dim: int, value_dim: int, short_queries: bool
) -> tuple[Tiles, Tiles]:
    """Tiles for backward kernels: where tiles of queries go over keys, and the reverse.

    On CPUs there is one kernel, with the tiles of the forward one. Arguments and errors are those
    of ``tiles_for``.
    """
    if isinstance(target, CpuTarget):
        tiles = _cpu_tiles(target, dtype, head_dim, value_dim, short_queries)
        return tiles, tiles
    by_queries, by_keys = _backward_tiles(target, dtype, max(head_dim, value_dim), short_queries)
    return (
        _fitting(by_queries, target, dtype, head_dim, value_dim, _shared_bytes_of_gradients),
        _fitting(by_keys, target, dtype, head_dim, value_dim, _shared_bytes_of_gradients),
    )


def padded(width: int) -> int:
    """``width`` rounded up to what Triton's matrix products take."""
    return max(16, 1 << (width - 1).bit_length())


def _cpu_tiles(
    target: CpuTarget, dtype: str, head_dim: int, value_dim: int, short_queries: bool
) -> Tiles:
    reason = "a tile of scores and its operands fit the second-level cache"
    return Tiles(16 if short_queries else 64, 64, 0, 0, reason)


def _gpu_tiles(
    target: GpuTarget, dtype: str, head_dim: int, value_dim: int, short_queries: bool
) -> Tiles:
    width = max(head_dim, value_dim)
    block_m = 16 if short_queries else 64
    if target.backend == "interpret":
        return Tiles(block_m, 64, 4, 1, "few, large steps for the interpreter")
    # AMD keeps the operands of a pipeline in registers, and has 64 KiB of shared memory.
    n_stages = 1 if target.backend == "hip" else 2
    if dtype in ("float32", "float64"):
        has_cores = target.backend == "hip" or (dtype == "float64" and _capability(target) <= 90)
        if not has_cores:
            is_narrow = width <= 64
            block_m = 32 if is_narrow and not short_queries else 16
            # A pipeline of two stages spills registers where rows are long.
            if dtype == "float64":
                return Tiles(block_m, 16, 8, 1, _ROWS, 255)
            return Tiles(block_m, 32, 8, 2 if is_narrow else 1, _ROWS, 255)
        block_n = 32 if width <= 64 and dtype == "float32" else 16
        if target.backend == "cuda" and width > 64:
            block_m = min(block_m, 32)
        return Tiles(block_m, block_n, 4, n_stages, _ONE_BY_ONE)
    if short_queries:
        return Tiles(16, 64 if width <= 128 else 32, 4, n_stages, "at most 16 queries")
    if width <= 64:
        return _tiles_of_64(target)
    if width <= 128:
        return _tiles_of_128(target)
    n_warps = 4 if target.backend == "hip" else 8  # as in _tiles_of_128
    return Tiles(64, 32, n_warps, n_stages, "operands wider than 128 fill the registers")


def _tiles_of_64(target: GpuTarget) -> Tiles:
    """For 16-bit operands of width 64: the largest found that no mask of the tests spills."""
    if target.backend == "hip":
        return Tiles(128, 64, 4, 1, "fits the registers for a head_dim of 64 on AMD")
    if _capability(target) == 90:
        reason = "128 keys share what a tile costs each row; wgmma leaves registers for them"
        return Tiles(128, 128, 8, 2, reason)
    n_stages = 3 if _capability(target) >= 90 else 2
    return Tiles(128, 64, 8, n_stages, "fits the registers for a head_dim of 64")


def _tiles_of_128(target: GpuTarget) -> Tiles:
    """The same for a width of 128."""
    if target.backend == "hip":
        # More warps than rows give work to, 32 each, would compute the same scores twice.
        return Tiles(128, 32, 4, 1, "fits the registers for a head_dim of 128 on AMD")
    if _capability(target) == 90:
        reason = "wgmma reads keys from shared memory, which leaves registers for 64 of them"
        return Tiles(128, 64, 8, 2, reason)
    return Tiles(128, 32, 8, 2, "fits the registers for a head_dim of 128")


def _backward_tiles(
    target: GpuTarget, dtype: str, width: int, short_queries: bool
) -> tuple[Tiles, Tiles]:
    if target.backend == "interpret":
        tiles = Tiles(16 if short_queries else 64, 64, 4, 1, "few, large steps for the interpreter")
        return tiles, tiles
    n_stages = 1 if target.backend == "hip" else 2
    if dtype in ("float32", "float64"):
        block_n = 32 if dtype == "float32" else 16
        if target.backend == "cuda":
            # Told no limit, the compiler spills a few bytes to run one more program at once; told
            # one, it fills it with rows of float32 queries and spills others.
            by_queries = Tiles(16, 16, 8, 2, _ROWS, 0 if dtype == "float32" else 255)
            return by_queries, Tiles(16, block_n, 8, 1, _ROWS, 255)
        tiles = Tiles(16 if short_queries else 32, block_n, 4, n_stages, _ONE_BY_ONE)
        return tiles, tiles
    if width > 128 and target.backend == "cuda":
        reason = "operands wider than 128: their rows stay in registers, or two accumulators"
        block_m = 16 if short_queries else 32
        return Tiles(16, 32, 8, 2, reason), Tiles(block_m, 32, 8, 2, reason)
    if short_queries or width > 128:
        reason = "at most 16 queries" if short_queries else "operands wider than 128"
        tiles = Tiles(16 if short_queries else 32, 32, 4, n_stages, reason)
        return tiles, tiles
    return _tiles_of_queries(target, width), _tiles_of_keys(target, width)


def _tiles_of_queries(target: GpuTarget, width: int) -> Tiles:
    """For the gradients of queries: the largest found that no score_mod of the tests spills."""
    reason = f"fits the registers for a head_dim of {64 if width <= 64 else 128}"
    if target.backend == "hip":
        return Tiles(64, 64 if width <= 64 else 32, 4, 1, f"{reason} on AMD")
    if _capability(target) >= 90:
        return Tiles(128, 64, 8, 2, reason)
    return Tiles(128, 32, 8, 2, reason) if width <= 64 else Tiles(32, 64, 8, 2, reason)


def _tiles_of_keys(target: GpuTarget, width: int) -> Tiles:
    """The same for those of keys and values, which take twice the accumulators."""
    is_narrow = width <= 64
    reason = f"two accumulators fit the registers for a head_dim of {64 if is_narrow else 128}"
    if target.backend == "hip":
        return Tiles(64 if is_narrow else 32, 64, 4, 1, f"{reason} on AMD")
    if is_narrow and _capability(target) == 90:
        reason += "; wgmma takes 64 keys for each of two groups of warps"
        return Tiles(32, 128, 8, 2, reason)
    if is_narrow and _capability(target) > 90:
        return Tiles(64, 64, 8, 2, reason)
    return Tiles(32, 32, 4 if is_narrow else 8, 2, reason, 255)


def _fitting(
    tiles: Tiles,
    target: GpuTarget,
    dtype: str,
    head_dim: int,
    value_dim: int,
    shared_bytes: Callable[[Tiles, GpuTarget, str, int, int], int],
) -> Tiles:
    """``tiles``, cut until they fit the shared memory: stages first, then queries, then keys."""
    limit = _shared_limit(target)
    while (needed := shared_bytes(tiles, target, dtype, head_dim, value_dim)) > limit:
        reason = f"wider heads need {limit >> 10} KiB of shared memory with larger tiles"
        if tiles.n_stages > 1:
            tiles = replace(tiles, n_stages=tiles.n_stages - 1, reason=reason)
        elif tiles.block_m > 16:
            tiles = replace(tiles, block_m=tiles.block_m // 2, reason=reason)
        elif tiles.block_n > 16:
            tiles = replace(tiles, block_n=tiles.block_n // 2, reason=reason)
        else:
            raise HeadTooWideError(
                width=max(head_dim, value_dim),
                dtype=dtype,
                target=target.name,
                needed=needed >> 10,
                limit=limit >> 10,
            )
    return tiles


def _shared_bytes(
    tiles: Tiles, target: GpuTarget, dtype: str, head_dim: int, value_dim: int
) -> int:
    """An upper bound of what a kernel takes: queries, weights, and the tiles of k and v in flight.

    Found by compiling kernels of widths 16 to 512 in every dtype.
    """
    head, value = padded(head_dim), padded(value_dim)
    if target.backend == "hip":  # weights are in registers; k and v take turns in one place
        elements = tiles.block_m * head + tiles.block_n * max(head, value)
    else:
        in_flight = tiles.n_stages * tiles.block_n * (head + value)
        elements = tiles.block_m * (head + tiles.block_n) + in_flight
    return elements * {"float64": 8, "float32": 4}.get(dtype, 2)


def _shared_bytes_of_gradients(
    tiles: Tiles, target: GpuTarget, dtype: str, head_dim: int, value_dim: int
) -> int:
    """The same for both backward kernels: what stays, what is in flight, weights and gradients."""
    widths = padded(head_dim) + padded(value_dim)
    large, small = max(tiles.block_m, tiles.block_n), min(tiles.block_m, tiles.block_n)
    in_flight = max(tiles.n_stages * large + small, large + tiles.n_stages * small)
    elements = in_flight * widths + 2 * large * small
    return elements * {"float64": 8, "float32": 4}.get(dtype, 2)


def _shared_limit(target: GpuTarget) -> int:
    """Shared memory that one program may take, in bytes.

    Source: CUDA C++ programming guide, table of compute capabilities; AMD CDNA 3 ISA, LDS.
    """
    match target.backend:
        case "interpret":
            return 1 << 40
        case "hip":
            return 64 << 10
        case "cuda":
            kib = {70: 96, 75: 64, 80: 163, 87: 163, 90: 227, 100: 227, 103: 227, 110: 227}
            return kib.get(_capability(target), 99) << 10


def _capability(target: GpuTarget) -> int:
    assert isinstance(target.arch, int)
    return target.arch
