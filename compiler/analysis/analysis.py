"""What is known about a mask at given lengths, without running a kernel: ``attnc.analyze``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from attnc import checks
from attnc.analysis.counts import n_pairs_by_kind, share_text
from attnc.analysis.explain import Predicate, why_of
from attnc.analysis.given import given_by
from attnc.analysis.names import captured_names
from attnc.analysis.picture import Picture, picture_of
from attnc.analysis.strips import tiles_at
from attnc.analysis.why import Why
from attnc.blocks import Geometry, classify
from attnc.errors import AnalysisArgumentError
from attnc.intervals import Facts
from attnc.ir import Expr
from attnc.lift import lift
from attnc.mods import require_kind
from attnc.run_table import Kind, RunTable
from attnc.simplify import simplify
from attnc.trace import Location, SlotTable, trace_mask

if TYPE_CHECKING:
    from attnc.block_mask import BlockMask
    from attnc.bounds import ClosedForm
    from attnc.cost import Cost

_SIZE = f"give a whole number from 0 to {checks.LONGEST}"


@dataclass(frozen=True, eq=False)
class Analysis:
    """Tile classes of a mask at given lengths, and why they are what they are.

    Batches and heads that the mask does not tell apart are counted once. Tiles have the numbers
    ``q_block`` and ``kv_block``, from 0, of the batch ``b`` and the head ``h``.

    Attributes:
        expr: The predicate as traced; of a BlockMask its mask_mod.
        table: The runs of tiles of one class, per row of tiles.
        n_evaluated: Tiles whose elements had to be evaluated beyond two witnesses.
        locations: The user's line that each expression comes from.
        names: The user's names of captured tensors, by slot number.
        is_given: The tiles are those that a BlockMask lists.
    """

    expr: Expr
    table: RunTable
    n_evaluated: int
    locations: Mapping[Expr, Location] = field(repr=False)
    _facts: Facts = field(repr=False)
    _geometry: Geometry = field(repr=False)
    names: Mapping[int, str] = field(default_factory=dict, repr=False)
    is_given: bool = False

    @property
    def n_empty(self) -> int:
        """Tiles without a visible pair."""
        return self.table.n_empty

    @property
    def n_partial(self) -> int:
        """Tiles with visible and hidden pairs."""
        return self.table.n_partial

    @property
    def n_full(self) -> int:
        """Tiles where every pair is visible."""
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
        return 1.0 - sum(n_pairs_by_kind(table)) / n_pairs

    @cached_property
    def bounds(self) -> ClosedForm | None:
        """Loop bounds in closed form for tiles of this size, or None if there are none.

        They are over ``p0, p1, ...`` for the constants of the mask, as in the kernels.
        """
        from attnc.bounds import solve

        (lifted,) = lift((simplify(self.expr),)).exprs
        assert lifted is not None
        return solve(lifted, self.table.block_m, self.table.block_n)

    @cached_property
    def _predicate(self) -> Predicate:
        return Predicate(self.expr, self.locations, self.names)

    def kind(self, q_block: int, kv_block: int, b: int = 0, h: int = 0) -> Kind:
        """Class of the tile (``q_block``, ``kv_block``) of batch ``b`` and head ``h``.

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

        Arguments are those of ``kind``: ``q_block``, ``kv_block``, ``b``, ``h``.

        Raises:
            AnalysisArgumentError: There is no such tile.
        """
        self._check_tile(q_block, kv_block, b, h)
        ((_, why),) = self.whys([(q_block, kv_block)], b, h)
        return why

    def whys(
        self, tiles: Iterable[tuple[int, int]], b: int = 0, h: int = 0
    ) -> Iterator[tuple[tuple[int, int], Why]]:
        """Each of ``tiles``, (q_block, kv_block), with its ``why``; neighbours in a row are quick.

        All are of batch ``b`` and head ``h``.

        Raises:
            AnalysisArgumentError: There is no such tile.
        """
        places = sorted(set(tiles))
        for place in places:
            self._check_tile(*place, b, h)
        table = self.table
        lengths, blocks = (table.n_queries, table.n_keys), (table.block_m, table.block_n)
        for row, column, tile in tiles_at(places, b, h, self._facts.tensors, lengths, blocks):
            kind = self.kind(row, column, b, h)
            found = why_of(self._predicate, tile, row, column, kind, is_given=self.is_given)
            yield (row, column), found

    def cost(
        self,
        head_dim: int = 64,
        *,
        value_dim: int | None = None,
        kv_heads: int | None = None,
        dtype: str = "float32",
        score: Callable[..., Any] | None = None,
        target: str = "cpu",
        n_threads: int | None = None,
        backward: bool = False,
    ) -> Cost:
        """What one call with this mask takes, in tiles, operations, bytes and seconds.

        Batches and query heads are those that the analysis was made for. The tiles are those of
        the kernel, which may be smaller than the analysis's own. The first use on a machine
        compiles and times a few kernels (seconds); their rates are kept with the compiled kernels.

        Args:
            head_dim: Width of q and k.
            value_dim: Width of v; ``head_dim`` if None.
            kv_heads: Heads of k and v; those of q if None.
            dtype: Of q, k and v: float32, bfloat16, float16 or float64.
            score: score_mod, or None.
            target: "cpu" for this machine, or sm_80, sm_90, sm_100, gfx942, where the seconds are
                what published peaks allow at the best, no measurement.
            n_threads: On CPUs; PyTorch's number of them if None.
            backward: The pass that computes the gradients of q, k and v, instead of the forward one.

        Raises:
            AnalysisArgumentError: No such target or dtype, or a width or number that is not
                positive.
        """
        from attnc.cost.ask import cost_of_analysis

        geometry = self._geometry
        return cost_of_analysis(
            self.expr,
            self._facts.tensors,
            self.table if self.is_given else None,
            shape=(geometry.n_batch, geometry.n_heads, geometry.n_queries, geometry.n_keys),
            head_dim=head_dim,
            value_dim=head_dim if value_dim is None else value_dim,
            kv_heads=geometry.n_heads if kv_heads is None else kv_heads,
            dtype=dtype,
            score=score,
            target=target,
            n_threads=torch.get_num_threads() if n_threads is None else n_threads,
            backward=backward,
        )

    def picture(self, width: int = 64, b: int = 0, h: int = 0, *, height: int | None = None) -> str:
        """The tiles of batch ``b`` and head ``h``: ``█`` FULL, ``▒`` PARTIAL, ``·`` EMPTY.

        Rows are blocks of queries. At most ``width`` characters per row and ``height`` rows
        (``width`` if None); where there are more tiles a character stands for a rectangle of them,
        ``█`` if all are FULL and ``·`` if all are EMPTY, and a last line tells of how many.
        """
        return str(self.drawn(width, width if height is None else height, b, h))

    def drawn(self, width: int, height: int, b: int = 0, h: int = 0) -> Picture:
        """The lines of ``picture``, and its scale; ``width``, ``height``, ``b``, ``h`` as there.

        Raises:
            AnalysisArgumentError: There is no such batch or head, or a size is not positive.
        """
        sizes = []
        for name, value in (("width", width), ("height", height)):
            size = checks.size(value, least=1)
            if size is None:
                raise AnalysisArgumentError(name=name, value=value, problem="it must be positive")
            sizes.append(size)
        self._check_in_range("b", b, self._geometry.n_batch)
        self._check_in_range("h", h, self._geometry.n_heads)
        return picture_of(self.table, sizes[0], sizes[1], b, h)

    def __str__(self) -> str:
        table = self.table
        lines = [
            (
                f"{table.n_queries} queries x {table.n_keys} keys, "
                f"tiles of {table.block_m} x {table.block_n}"
            ),
            (
                f"{self.n_full} FULL, {self.n_partial} PARTIAL, {self.n_empty} EMPTY "
                f"({share_text(self.sparsity)}); {self.n_evaluated} evaluated by element"
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
            self._check_in_range(name, value, limit)

    def _check_in_range(self, name: str, value: int, limit: int) -> None:
        if checks.size(value) is None or not value < limit:
            problem = f"it must be in range({limit})"
            raise AnalysisArgumentError(name=name, value=value, problem=problem)


def _checked_size(name: str, value: Any) -> int:
    size = checks.size(value)
    if size is not None:
        return size
    number = checks.whole_number(value)
    problem = "it must not be negative" if number is not None and number < 0 else _SIZE
    raise AnalysisArgumentError(name=name, value=value, problem=problem)


def analyze(
    mask_mod: Callable[..., Any] | BlockMask | Expr,
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
        mask_mod: ``(b, h, q_idx, kv_idx) -> bool``, or an expression over ``tensors``; or a
            BlockMask of these lengths, whose tiles are then what it lists.
        B: Batches, or None where the mask is the same for all.
        H: Query heads, or None where the mask is the same for all.
        Q_LEN: Number of queries.
        KV_LEN: Number of keys.
        BLOCK_SIZE: Tokens per block, one number or (queries, keys).
        tensors: Captured tensors by slot, for an expression only.

    Raises:
        TraceError: The function does something a kernel cannot do.
        AnalysisArgumentError: A length is negative or a block size not positive, or it does not
            divide that of the BlockMask.
        BlockMaskLengthError, BlockMaskShapeError: The BlockMask is for other lengths or heads.
    """
    sizes = checks.sizes(BLOCK_SIZE, 2, least=1)
    if sizes is None:
        raise AnalysisArgumentError(
            name="BLOCK_SIZE", value=BLOCK_SIZE, problem="give one positive number or two"
        )
    blocks = sizes[0], sizes[1]
    n_batch = _checked_size("B", 1 if B is None else B)
    n_heads = _checked_size("H", 1 if H is None else H)
    Q_LEN, KV_LEN = _checked_size("Q_LEN", Q_LEN), _checked_size("KV_LEN", KV_LEN)
    given_tensors = tensors if isinstance(tensors, Sequence) else (None,)
    if not all(isinstance(tensor, torch.Tensor) for tensor in given_tensors):
        problem = "give a sequence of tensors, for an expression that reads them"
        raise AnalysisArgumentError(name="tensors", value=tensors, problem=problem)
    geometry = Geometry(n_batch, n_heads, Q_LEN, KV_LEN, *blocks)
    locations: Mapping[Expr, Location] = {}
    names: Mapping[int, str] = {}
    given = None
    mod: Any = mask_mod
    if not isinstance(mask_mod, Expr) and not callable(mask_mod):
        given = given_by(mask_mod, (n_batch, n_heads, Q_LEN, KV_LEN), blocks)
        if given is not None:
            mod = given.expr if given.mod is None else given.mod
    if isinstance(mod, Expr):
        expr = mod
    else:
        require_kind(mod, "mask_mod", "mask_mod")
        slots = SlotTable()
        traced = trace_mask(mod, slots, with_locations=True)
        expr, locations, tensors = traced.expr, traced.locations, tuple(slots.tensors)
        names = captured_names([mod], tensors)
    facts = Facts(tensors)
    table = None if given is None else given.table
    is_given, n_evaluated = table is not None, 0
    if table is None:
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
        table, n_evaluated = result.table, result.n_evaluated
    return Analysis(expr, table, n_evaluated, locations, facts, geometry, names, is_given)
