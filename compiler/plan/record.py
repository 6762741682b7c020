"""What is decided about a kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnc.ir import IndexName, Reduce
from attnc.plan.spec import Spec
from attnc.scatter import Reduction
from attnc.schedule import Schedule
from attnc.tiles import Tiles

if TYPE_CHECKING:
    from attnc.bounds import ClosedForm
    from attnc.plan.masks import PartialMasks


@dataclass(frozen=True)
class Accumulation:
    """How a backward kernel sums the gradient of a captured tensor, for one element that a
    score_mod reads per pair of q_idx and kv_idx.

    Attributes:
        slot: Number of the captured tensor.
        reduction: What is summed in a tile before it reaches the tensor.
        factor: Schedule of the score_mod's derivative by the element.
        indices: Schedules of the element's place.
        run: How the elements of a row of pairs lie, as ``gathers.run_of`` says.
        rows: Loops around both.
        batch_dimensions, head_dimensions: Those whose index is b (or h), as ``dimensions_of`` says.
        coordinates: What the indices are, where the gradient may be stored instead of summed.
    """

    slot: int
    reduction: Reduction
    factor: Schedule
    indices: tuple[Schedule, ...]
    run: tuple[int, ...] | None
    rows: tuple[Reduce, ...]
    batch_dimensions: tuple[int, ...]
    head_dimensions: tuple[int, ...]
    coordinates: tuple[IndexName, ...] | None


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
        masks: Schedules of what PARTIAL tiles check, or None where none checks anything.
        transposed_masks: The same in loops over queries; None where no kernel has one.
        score: Schedule of the score_mod, or None where the score stays as it is.
        derivative: Schedule of the score_mod's derivative, or None where it is 1 or not needed.
        accumulations: Of the gradients of captured tensors.
        closed_form: Loop bounds computed in registers; None where the kernel reads a table.
        bounds: Schedule per uniform value that the closed form reads, by its symbol's name.
        transposed: Loop bounds of a tile of keys over queries, the two exchanged also in the names
            of its symbols; None where the backward kernel is one for CPUs or reads a table.
        transposed_bounds: The same as ``bounds``, for ``transposed``.
        slots: Numbers of the captured tensors that the kernel reads, ascending.
        tail_is_loop: The incomplete tile is visited by a loop of at most one step (GPUs).
        qk_is_live: The result depends on q and k at all.
        joins_heads: Query heads of one key head may share a tile of queries (CPUs).
        multiplies_pairs: Matrix products take pairs of bfloat16 (CPUs); else reals.
        decisions: Every decision with its reason, for people.
    """

    spec: Spec
    tiles: Tiles
    key_tiles: Tiles
    masks: PartialMasks | None
    transposed_masks: PartialMasks | None
    score: Schedule | None
    derivative: Schedule | None
    accumulations: tuple[Accumulation, ...]
    closed_form: ClosedForm | None
    bounds: tuple[tuple[str, Schedule], ...]
    transposed: ClosedForm | None
    transposed_bounds: tuple[tuple[str, Schedule], ...]
    slots: tuple[int, ...]
    tail_is_loop: bool
    qk_is_live: bool
    joins_heads: bool
    multiplies_pairs: bool
    decisions: tuple[Decision, ...]

    @property
    def mask(self) -> Schedule | None:
        """Schedule of the whole mask, or None where no tile needs it."""
        return None if self.masks is None else self.masks.whole

    @property
    def parts(self) -> tuple[Schedule | None, ...]:
        """Everything that kernels for CPUs compute of a score."""
        terms = [] if self.masks is None else [term.schedule for term in self.masks.terms]
        gathered = [part for a in self.accumulations for part in (a.factor, *a.indices)]
        return (self.score, self.derivative, self.mask, *terms, *gathered)

    @property
    def uses_table(self) -> bool:
        return self.closed_form is None

    @property
    def knows_terms(self) -> bool:
        """The table says which terms of the mask hold all over its PARTIAL runs."""
        return self.uses_table and self.masks is not None and bool(self.masks.terms)

    @property
    def has_partial_tiles(self) -> bool:
        """Whether any tile inside the lengths may need the mask."""
        return self.mask is not None
