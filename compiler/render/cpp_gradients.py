"""C++ text of what a backward kernel does with the derivatives of a score_mod."""

from __future__ import annotations

from dataclasses import dataclass

from attnc.plan import Accumulation, Plan
from attnc.render.cpp_loops import LoopText, loop_text
from attnc.scatter import Reduction

# A weight of 0 may stand for a score that has no derivative.
_OF_SCORE = "grad[j] = weight[j] != 0 ? grad[j] * ({}) : 0;"
_CONTRIBUTION = "weight[j] != 0 ? grad[j] * ({}) : 0"


@dataclass(frozen=True)
class AccumulationText:
    """Of one element of a captured tensor per pair: its contributions, and where they go.

    Where a tile sums them first, ``contribution`` fills a tile of them and ``place`` declares
    ``at``, the element's number in the gradient. Else ``direct`` adds each, inside of loops over
    ``rows``, which are variables and extents.
    """

    tensor: int  # number of the gradient
    reduction: str
    contribution: LoopText | None
    place: LoopText | None
    direct: LoopText | None
    rows: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class GradientsText:
    """Of a backward kernel: the gradients it computes, and the derivatives of the score_mod.

    ``owners`` has for each captured tensor the coordinates ("", "h", "bh") that own its elements.
    """

    query: bool
    key: bool
    value: bool
    wants_scores: bool  # some gradient needs those of the scores
    derivative: LoopText | None
    accumulations: tuple[AccumulationText, ...]
    owners: tuple[str, ...]
    slots: tuple[int, ...]  # of the captured tensors

    @property
    def loops(self) -> tuple[LoopText | None, ...]:
        gathered = [
            loop for a in self.accumulations for loop in (a.contribution, a.place, a.direct)
        ]
        return (self.derivative, *gathered)


def gradients_text(plan: Plan) -> GradientsText | None:
    """The text for a backward kernel; None for a forward one."""
    wanted = plan.spec.gradients
    if wanted is None:
        return None
    derivative = None
    if plan.derivative is not None and (wanted.query or wanted.key):
        derivative = loop_text(plan.spec.slots, [plan.derivative], _OF_SCORE)
    by_slot = {slot: [a for a in plan.accumulations if a.slot == slot] for slot in wanted.captured}
    return GradientsText(
        query=wanted.query,
        key=wanted.key,
        value=wanted.value,
        wants_scores=wanted.query or wanted.key or bool(wanted.captured),
        derivative=derivative,
        accumulations=tuple(_accumulation(plan, a) for a in plan.accumulations),
        owners=tuple(_owner(found) for found in by_slot.values()),
        slots=wanted.captured,
    )


def _owner(accumulations: list[Accumulation]) -> str:
    if not all(a.owned_by_head for a in accumulations):
        return ""
    return "bh" if all(a.owned_by_batch for a in accumulations) else "h"


def _accumulation(plan: Plan, accumulation: Accumulation) -> AccumulationText:
    wanted, slots = plan.spec.gradients, plan.spec.slots
    assert wanted is not None
    tensor = wanted.captured.index(accumulation.slot)
    place = _place(f"t{accumulation.slot}", len(accumulation.indices))
    contribution = at = direct = None
    if accumulation.reduction is Reduction.ELEMENT:
        parts = (accumulation.factor, *accumulation.indices)
        # The factor comes first among the parts, but last in the text.
        indices = [f"{{{n}}}" for n in range(1, len(parts))]
        added = _CONTRIBUTION.replace("{}", "{0}")
        direct = loop_text(slots, parts, f"sums[{place.format(*indices)}] += {added};")
    else:
        contribution = loop_text(
            slots, [accumulation.factor], f"contribution[j] = {_CONTRIBUTION};"
        )
        at = loop_text(slots, accumulation.indices, f"const int64_t at = {place};")
    return AccumulationText(
        tensor=tensor,
        reduction=accumulation.reduction.name,
        contribution=contribution,
        place=at,
        direct=direct,
        rows=tuple((f"r{row.number}", row.extent) for row in accumulation.rows),
    )


def _place(name: str, rank: int) -> str:
    """Number of an element in a contiguous tensor, with a ``{}`` for each index."""
    text = "0"
    for dimension in range(rank):
        index = f"op::place({{}}, {name}_size{dimension})"
        text = index if dimension == 0 else f"({text}) * {name}_size{dimension} + {index}"
    return text
