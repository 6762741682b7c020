"""What is known about a mask at given lengths, without running a kernel: ``attnc.analyze``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from attnc.blocks import Geometry, classify, witnesses
from attnc.errors import AnalysisArgumentError
from attnc.intervals import Boxes, Facts, Truth, truths_of
from attnc.ir import Binary, Compare, Const, DType, Expr, Select, Unary
from attnc.lift import lift
from attnc.mods import require_kind
from attnc.printer import format_expr
from attnc.run_table import Kind, RunTable, expanded
from attnc.simplify import simplify
from attnc.trace import Location, SlotTable, trace_mask

if TYPE_CHECKING:
    from attnc.bounds import ClosedForm

_SHOWN = {Kind.EMPTY: "·", Kind.PARTIAL: "▒", Kind.FULL: "█"}


@dataclass(frozen=True)
class ConditionTruth:
    """A condition of the predicate on one tile: its text, its truth there, the user's line."""

    text: str
    truth: Truth
    location: Location | None

    def __str__(self) -> str:
        word = {
            Truth.NEVER: "never holds",
            Truth.MAYBE: "may hold or not",
            Truth.ALWAYS: "always holds",
        }[self.truth]
        place = f"    {self.location}: {self.location.source}" if self.location else ""
        return f"  {self.text}    {word}{place}"


@dataclass(frozen=True)
class Why:
    """Why a tile has its kind; ``str`` of it is made to be read.

    ``visible``, ``hidden``: a pair (q_idx, kv_idx) of the tile where the mask is true, and one
    where it is false; None where there is none.
    """

    q_block: int
    kv_block: int
    b: int
    h: int
    queries: range
    keys: range
    kind: Kind
    conditions: tuple[ConditionTruth, ...]
    visible: tuple[int, int] | None
    hidden: tuple[int, int] | None

    def __str__(self) -> str:
        lines = [
            (
                f"Tile ({self.q_block}, {self.kv_block}) of b={self.b}, h={self.h} is "
                f"{self.kind.name}: q_idx {self.queries.start}..{self.queries.stop - 1}, "
                f"kv_idx {self.keys.start}..{self.keys.stop - 1}."
            ),
            *(str(condition) for condition in self.conditions),
        ]
        for pair, word in ((self.visible, "visible"), (self.hidden, "hidden")):
            if pair is None:
                lines.append(f"  no pair is {word}")
            else:
                lines.append(f"  q_idx={pair[0]}, kv_idx={pair[1]} is {word}")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Analysis:
    """Tile classes of a mask at given lengths, and why they are what they are.

    ``expr`` is the predicate as traced, ``table`` its tile classes; ``n_evaluated`` counts the
    tiles whose elements had to be evaluated beyond two witnesses. Batches and heads that the
    mask does not tell apart are counted once.
    """

    expr: Expr
    table: RunTable
    n_evaluated: int
    locations: Mapping[Expr, Location] = field(repr=False)
    _facts: Facts = field(repr=False)
    _geometry: Geometry = field(repr=False)

    @property
    def n_empty(self) -> int:
        return self.table.n_empty

    @property
    def n_partial(self) -> int:
        return self.table.n_partial

    @property
    def n_full(self) -> int:
        return self.table.n_full

    @property
    def sparsity(self) -> float:
        """Share of tiles that are EMPTY, from 0 to 1; 0 if there are no tiles."""
        return self.n_empty / self.table.n_tiles if self.table.n_tiles else 0.0

    @property
    def flops_saved(self) -> float:
        """Share of all pairs (query, key) that lie in EMPTY tiles, from 0 to 1."""
        table = self.table
        n_pairs = table.n_batch * table.n_heads * table.n_queries * table.n_keys
        if not n_pairs:
            return 0.0
        first = table.run_rows() % table.n_q_blocks * table.block_m
        heights = np.minimum(table.block_m, table.n_queries - first)
        stops = np.minimum(table.stops.astype(np.int64) * table.block_n, table.n_keys)
        widths = stops - table.starts.astype(np.int64) * table.block_n
        return 1.0 - int((heights * widths).sum()) / n_pairs

    @cached_property
    def bounds(self) -> ClosedForm | None:
        """Loop bounds in closed form for tiles of this size, or None if there are none.

        They are over ``p0, p1, ...`` for the constants of the mask, as in the kernels.
        """
        from attnc.bounds import solve

        (lifted,) = lift((simplify(self.expr),)).exprs
        assert lifted is not None
        return solve(lifted, self.table.block_m, self.table.block_n)

    def kind(self, q_block: int, kv_block: int, b: int = 0, h: int = 0) -> Kind:
        """Class of one tile.

        Raises:
            AnalysisArgumentError: There is no such tile.
        """
        self._check_tile(q_block, kv_block, b, h)
        table = self.table
        group = min(b, table.n_batch - 1) * table.n_heads + min(h, table.n_heads - 1)
        row = group * table.n_q_blocks + q_block
        first, last = (int(x) for x in table.offsets[row : row + 2])
        run = first + int(np.searchsorted(table.starts[first:last], kv_block, "right")) - 1
        if run < first or kv_block >= table.stops[run]:
            return Kind.EMPTY
        return Kind(int(table.kinds[run]))

    def why(self, q_block: int, kv_block: int, b: int = 0, h: int = 0) -> Why:
        """What makes a tile EMPTY, PARTIAL or FULL; print it.

        Raises:
            AnalysisArgumentError: There is no such tile.
        """
        kind = self.kind(q_block, kv_block, b, h)
        table = self.table
        queries = _tokens(q_block, table.block_m, table.n_queries)
        keys = _tokens(kv_block, table.block_n, table.n_keys)
        box = Boxes(*(_interval(x) for x in (range(b, b + 1), range(h, h + 1), queries, keys)))
        conditions = _conditions(self.expr)
        truths = truths_of(conditions, box, self._facts)
        visible, hidden = witnesses(self.expr, b, h, q_block, kv_block, self._geometry, self._facts)
        return Why(
            q_block,
            kv_block,
            b,
            h,
            queries,
            keys,
            kind,
            tuple(
                ConditionTruth(
                    format_expr(condition, max_length=100),
                    Truth(int(truth[0])),
                    self.locations.get(condition),
                )
                for condition, truth in zip(conditions, truths, strict=True)
            ),
            visible,
            hidden,
        )

    def picture(self, width: int = 64, b: int = 0, h: int = 0) -> str:
        """The tiles of one batch and head: ``█`` FULL, ``▒`` PARTIAL, ``·`` EMPTY.

        Rows are blocks of queries. At most ``width`` characters per row: beyond that a character
        stands for a square of tiles, ``█`` if all are FULL and ``·`` if all are EMPTY.
        """
        kinds = _downsampled(self.table, width, b, h)
        return "\n".join("".join(_SHOWN[Kind(int(kind))] for kind in row) for row in kinds)

    def __str__(self) -> str:
        table = self.table
        lines = [
            (
                f"{table.n_queries} queries x {table.n_keys} keys, "
                f"tiles of {table.block_m} x {table.block_n}"
            ),
            (
                f"{self.n_full} FULL, {self.n_partial} PARTIAL, {self.n_empty} EMPTY "
                f"({self.sparsity:.1%}); {self.n_evaluated} evaluated by element"
            ),
        ]
        return "\n".join(lines)

    def _check_tile(self, q_block: int, kv_block: int, b: int, h: int) -> None:
        geometry = self._geometry
        for name, value, limit in (
            ("q_block", q_block, geometry.n_q_blocks),
            ("kv_block", kv_block, geometry.n_kv_blocks),
            ("b", b, geometry.n_batch),
            ("h", h, geometry.n_heads),
        ):
            if not 0 <= value < limit:
                raise AnalysisArgumentError(
                    name=name, value=value, problem=f"it must be in range({limit})"
                )


def analyze(
    mask_mod: Callable[..., Any] | Expr,
    B: int | None,
    H: int | None,
    Q_LEN: int,
    KV_LEN: int,
    BLOCK_SIZE: int | tuple[int, int] = 128,
    *,
    tensors: Sequence[torch.Tensor] = (),
) -> Analysis:
    """Tile classes of a mask, its loop bounds, and why each tile is what it is.

    Args:
        mask_mod: ``(b, h, q_idx, kv_idx) -> bool``, or an expression over ``tensors``.
        B: Batches, or None where the mask is the same for all.
        H: Query heads, or None where the mask is the same for all.
        Q_LEN: Number of queries.
        KV_LEN: Number of keys.
        BLOCK_SIZE: Tokens per block, one number or (queries, keys).
        tensors: Captured tensors by slot, for an expression only.

    Raises:
        TraceError: The function does something a kernel cannot do.
        AnalysisArgumentError: A length is negative or a block size not positive.
    """
    blocks = (BLOCK_SIZE, BLOCK_SIZE) if isinstance(BLOCK_SIZE, int) else tuple(BLOCK_SIZE)
    if len(blocks) != 2 or min(blocks) <= 0:
        raise AnalysisArgumentError(
            name="BLOCK_SIZE", value=BLOCK_SIZE, problem="give one positive number or two"
        )
    for name, value in (("Q_LEN", Q_LEN), ("KV_LEN", KV_LEN), ("B", B or 0), ("H", H or 0)):
        if value < 0:
            raise AnalysisArgumentError(name=name, value=value, problem="it must not be negative")
    locations: Mapping[Expr, Location] = {}
    if isinstance(mask_mod, Expr):
        expr = mask_mod
    else:
        require_kind(mask_mod, "mask_mod", "mask_mod")
        slots = SlotTable()
        traced = trace_mask(mask_mod, slots, with_locations=True)
        expr, locations, tensors = traced.expr, traced.locations, tuple(slots.tensors)
    n_batch, n_heads = (1 if n is None else n for n in (B, H))
    geometry = Geometry(n_batch, n_heads, Q_LEN, KV_LEN, *blocks)
    facts = Facts(tensors)
    result = classify(
        simplify(expr),
        tensors,
        n_batch=n_batch,
        n_heads=n_heads,
        n_queries=Q_LEN,
        n_keys=KV_LEN,
        block_m=blocks[0],
        block_n=blocks[1],
        facts=facts,
    )
    return Analysis(expr, result.table, result.n_evaluated, locations, facts, geometry)


def _conditions(expr: Expr) -> tuple[Expr, ...]:
    """The comparisons (and other conditions without operands) that ``expr`` combines, in order."""
    found: dict[Expr, None] = {}
    stack = [expr]
    while stack:
        node = stack.pop()
        if node in found:
            continue
        match node:
            case Binary() | Select() | Unary() if all(
                child.dtype is DType.BOOL for child in node.children
            ):
                stack.extend(reversed(node.children))
            case Compare(_, x, y) if x.dtype is DType.BOOL:
                stack.extend((y, x))
            case Const():
                continue
            case _:
                found[node] = None
    return tuple(found)


def _tokens(block: int, size: int, length: int) -> range:
    return range(block * size, min((block + 1) * size, length))


def _interval(numbers: range) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.array([numbers.start]), np.array([numbers.stop - 1])


def _downsampled(table: RunTable, width: int, b: int, h: int) -> NDArray[np.int8]:
    """Kinds of squares of tiles, at most ``width`` to a row: (n_rows, n_columns)."""
    factor = max(-(-table.n_kv_blocks // max(width, 1)), 1)
    group = min(b, table.n_batch - 1) * table.n_heads + min(h, table.n_heads - 1)
    shape = -(-table.n_q_blocks // factor), -(-table.n_kv_blocks // factor)
    first, last = group * table.n_q_blocks, (group + 1) * table.n_q_blocks
    runs = slice(int(table.offsets[first]), int(table.offsets[last]))
    rows = table.run_rows()[runs] - first
    starts, stops = table.starts[runs].astype(np.int64), table.stops[runs].astype(np.int64)
    run, column = expanded(starts // factor, (stops - 1) // factor + 1)
    overlap = np.minimum(stops[run], (column + 1) * factor)
    overlap = overlap - np.maximum(starts[run], column * factor)
    n_full, n_visited = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    np.add.at(n_visited, (rows[run] // factor, column), overlap)
    is_full = table.kinds[runs][run] == Kind.FULL
    np.add.at(n_full, (rows[run] // factor, column), overlap * is_full)
    heights = np.minimum(factor, table.n_q_blocks - np.arange(shape[0]) * factor)
    widths = np.minimum(factor, table.n_kv_blocks - np.arange(shape[1]) * factor)
    n_tiles = heights[:, None] * widths
    kinds = np.where(n_visited == 0, Kind.EMPTY, Kind.PARTIAL)
    return np.where(n_full == n_tiles, Kind.FULL, kinds).astype(np.int8)
