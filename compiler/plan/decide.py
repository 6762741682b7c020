"""The one place of decisions: from what is static about a call to everything a kernel does."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from attnc.gathers import run_of
from attnc.ir import (
    TRUE,
    Const,
    Expr,
    Index,
    IndexName,
    Level,
    Score,
    reads_score,
    slots_of,
    walk,
)
from attnc.plan.masks import masks_by_keys, masks_by_queries
from attnc.plan.record import Accumulation, Decision, Plan
from attnc.plan.spec import Spec
from attnc.plan.visits import closed_form_of, schedules_of_bounds, transposed_form
from attnc.scatter import Reduction, coordinates_of, dimensions_of, reduction_of
from attnc.schedule import Schedule, schedule
from attnc.target import CpuTarget, GpuTarget
from attnc.tiles import Tiles, backward_tiles_for, tiles_for

if TYPE_CHECKING:
    from attnc.derivative import Scatter


_SUMS = {
    Reduction.UNIFORM: "one sum per tile",
    Reduction.ROW: "a sum per row of a tile",
    Reduction.COLUMN: "a sum per column of a tile",
    Reduction.DIFFERENCE: "a sum per diagonal of a tile",
    Reduction.ELEMENT: "element by element, in order",
}


_TWO_KERNELS = Decision(
    "dQ by one kernel, dK and dV by another",
    "each owns its sums, so that gradients are the same in every run; two more products per tile",
)

_ONE_KERNEL = Decision(
    "all gradients by one kernel",
    "it computes a tile's weights once; a unit of work owns its sums, added in the units' order",
)


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
        closed_form = closed_form_of(mask, tiles, decisions)
    transposed = None
    if spec.gradients is not None and isinstance(spec.target, GpuTarget):
        if closed_form is not None:
            transposed = transposed_form(mask, key_tiles, decisions)
            closed_form = closed_form if transposed is not None else None
        decisions.append(_TWO_KERNELS)
    elif spec.gradients is not None:
        decisions.append(_ONE_KERNEL)

    derivative, accumulations = _derivatives(spec, score, decisions)
    qk_is_live = score is None or reads_score(score)
    if not qk_is_live:
        decisions.append(Decision("q @ k is not computed", "the score_mod never reads the score"))

    tail_is_loop = _tail_is_loop(spec, decisions)
    joins_heads = _joins_heads(spec, decisions)
    multiplies_pairs = _multiplies_pairs(spec, decisions)
    # Rows of several heads have no diagonals in common; GPUs compute in registers.
    is_cpu = isinstance(spec.target, CpuTarget)
    scheduled = partial(schedule, diagonals=is_cpu and not joins_heads, reads_ahead=is_cpu)
    masks = masks_by_keys(spec, mask, closed_form, scheduled, decisions)
    transposed_masks = masks_by_queries(spec, mask, transposed, scheduled, decisions)
    mask_schedule = None if masks is None else masks.whole
    score_schedule = None if score is None else scheduled(score, "s")
    derivative_schedule = None if derivative is None else scheduled(derivative, "d")
    named = (
        ("mask", mask_schedule),
        ("score_mod", score_schedule),
        ("score_mod's derivative", derivative_schedule),
    )
    for name, part in named:
        decisions.extend(_hoisting(name, part))
        decisions.extend(_reading(name, part))
    read = [e for e in (mask, score) if e is not None]  # derivatives read no others
    return Plan(
        spec=spec,
        tiles=tiles,
        key_tiles=key_tiles,
        masks=masks,
        transposed_masks=transposed_masks,
        score=score_schedule,
        derivative=derivative_schedule,
        accumulations=accumulations,
        closed_form=closed_form,
        bounds=schedules_of_bounds(closed_form),
        transposed=transposed,
        transposed_bounds=schedules_of_bounds(transposed),
        slots=slots_of(*read),
        tail_is_loop=tail_is_loop,
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
        reduction, is_run = accumulation.reduction, accumulation.run is not None
        sums = "whole rows of a tile are added" if is_run else _SUMS[reduction]
        why = f"the element read depends, besides b and h, on {reduction.value}"
        if is_run:
            why = "the indices are sums of multiples of kv_idx"
        decisions.append(Decision(f"gradient of captured tensor {scatter.slot}: {sums}", why))
    if isinstance(derivative.score, Const) and derivative.score.value == 1:
        decisions.append(Decision("scores keep their gradients", "the score_mod adds to them"))
        return None, tuple(accumulations)
    return derivative.score, tuple(accumulations)


def _accumulation(number: int, scatter: Scatter, spec: Spec) -> Accumulation:
    is_cpu = isinstance(spec.target, CpuTarget)
    scheduled = partial(schedule, diagonals=is_cpu, reads_ahead=is_cpu)
    reduction = reduction_of(scatter)
    is_run = is_cpu and reduction is Reduction.ELEMENT and not scatter.rows
    return Accumulation(
        slot=scatter.slot,
        reduction=reduction,
        factor=scheduled(scatter.factor, f"f{number}_"),
        indices=tuple(
            scheduled(index, f"i{number}_{place}_") for place, index in enumerate(scatter.indices)
        ),
        run=run_of(scatter.indices) if is_run else None,
        rows=scatter.rows,
        batch_dimensions=dimensions_of(scatter, IndexName.B),
        head_dimensions=dimensions_of(scatter, IndexName.H),
        coordinates=coordinates_of(scatter) if is_run else None,
    )


def _tail_is_loop(spec: Spec, decisions: list[Decision]) -> bool:
    target = spec.target
    if not isinstance(target, GpuTarget):
        return False
    if target.backend == "hip":
        if spec.gradients is not None:
            return False
        why = "behind a branch it would read the queries from shared memory, and keep them there"
    else:
        if spec.dtype not in ("float32", "float64"):
            return False
        why = "outside of loops its operands, whole rows, would stay in registers throughout"
    decisions.append(Decision("the incomplete tile is visited by a loop of its own", why))
    return True


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


def _reading(name: str, part: Schedule | None) -> list[Decision]:
    reads = () if part is None else part.reads
    n_runs = sum(let.run is not None for let in reads)
    decisions = []
    if n_runs:
        what = (
            f"{n_runs} of the {name}'s reads per element: a row at a time, from its first element"
        )
        decisions.append(Decision(what, "the indices are sums of multiples of kv_idx"))
    if len(reads) > n_runs:
        what = f"{len(reads) - n_runs} of the {name}'s reads per element: at offsets found before"
        decisions.append(Decision(what, "the indices are no such sums; loops stay vectors"))
    return decisions


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
