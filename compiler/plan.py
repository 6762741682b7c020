"""The one place of decisions: from what is static about a call to everything a kernel does.

A ``Spec`` says what is asked, and is cheap: it is the key of the cache. A ``Plan`` says how it is
done; making one may import sympy, so it is made on a cache miss only. Templates only follow it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnc.ir import (
    FALSE,
    TRUE,
    Const,
    DType,
    Expr,
    Index,
    IndexName,
    Level,
    Reduce,
    Score,
    SlotType,
    canonical_text,
    reads_score,
    replaced,
    slots_of,
    walk,
)
from attnc.scatter import Reduction, is_owned, reduction_of
from attnc.schedule import Schedule, schedule
from attnc.target import CpuTarget, GpuTarget, Target
from attnc.tiles import Tiles, backward_tiles_for, tiles_for

if TYPE_CHECKING:
    from attnc.bounds import ClosedForm
    from attnc.derivative import Scatter


@dataclass(frozen=True)
class Wanted:
    """The gradients that a backward kernel computes: of q, k and v, and of captured tensors by
    slot number."""

    query: bool
    key: bool
    value: bool
    captured: tuple[int, ...] = ()


@dataclass(frozen=True)
class Spec:
    """What is static about a call.

    Attributes:
        mask: Lifted boolean expression, or None where every key is visible.
        score: Lifted expression in the dtype of accumulation, or None for the plain score.
        slots: Storage of every captured tensor, by slot number.
        params: Dtypes of the lifted constants, by number.
        dtype: Storage dtype of q, k, v and out: a torch dtype's short name.
        head_dim: Width of q and k.
        value_dim: Width of v and out.
        target: The machine.
        from_table: Visit what a given block table lists (a BlockMask): the mask then holds in
            PARTIAL tiles only. Without it the kernel visits what the mask implies.
        block_multiple: Tile sizes must divide these (queries, keys); (0, 0) leaves them free.
        wide_index: Offsets into some tensor need 64 bits.
        short_queries: There are at most 16 queries, as in decoding.
        wants_lse: The kernel stores the log-sum-exp of each row.
        wants_max: The kernel stores the maximum of each row.
        gradients: What a backward kernel computes; None for the forward pass.
    """

    mask: Expr | None
    score: Expr | None
    slots: tuple[SlotType, ...]
    params: tuple[DType, ...]
    dtype: str
    head_dim: int
    value_dim: int
    target: Target
    from_table: bool = False
    block_multiple: tuple[int, int] = (0, 0)
    wide_index: bool = False
    short_queries: bool = False
    wants_lse: bool = False
    wants_max: bool = False
    gradients: Wanted | None = None

    @property
    def float_dtype(self) -> DType:
        """Dtype of scores and accumulators."""
        return DType.FLOAT64 if self.dtype == "float64" else DType.FLOAT32

    def digest(self, *environment: str) -> str:
        """SHA-256 in hexadecimal; ``environment`` names what else the binary depends on."""
        fields = (
            canonical_text(self.mask, self.score),
            repr(self.slots),
            " ".join(dtype.value for dtype in self.params),
            f"{self.dtype} {self.head_dim} {self.value_dim} {self.target!r}",
            f"{self.from_table} {self.block_multiple} {self.wide_index} {self.short_queries}",
            f"{self.wants_lse} {self.wants_max} {self.gradients}",
            *environment,
        )
        return hashlib.sha256("\0".join(fields).encode()).hexdigest()


@dataclass(frozen=True)
class Accumulation:
    """How a backward kernel sums the gradient of a captured tensor, for one element that a
    score_mod reads per pair of q_idx and kv_idx.

    Attributes:
        slot: Number of the captured tensor.
        reduction: What is summed in a tile before it reaches the tensor.
        factor: Schedule of the score_mod's derivative by the element.
        indices: Schedules of the element's place.
        rows: Loops around both.
        owned_by_batch, owned_by_head: No two b (or h) read one element.
    """

    slot: int
    reduction: Reduction
    factor: Schedule
    indices: tuple[Schedule, ...]
    rows: tuple[Reduce, ...]
    owned_by_batch: bool
    owned_by_head: bool


@dataclass(frozen=True)
class Decision:
    """One decision of a plan, with the fact that it rests on."""

    what: str
    why: str


@dataclass(frozen=True)
class Plan:
    """How a kernel computes what its spec asks.

    Attributes:
        spec: What is asked.
        tiles: Tile sizes and, for GPUs, warps and pipeline stages.
        key_tiles: The same where a backward kernel for GPUs goes over queries.
        mask: Schedule of the mask, or None where no tile needs it.
        score: Schedule of the score_mod, or None where the score stays as it is.
        derivative: Schedule of the score_mod's derivative, or None where it is 1 or not needed.
        accumulations: Of the gradients of captured tensors.
        closed_form: Loop bounds computed in registers; None where the kernel reads a table.
        bounds: Schedule per uniform value that the closed form reads, by its symbol's name.
        transposed: Loop bounds of a tile of keys over queries, the two exchanged also in the names
            of its symbols; None where the backward kernel is one for CPUs or reads a table.
        transposed_bounds: The same as ``bounds``, for ``transposed``.
        slots: Numbers of the captured tensors that the kernel reads, ascending.
        qk_is_live: The result depends on q and k at all.
        joins_heads: Query heads of one key head may share a tile of queries (CPUs).
        multiplies_pairs: Matrix products take pairs of bfloat16 (CPUs); else reals.
        decisions: Every decision with its reason, for people.
    """

    spec: Spec
    tiles: Tiles
    key_tiles: Tiles
    mask: Schedule | None
    score: Schedule | None
    derivative: Schedule | None
    accumulations: tuple[Accumulation, ...]
    closed_form: ClosedForm | None
    bounds: tuple[tuple[str, Schedule], ...]
    transposed: ClosedForm | None
    transposed_bounds: tuple[tuple[str, Schedule], ...]
    slots: tuple[int, ...]
    qk_is_live: bool
    joins_heads: bool
    multiplies_pairs: bool
    decisions: tuple[Decision, ...]

    @property
    def parts(self) -> tuple[Schedule | None, ...]:
        """Everything that is computed of a score."""
        gathered = [part for a in self.accumulations for part in (a.factor, *a.indices)]
        return (self.score, self.derivative, self.mask, *gathered)

    @property
    def uses_table(self) -> bool:
        return self.closed_form is None

    @property
    def has_partial_tiles(self) -> bool:
        """Whether any tile inside the lengths may need the mask."""
        return self.mask is not None


_SUMS = {
    Reduction.UNIFORM: "one sum per tile",
    Reduction.ROW: "a sum per row of a tile",
    Reduction.COLUMN: "a sum per column of a tile",
    Reduction.DIFFERENCE: "a sum per diagonal of a tile",
    Reduction.ELEMENT: "element by element, in order",
}


def make_plan(spec: Spec) -> Plan:
    """Decides how to compute ``spec``."""
    decisions: list[Decision] = []
    tiles, key_tiles = _tiles(spec, decisions)

    mask = None if spec.mask is TRUE else spec.mask
    score = None if isinstance(spec.score, Score) else spec.score
    if spec.mask is not None and mask is None:
        decisions.append(Decision("no mask is computed", "the mask is always true"))

    closed_form = None
    if spec.from_table:
        decisions.append(Decision("tiles come from a table", "a block mask was given"))
    else:
        closed_form = _closed_form(mask, tiles, decisions)
    transposed = None
    if spec.gradients is not None and isinstance(spec.target, GpuTarget):
        if closed_form is not None:
            transposed = _transposed(mask, key_tiles, decisions)
            closed_form = closed_form if transposed is not None else None
        decisions.append(_TWO_KERNELS)

    derivative, accumulations = _derivatives(spec, score, decisions)
    qk_is_live = score is None or reads_score(score)
    if not qk_is_live:
        decisions.append(Decision("q @ k is not computed", "the score_mod never reads the score"))

    joins_heads = _joins_heads(spec, decisions)
    multiplies_pairs = _multiplies_pairs(spec, decisions)
    # Rows of several heads have no diagonals in common; GPUs compute in registers.
    diagonals = isinstance(spec.target, CpuTarget) and not joins_heads
    mask_schedule = None if mask is None else schedule(mask, "m", diagonals=diagonals)
    score_schedule = None if score is None else schedule(score, "s", diagonals=diagonals)
    derivative_schedule = (
        None if derivative is None else schedule(derivative, "d", diagonals=diagonals)
    )
    named = (
        ("mask", mask_schedule),
        ("score_mod", score_schedule),
        ("score_mod's derivative", derivative_schedule),
    )
    for name, part in named:
        decisions.extend(_hoisting(name, part))
    read = [e for e in (mask, score) if e is not None]  # derivatives read no others
    return Plan(
        spec=spec,
        tiles=tiles,
        key_tiles=key_tiles,
        mask=mask_schedule,
        score=score_schedule,
        derivative=derivative_schedule,
        accumulations=accumulations,
        closed_form=closed_form,
        bounds=_bounds(closed_form),
        transposed=transposed,
        transposed_bounds=_bounds(transposed),
        slots=slots_of(*read),
        qk_is_live=qk_is_live,
        joins_heads=joins_heads,
        multiplies_pairs=multiplies_pairs,
        decisions=tuple(decisions),
    )


def _tiles(spec: Spec, decisions: list[Decision]) -> tuple[Tiles, Tiles]:
    """Tiles of the kernel, and of the backward one whose tiles of keys go over queries."""
    static = (spec.target, spec.dtype, spec.head_dim, spec.value_dim, spec.short_queries)
    if spec.gradients is None:
        tiles = key_tiles = tiles_for(*static)
    else:
        tiles, key_tiles = backward_tiles_for(*static)
    if spec.block_multiple != (0, 0):
        tiles, key_tiles = (x.dividing(*spec.block_multiple) for x in (tiles, key_tiles))
    decisions.append(Decision(f"tiles {tiles.block_m} x {tiles.block_n}", tiles.reason))
    if key_tiles != tiles:
        what = f"tiles {key_tiles.block_m} x {key_tiles.block_n} for the gradients of keys"
        decisions.append(Decision(what, key_tiles.reason))
    return tiles, key_tiles


def _derivatives(
    spec: Spec, score: Expr | None, decisions: list[Decision]
) -> tuple[Expr | None, tuple[Accumulation, ...]]:
    if spec.gradients is None or score is None:
        return None, ()
    from attnc.derivative import differentiate

    derivative = differentiate(score, spec.gradients.captured)
    accumulations = []
    for number, scatter in enumerate(derivative.captured):
        accumulation = _accumulation(number, scatter, spec)
        accumulations.append(accumulation)
        decisions.append(
            Decision(
                f"gradient of captured tensor {scatter.slot}: {_SUMS[accumulation.reduction]}",
                f"the element read depends on {accumulation.reduction.value}",
            )
        )
    if isinstance(derivative.score, Const) and derivative.score.value == 1:
        decisions.append(Decision("scores keep their gradients", "the score_mod adds to them"))
        return None, tuple(accumulations)
    return derivative.score, tuple(accumulations)


def _accumulation(number: int, scatter: Scatter, spec: Spec) -> Accumulation:
    diagonals = isinstance(spec.target, CpuTarget)
    return Accumulation(
        slot=scatter.slot,
        reduction=reduction_of(scatter),
        factor=schedule(scatter.factor, f"f{number}_", diagonals=diagonals),
        indices=tuple(
            schedule(index, f"i{number}_{place}_", diagonals=diagonals)
            for place, index in enumerate(scatter.indices)
        ),
        rows=scatter.rows,
        owned_by_batch=is_owned(scatter, IndexName.B),
        owned_by_head=is_owned(scatter, IndexName.H),
    )


def _joins_heads(spec: Spec, decisions: list[Decision]) -> bool:
    if not isinstance(spec.target, CpuTarget) or not spec.short_queries or spec.gradients:
        return False
    if not spec.from_table and spec.mask is not None and Index(IndexName.H) in walk(spec.mask):
        return False
    why = "they visit the same keys, and few queries fill no tile"
    decisions.append(Decision("query heads of one key head share a tile", why))
    return True


def _multiplies_pairs(spec: Spec, decisions: list[Decision]) -> bool:
    target = spec.target
    if spec.dtype != "bfloat16" or not isinstance(target, CpuTarget):
        return False
    if target.multiplies_bfloat16:
        why = f"{target.isa} has instructions for it; weights are rounded to bfloat16"
        decisions.append(Decision("products of pairs of bfloat16, summed in float32", why))
        return True
    why = f"{target.isa} has no products of bfloat16"
    decisions.append(Decision("q, k and v are converted to float32", why))
    return False


def _closed_form(mask: Expr | None, tiles: Tiles, decisions: list[Decision]) -> ClosedForm | None:
    from attnc.bounds import solve

    closed_form = solve(TRUE if mask is None else mask, tiles.block_m, tiles.block_n)
    if closed_form is None:
        decisions.append(
            Decision(
                "tiles come from a table, made anew for each call",
                "the mask is no union of few intervals of kv_idx whose ends are monotone in q_idx",
            )
        )
    elif mask is FALSE:
        decisions.append(Decision("no tile is visited", "the mask is never true"))
    else:
        n_runs = len(closed_form.runs)
        decisions.append(
            Decision(
                "loop bounds are computed in registers",
                f"for a tile of queries the mask is a union of {n_runs} interval(s) of kv_idx",
            )
        )
    return closed_form


_TWO_KERNELS = Decision(
    "dQ by one kernel, dK and dV by another",
    "each owns its sums, so that gradients are the same in every run; two more products per tile",
)


def _transposed(mask: Expr | None, tiles: Tiles, decisions: list[Decision]) -> ClosedForm | None:
    from attnc.bounds import solve

    exchanged: dict[Expr, Expr] = {
        Index(IndexName.Q): Index(IndexName.KV),
        Index(IndexName.KV): Index(IndexName.Q),
    }
    closed_form = solve(
        TRUE if mask is None else replaced(mask, exchanged), tiles.block_n, tiles.block_m
    )
    if closed_form is None:
        what = "tiles of both kernels come from a table, made anew for each call"
        why = "for a tile of keys, the mask is no union of few intervals of q_idx"
        decisions[-1] = Decision(what, why)
    return closed_form


def _bounds(closed_form: ClosedForm | None) -> tuple[tuple[str, Schedule], ...]:
    if closed_form is None:
        return ()
    return tuple((name, schedule(expr, f"{name}_")) for name, expr in closed_form.uniforms.items())


def _hoisting(name: str, part: Schedule | None) -> list[Decision]:
    if part is None:
        return []
    counts = {level: len(part.at(level)) for level in Level}
    outer = [
        f"{counts[level]} {text}"
        for level, text in (
            (Level.UNIFORM, "once per tile of queries"),
            (Level.ROW, "once per row"),
            (Level.COLUMN, "once per column"),
            (Level.DIAGONAL, "once per diagonal"),
        )
        if counts[level]
    ]
    if not outer:
        return []
    why = "they do not depend on both q_idx and kv_idx"
    return [
        Decision(f"values of the {name} computed outside the inner loop: {', '.join(outer)}", why)
    ]
