"""Which order of tokens leaves a mask the fewest tiles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from attnc import checks
from attnc.analysis import analyze
from attnc.blocks import classify
from attnc.errors import LayoutArgumentError
from attnc.ir import TRUE
from attnc.layout.order import Layout, shown
from attnc.layout.orders import Sizes, dilated, morton, raster, sorted_by, tiled, transposed
from attnc.layout.pairs import Pairs, n_elements, pairs_of_some, visible_pairs
from attnc.mods import require_kind
from attnc.program import build_program

#: A new order has to save more tiles per tile of queries than this, or is not worth its copies:
#: q, k, v and out are read and written once more, which takes about half as long as one tile.
_WORTH = 0.5
_MAX_AXES = 3
_LARGEST_TILE = 512
_DILATIONS = range(2, 9)
#: Beyond these, some of the queries say which orders are worth counting.
_MAX_ELEMENTS = 1 << 23
_FINALISTS = 8


@dataclass(frozen=True)
class Candidate:
    """One order, and the tiles that a mask has in it.

    Attributes:
        layout: The order.
        n_tiles: All tiles, over the batches and heads that were asked about.
        n_visited: Those with a visible pair.
        n_full: Those without a hidden pair.
    """

    layout: Layout
    n_tiles: int
    n_visited: int
    n_full: int


@dataclass(frozen=True)
class Search:
    """What ``search`` found; ``str`` of it is a table.

    Attributes:
        best: The order of fewest visited tiles; the tokens' own where no other is worth it.
        candidates: All that were compared, best first.
    """

    best: Layout
    candidates: tuple[Candidate, ...]

    def __str__(self) -> str:
        width = max(len(candidate.layout.name) for candidate in self.candidates)
        lines = [f"  {'order':{width}}  visited     full"]
        for candidate in self.candidates:
            mark = "*" if candidate.layout is self.best else " "
            visited, full = (
                f"{n / max(candidate.n_tiles, 1):8.2%}"
                for n in (candidate.n_visited, candidate.n_full)
            )
            lines.append(f"{mark} {candidate.layout.name:{width}} {visited} {full}")
        return "\n".join(lines)


def search(
    mask: Any,
    grid: Sizes,
    *,
    B: int | None = None,
    H: int | None = None,
    BLOCK_SIZE: int | tuple[int, int] = 128,
    candidates: Sequence[Layout] | None = None,
) -> Search:
    """The order of tokens in which ``mask`` visits the fewest tiles, counted exactly.

    Compared are the tokens' own order, other orders of the axes, tiles of many shapes, groups of
    dilation, Morton order, and order by each vector of numbers that the mask captures with one
    entry per token.

    Args:
        mask: mask_mod of queries and keys that are the same tokens.
        grid: Sizes of the axes, slowest first, 1 to 3; or the number of tokens.
        B: Batch rows; 1 if None.
        H: Heads; 1 if None.
        BLOCK_SIZE: Tokens of a tile, or (queries, keys).
        candidates: Orders to compare instead; the tokens' own is always among them.

    Raises:
        LayoutArgumentError: The grid has no 1 to 3 axes, or a candidate another number of tokens.
    """
    require_kind(mask, "mask_mod", "mask")
    own = raster(grid)
    sizes = checks.items(grid) or [grid]
    if len(sizes) > _MAX_AXES:
        problem = f"give the sizes of 1 to {_MAX_AXES} axes"
        raise _wrong("grid", grid, problem)
    blocks = checks.sizes(BLOCK_SIZE, 2, least=1)
    if blocks is None:
        raise _wrong("BLOCK_SIZE", BLOCK_SIZE, "give a number of 1 or more, or two")
    block_m, block_n = blocks
    for name, size in (("B", B), ("H", H)):
        if size is not None and checks.size(size, least=1) is None:
            raise _wrong(name, size, "give a number of 1 or more, or None")
    n = own.n_tokens
    program = build_program(mask, None)
    expr = TRUE if program.mask is None else program.mask
    table = classify(
        expr,
        program.tensors,
        n_batch=B or 1,
        n_heads=H or 1,
        n_queries=n,
        n_keys=n,
        block_m=block_m,
        block_n=block_n,
    ).table
    first = Candidate(own, table.n_tiles, table.n_full + table.n_partial, table.n_full)
    given = None if candidates is None else checks.items(candidates)
    if candidates is not None and given is None:
        raise _wrong("candidates", candidates, "give a list of Layouts, or None")
    others = list(_orders(sizes, program.tensors)) if given is None else given
    for other in others:
        if not isinstance(other, Layout):
            raise _wrong("candidates", other, "give Layouts, as attnc.layout.tiled makes them")
        if other.n_tokens != n:
            problem = f"{other.name} is of {other.n_tokens} tokens, the grid of {n}"
            raise LayoutArgumentError(argument="candidates", value=other.name, problem=problem)
    if n_elements(table) <= _MAX_ELEMENTS:
        pairs = visible_pairs(expr, program.tensors, table)
        counted = (_counted(pairs, layout, block_m, block_n) for layout in others)
    else:
        some = pairs_of_some(expr, program.tensors, table.n_batch, table.n_heads, n)
        others.sort(key=lambda layout: _rank(_counted(some, layout, block_m, block_n)))
        finalists = others[:_FINALISTS]
        counted = (_analysed(mask, layout, B, H, (block_m, block_n)) for layout in finalists)
    found = [first, *counted]
    ranked = sorted(found, key=_rank)
    n_rows = first.n_tiles // max(1, table.n_kv_blocks)
    is_worth_it = first.n_visited - ranked[0].n_visited > _WORTH * n_rows
    return Search(ranked[0].layout if is_worth_it else own, tuple(ranked))


def _wrong(argument: str, value: Any, problem: str) -> LayoutArgumentError:
    return LayoutArgumentError(argument=argument, value=shown(value), problem=problem)


def _rank(candidate: Candidate) -> tuple[int, ...]:
    """Fewest visited tiles first, then most full ones, then the simplest rewriting."""
    return candidate.n_visited, -candidate.n_full, candidate.layout.n_steps


def _counted(pairs: Pairs, layout: Layout, block_m: int, block_n: int) -> Candidate:
    n_visited, n_full = pairs.tiles(layout.places.numpy(), block_m, block_n)
    n_tiles = pairs.n_rows * -(-pairs.n_tokens // block_m) * -(-pairs.n_tokens // block_n)
    return Candidate(layout, n_tiles, n_visited, n_full)


def _analysed(
    mask: Any, layout: Layout, B: int | None, H: int | None, block: tuple[int, int]
) -> Candidate:
    n = layout.n_tokens
    table = analyze(layout.mask(mask), B, H, n, n, block).table
    return Candidate(layout, table.n_tiles, table.n_full + table.n_partial, table.n_full)


def _orders(sizes: list[int], tensors: Sequence[torch.Tensor]) -> Iterator[Layout]:
    """Orders that may be better, each with tokens elsewhere than those before it."""
    seen = {tuple(range(math.prod(sizes)))} if math.prod(sizes) < 1 << 12 else set()
    for layout in itertools.chain(_of_grid(sizes), _of_numbers(math.prod(sizes), tensors)):
        key = tuple(layout.order.tolist()) if layout.n_tokens < 1 << 12 else None
        if key is None or key not in seen:
            if key is not None:
                seen.add(key)
            yield layout


def _of_grid(sizes: list[int]) -> Iterator[Layout]:
    axes = [axis for axis, size in enumerate(sizes) if size > 1]
    if len(axes) > 1:
        for order in itertools.permutations(range(len(sizes))):
            if order != tuple(range(len(sizes))):
                yield transposed(sizes, order)
        for tile in itertools.product(*(_parts(size) for size in sizes)):
            if 8 <= math.prod(tile) <= _LARGEST_TILE:
                yield tiled(sizes, tile)
                if math.prod(tile) > 16:
                    yield tiled(sizes, tile, shift=[cells // 2 for cells in tile])
        if all(size & (size - 1) == 0 for size in sizes):
            yield morton(sizes)
    for dilation in _DILATIONS:
        steps = [dilation if size % dilation == 0 else 1 for size in sizes]
        if max(steps) > 1:
            yield dilated(sizes, steps)


def _parts(size: int) -> list[int]:
    """Divisors that tiles may have, few: powers of two and the axis itself, or all if it has no
    powers of two."""
    divisors = [part for part in range(1, size + 1) if size % part == 0]
    return [part for part in divisors if part & (part - 1) == 0 or part == size] or divisors


def _of_numbers(n_tokens: int, tensors: Sequence[torch.Tensor]) -> Iterator[Layout]:
    for number, tensor in enumerate(tensors):
        if tensor.shape == (n_tokens,) and tensor.dtype is not torch.bool:
            yield sorted_by(tensor, f"sorted by captured tensor {number}")
