"""``Subject``: the functions that are checked, and what can be read off them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch

from attnc import ir
from attnc.bounds import ClosedForm, solve
from attnc.mods import Mod
from attnc.program import Program, assemble
from attnc.runtime.gradients import differentiable_slots
from attnc.testing.recipes import Limits, MaskRecipe, ScoreRecipe
from attnc.trace import SlotTable, trace_mask, trace_score

#: Others are not accurate enough to add an oracle's gradients up in.
_SUMMED = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Subject:
    """What is checked: a mask, a score or both, and what the one under test ought to be.

    Attributes:
        mask, score, scale: As in ``attnc.attention``.
        expected: What the one under test ought to be, or None.
        backends: Those whose kernels are examined.
        device: Where q, k, v and captured tensors are.
        with_gradients: Whether kernels of the backward pass are examined.
        mask_source, score_source: The functions as they were given.
    """

    mask: Mod | None
    score: Mod | None
    scale: float | None
    expected: Mod | None
    backends: tuple[str, ...]
    device: str = "cpu"
    with_gradients: bool = True
    mask_source: Mod | MaskRecipe | None = None
    score_source: Mod | ScoreRecipe | None = None

    @cached_property
    def program(self) -> Program:
        """Both as traced for float64, and the tensors that they capture."""
        return self._traced()

    def _traced(self) -> Program:
        slots = SlotTable(self.device)
        mask = None if self.mask is None else trace_mask(self.mask, slots).expr
        score = None
        if self.score is not None:
            score = trace_score(self.score, slots, ir.DType.FLOAT64).expr
        return assemble(mask, score, slots, {})

    @cached_property
    def _closed_forms(self) -> dict[int, ClosedForm | None]:
        return {}

    def closed_form(self, block: int) -> ClosedForm | None:
        """Loop bounds of the mask for tiles of ``block`` queries and keys, or None."""
        if block not in self._closed_forms:
            mask = self.program.lifted.exprs[0]
            self._closed_forms[block] = None if mask is None else solve(mask, block, block)
        return self._closed_forms[block]

    @cached_property
    def computes_in_float32(self) -> bool:
        """Whether scores are computed in float32 in parts, in kernels for float64 too."""
        score = self.program.score
        if score is None:
            return False
        computed = (ir.Binary, ir.Unary, ir.Reduce)
        return any(
            isinstance(node, computed) and node.dtype is ir.DType.FLOAT32 for node in ir.walk(score)
        )

    @cached_property
    def differentiable(self) -> tuple[torch.Tensor, ...]:
        """What gradients of captured tensors flow to: tensors that outlive a call of the score_mod.

        A tensor itself where the function reads it; what it was computed from where the function
        slices or combines tensors before it reads them.
        """
        slots = sorted(differentiable_slots(self.program.traced_score))
        again = self._traced().tensors
        found: dict[int, torch.Tensor] = {}
        for slot in slots:
            tensor = self.program.tensors[slot]
            lasts = tensor is again[slot]
            for source in [tensor] if lasts else _sources(tensor):
                if not source.is_inference() and source.dtype in _SUMMED and source.numel():
                    found[id(source)] = source
        return tuple(found.values())

    @contextmanager
    def following(self) -> Iterator[None]:
        """Lets autograd follow the captured tensors, as if all of them were trained."""
        quiet = [x for x in self.differentiable if not x.requires_grad]
        try:
            for tensor in quiet:
                tensor.requires_grad_()
            yield
        finally:
            for tensor in quiet:
                tensor.requires_grad_(False)

    def captured_device(self) -> str:
        """Where the captured tensors are; the CPU if there are none."""
        places = {str(x.device) for x in self.program.tensors if x.dim()}
        return min(places, default="cpu")

    def limits(self, bounds: Limits) -> Limits:
        """``bounds``, lowered to what captured tensors have that coordinates index directly."""
        program = self.program
        roots = [expr for expr in (program.traced_mask, program.traced_score) if expr is not None]
        sizes: dict[ir.IndexName, int] = {}
        for node in ir.walk(*roots):
            if not isinstance(node, ir.Gather):
                continue
            for index, size in zip(node.indices, program.tensors[node.slot].shape, strict=True):
                while isinstance(index, ir.Cast):
                    index = index.x
                if isinstance(index, ir.Index):
                    sizes[index.name] = min(size, sizes.get(index.name, size))
        tokens = (sizes.get(name, bounds.length) for name in (ir.IndexName.Q, ir.IndexName.KV))
        return Limits(
            n_batch=min(bounds.n_batch, sizes.get(ir.IndexName.B, bounds.n_batch)),
            n_heads=min(bounds.n_heads, sizes.get(ir.IndexName.H, bounds.n_heads)),
            length=min(bounds.length, *tokens),
        )


def _sources(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that outlive a call which ``tensor`` was made from in it."""
    if not tensor.requires_grad:
        return [] if tensor._base is None else [tensor._base]
    found, seen, stack = [], set(), [tensor.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found.append(leaf)
        stack.extend(parent for parent, _ in node.next_functions)
    return found
