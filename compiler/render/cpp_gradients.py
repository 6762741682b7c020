"""C++ text of what a backward kernel does with the derivatives of a score_mod."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnc.ir import Const, DType
from attnc.plan import Accumulation, Plan
from attnc.render.cpp_expressions import STORAGE_TYPES, placed
from attnc.render.cpp_loops import Elements, LoopText, PlaceText, loop_text
from attnc.scatter import Reduction

# A weight of 0 may stand for a score that has no derivative.
_OF_SCORE = "grad[j] = weight[j] != 0 ? grad[j] * ({}) : 0;"
_CONTRIBUTION = "weight[j] != 0 ? grad[j] * ({}) : 0"


@dataclass(frozen=True)
class AccumulationText:
    """Of one element of a captured tensor per pair: its contributions, and where they go.

    ``contribution`` fills a tile of them; without it they are the gradients of the scores. Where a
    tile sums them, ``place`` declares ``at``, the element's number in the gradient; where it does
    not, ``element`` has the numbers, with what ``place`` reads for them. Else ``direct`` adds each
    contribution, inside of loops over ``rows``, which are variables and extents.
    """

    tensor: int  # number of the gradient
    storage: str  # of the captured tensor
    reduction: str
    is_stored: bool  # where the call allows it,
    is_rounded: bool  # perhaps in 16 bits
    contribution: LoopText | None
    place: LoopText | None
    element: PlaceText | None
    direct: LoopText | None
    rows: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class OwnerText:
    """Of a captured tensor: its place among those that the kernel reads, and the dimensions whose
    index is h or b in all that is read of it, or -1."""

    place: int
    head: int
    batch: int


@dataclass(frozen=True)
class GradientsText:
    """Of a backward kernel: the gradients it computes, and the derivatives of the score_mod."""

    query: bool
    key: bool
    value: bool
    wants_scores: bool  # some gradient needs those of the scores
    derivative: LoopText | None
    accumulations: tuple[AccumulationText, ...]
    owners: tuple[OwnerText, ...]
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
        derivative = loop_text(plan.spec, [plan.derivative], _OF_SCORE)
    by_slot = {slot: [a for a in plan.accumulations if a.slot == slot] for slot in wanted.captured}
    return GradientsText(
        query=wanted.query,
        key=wanted.key,
        value=wanted.value,
        wants_scores=wanted.query or wanted.key or bool(wanted.captured),
        derivative=derivative,
        accumulations=tuple(_accumulation(plan, a) for a in plan.accumulations),
        owners=tuple(_owner(plan, slot, found) for slot, found in by_slot.items()),
        slots=wanted.captured,
    )


def _owner(plan: Plan, slot: int, accumulations: Sequence[Accumulation]) -> OwnerText:
    # A dimension in common: t[h, q_idx] of one head is t[q_idx, h] of another.
    head = _first_common([a.head_dimensions for a in accumulations])
    batch = _first_common([a.batch_dimensions for a in accumulations])
    return OwnerText(plan.slots.index(slot), head, batch)


def _first_common(dimensions: Sequence[tuple[int, ...]]) -> int:
    """-1 without one, as where nothing flows to the tensor."""
    first, *others = dimensions or ((),)
    return min(set(first).intersection(*others), default=-1)


def _accumulation(plan: Plan, accumulation: Accumulation) -> AccumulationText:
    spec, slot, indices = plan.spec, accumulation.slot, accumulation.indices
    assert spec.gradients is not None
    sizes = [f"t{slot}_size{dimension}" for dimension in range(len(indices))]
    strides = [
        " * ".join(f"(int64_t){size}" for size in sizes[n + 1 :]) or "1" for n in range(len(sizes))
    ]
    is_short = spec.slots[slot].storage in ("float16", "bfloat16")
    is_short &= spec.float_dtype is DType.FLOAT32
    contribution = at = element = direct = None
    if accumulation.rows:
        # The factor comes first among the parts, but last in the text.
        places = [
            placed(f"{{{n}}}", *both, wide=True)
            for n, both in enumerate(zip(sizes, strides, strict=True), 1)
        ]
        added = _CONTRIBUTION.replace("{}", "{0}")
        parts = (accumulation.factor, *indices)
        direct = loop_text(spec, parts, f"sums[{' + '.join(places) or '0'}] += {added};")
    else:
        match accumulation.factor.result:
            case Const(1.0):
                pass  # gradients of scores are 0 where weights are
            case _:
                result = f"contribution[j] = {_CONTRIBUTION};"
                contribution = loop_text(spec, [accumulation.factor], result)
        if accumulation.reduction is Reduction.ELEMENT:
            body = Elements(spec, indices)
            element = body.place(slot, [i.result for i in indices], strides, accumulation.run)
            at = body.loop()
        else:
            places = [
                placed("{}", size, stride, wide=True)
                for size, stride in zip(sizes, strides, strict=True)
            ]
            at = loop_text(spec, indices, f"const int64_t at = {' + '.join(places) or '0'};")
    return AccumulationText(
        tensor=spec.gradients.captured.index(slot),
        storage=STORAGE_TYPES[spec.slots[slot].storage],
        reduction=accumulation.reduction.name,
        is_stored=accumulation.coordinates is not None,
        is_rounded=accumulation.coordinates is not None and is_short,
        contribution=contribution,
        place=at,
        element=element,
        direct=direct,
        rows=tuple((f"r{row.number}", row.extent) for row in accumulation.rows),
    )
