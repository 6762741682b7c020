"""From user functions to what a kernel is made of: traced, simplified and lifted expressions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from attnc.ir import DType, Expr, SlotType
from attnc.lift import Lifted, lift
from attnc.mods import Mod
from attnc.simplify import simplify
from attnc.trace import Location, SlotTable, trace_mask, trace_score


@dataclass(frozen=True)
class Program:
    """A mask and a score over one table of captured tensors.

    Attributes:
        traced_mask: The mask as traced, or None without one.
        traced_score: The score as traced, or None without one.
        mask: The mask simplified, constants in place.
        score: The score simplified, constants in place.
        lifted: Both, in this order, with constants lifted to run-time arguments.
        slots: Storage of the captured tensors, by slot number.
        tensors: The captured tensors, by slot number.
        locations: Source lines of traced nodes, where they were asked for.
    """

    traced_mask: Expr | None
    traced_score: Expr | None
    mask: Expr | None
    score: Expr | None
    lifted: Lifted
    slots: tuple[SlotType, ...]
    tensors: tuple[torch.Tensor, ...]
    locations: Mapping[Expr, Location]


def build_program(
    mask: Mod | None,
    score: Mod | None,
    float_dtype: DType = DType.FLOAT32,
    *,
    with_locations: bool = False,
) -> Program:
    """Traces, simplifies and lifts a mask_mod and a score_mod.

    Args:
        mask: mask_mod, or None.
        score: score_mod, or None.
        float_dtype: Dtype of the score: float64 for float64 inputs, else float32.
        with_locations: Record source lines; slower.
    """
    slots = SlotTable()
    locations: dict[Expr, Location] = {}
    traced_mask = traced_score = None
    if mask is not None:
        traced = trace_mask(mask, slots, with_locations=with_locations)
        traced_mask = traced.expr
        locations.update(traced.locations)
    if score is not None:
        traced = trace_score(score, slots, float_dtype, with_locations=with_locations)
        traced_score = traced.expr
        locations.update(traced.locations)
    return assemble(traced_mask, traced_score, slots, locations)


def assemble(
    traced_mask: Expr | None,
    traced_score: Expr | None,
    slots: SlotTable,
    locations: Mapping[Expr, Location],
) -> Program:
    """A program of expressions that are traced already."""
    mask = None if traced_mask is None else simplify(traced_mask)
    score = None if traced_score is None else simplify(traced_score)
    return Program(
        traced_mask=traced_mask,
        traced_score=traced_score,
        mask=mask,
        score=score,
        lifted=lift((mask, score)),
        slots=tuple(slots.types),
        tensors=tuple(slots.tensors),
        locations=locations,
    )
