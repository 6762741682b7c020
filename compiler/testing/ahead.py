"""Kernels that a check is going to run, built as one unit: in half the time of one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from attnc.errors import AttncError
from attnc.plan import Spec, Wanted
from attnc.runtime.cpu import load_cpu_kernels
from attnc.runtime.dispatch import Inputs, traced_program
from attnc.runtime.front import spec_for
from attnc.runtime.gradients import wanted_of
from attnc.runtime.layout import layout_of
from attnc.testing.recipes import InputsRecipe, Shape
from attnc.testing.search import FEW_QUERIES, ODD_SIZES

if TYPE_CHECKING:
    from attnc.testing.case import Case


@dataclass
class Ahead:
    """Builds kernels at the first case that runs one.

    Attributes:
        longest: Of the queries of all cases.
    """

    longest: int
    _built: set[tuple[str, bool]] = field(default_factory=set)

    def require(self, case: Case, is_padded: bool) -> None:
        """Builds what cases of its dtype take; those with hidden keys have units of their own."""
        about = case.recipe.dtype, is_padded
        if about in self._built:
            return
        self._built.add(about)
        try:
            load_cpu_kernels(list(dict.fromkeys(self._specs(case, is_padded))))
        except AttncError:
            return  # a kernel that is built alone says the same, with what it is for

    def _specs(self, case: Case, is_padded: bool) -> Iterator[Spec]:
        lengths = [n for n in (FEW_QUERIES + 1, FEW_QUERIES) if 0 < n <= self.longest]
        odd = Shape(head_dim=ODD_SIZES[0], value_dim=ODD_SIZES[1], n_queries=FEW_QUERIES + 1)
        shapes = [Shape(n_queries=length) for length in lengths]
        if self.longest > FEW_QUERIES:
            shapes = [odd] if is_padded else [*shapes, odd]
        for shape in shapes:
            yield from _specs_of(case.at(InputsRecipe(shape, dtype=case.recipe.dtype)))


def _specs_of(case: Case) -> Iterator[Spec]:
    q, k, v = case.inputs
    mods = case.subject.mask, case.subject.score
    with case.subject.following(), torch.set_grad_enabled(case.with_gradients):
        program = traced_program(Inputs(q, k, v, *mods, case.scale))
        needs = (True, True, True, *(x.requires_grad for x in program.tensors))
    passes: list[tuple[bool, bool, bool, Wanted | None]] = [(True, case.wants_max, False, None)]
    if case.with_gradients:
        passes.append((False, False, False, wanted_of(program, needs)))
    for wanted in passes:
        slots = tuple(program.slots)
        key = (layout_of(q, k, v), program.mask, program.score, slots, None, False, "cpu", wanted)
        yield spec_for(key, q, v)
