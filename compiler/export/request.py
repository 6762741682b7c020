"""What is asked of an export, and the kernels that it takes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from attnc import checks
from attnc.analysis import captured_names
from attnc.cost import backward_target
from attnc.errors import NotExportableError
from attnc.export.names import argument_names
from attnc.intervals import Facts, never_wraps
from attnc.ir import DType, Expr, reads_score, slots_of
from attnc.mods import mod_name
from attnc.plan import Spec, Wanted
from attnc.program import Program, build_program
from attnc.roles import OfFunction
from attnc.runtime.composed import derivative_of
from attnc.runtime.gradients import differentiable_slots
from attnc.stages.machines import MACHINES, machine_named
from attnc.target import INTERPRETER, GpuTarget, Target

#: Machines that modules are made for; see ``Request``. AMX belongs to processes that ask for it.
TARGETS = (*(name for name in MACHINES if name != "cpu-amx"), "interpreter")

#: Queries and keys that exported kernels take at the most.
LARGEST_LENGTH = 1 << 28
#: Integers in captured tensors where larger ones would make a mask's arithmetic wrap around.
LARGEST_INTEGER = 1 << 28
_MOST_CHOICES = 64  # of extremes of captured numbers: more are not tried


@dataclass(frozen=True)
class Request(OfFunction):
    """What is exported.

    Attributes:
        mod: A Kernel, mask_mod or score_mod.
        target: One of ``TARGETS``; "cpu" and "triton" are those of this machine, "triton" sm_90
            where there is no GPU. "interpreter" is Triton's, on CPU tensors.
        dtype: Of q, k and v, one of ``DTYPES``; float32 for CPUs, bfloat16 for GPUs if None.
        head_dim, value_dim: Widths of q and k, of v and out; both ``head_dim`` if None.
        forward_only: Without gradients.
        constant_captured: Without gradients of captured tensors.
        from_table: Visit tiles from a table although loop bounds have a closed form.
        wide_index: Offsets into tensors may pass 31 bits.
        command: What the module says it was made by.
    """

    mod: Any
    target: str = "cpu"
    dtype: str | None = None
    head_dim: int = 64
    value_dim: int | None = None
    forward_only: bool = False
    constant_captured: bool = False
    from_table: bool = False
    wide_index: bool = False
    command: str = "attnc.export"

    def __post_init__(self) -> None:
        if self.has_fixed_mask:
            raise self._refusal(
                "its mask is a BlockMask, a table for one pair of lengths. Export the mask_mod "
                "that it was made from"
            )
        if self.has_layout:
            raise self._refusal(
                "it computes in another order of tokens (layout=). Export it without, and permute "
                "its inputs"
            )
        if not checks.one_of(self.target, TARGETS):
            raise self._refusal(f"target={self.target!r} is none of {', '.join(TARGETS)}")
        if self.dtype is not None and not checks.one_of(self.dtype, checks.DTYPES):
            raise self._refusal(f"dtype={self.dtype!r} is none of {', '.join(checks.DTYPES)}")
        if any(checks.size(width, least=1) is None for width in (self.head_dim, self.value_width)):
            raise self._refusal("head_dim and value_dim must be positive whole numbers")

    def _refusal(self, problem: str) -> NotExportableError:
        return NotExportableError(name=mod_name(self.mod), problem=problem)

    @property
    def value_width(self) -> int:
        """Width of v and out."""
        return self.head_dim if self.value_dim is None else self.value_dim

    @cached_property
    def machine(self) -> Target:
        """The target of all passes: of this machine's CPU without AMX."""
        if self.target == "interpreter":
            return INTERPRETER
        return backward_target(machine_named(self.target))

    @property
    def storage(self) -> str:
        """Dtype of q, k, v and out: a torch dtype's short name."""
        if self.dtype is not None:
            return self.dtype
        is_gpu = isinstance(self.machine, GpuTarget) and self.machine != INTERPRETER
        return "bfloat16" if is_gpu else "float32"

    @cached_property
    def program(self) -> Program:
        """Mask and score as kernels compute them."""
        float_dtype = DType.FLOAT64 if self.storage == "float64" else DType.FLOAT32
        return build_program(self.mask, self.score, float_dtype)

    @cached_property
    def exact_program(self) -> Program:
        """The same with scores in float64."""
        return build_program(self.mask, self.score, DType.FLOAT64)

    @cached_property
    def slots(self) -> tuple[int, ...]:
        """Numbers of the captured tensors that kernels read, ascending."""
        read = [e for e in (self.program.mask, self.program.score) if e is not None]
        return slots_of(*read) if read else ()

    def names(self, reserved: Iterable[str]) -> dict[int, str]:
        """What the module calls captured tensors, by slot: as the user does, where that can be,
        but none of ``reserved``."""
        known = captured_names([self.mask, self.score], self.program.tensors)
        return argument_names({slot: known.get(slot, "") for slot in self.slots}, reserved)

    @cached_property
    def differentiable(self) -> tuple[int, ...]:
        """Slots that gradients flow to."""
        score = self.program.lifted.exprs[1]
        if self.forward_only or score is None:
            return ()
        slots = tuple(sorted(differentiable_slots(score)))
        scattered = {scatter.slot for scatter in derivative_of(score, slots).captured}
        return tuple(slot for slot in slots if slot in scattered)

    @property
    def is_live(self) -> bool:
        """Whether the result depends on q and k."""
        score = self.program.lifted.exprs[1]
        return score is None or reads_score(score)

    @cached_property
    def small(self) -> tuple[int, ...] | None:
        """Slots whose integers must be small for bounds in closed form; None where no such
        assumption is enough."""
        mask = self.program.mask
        if mask is None or _is_exact(mask, self.program, None):
            return ()
        integers = tuple(
            slot for slot in slots_of(mask) if "int" in self.program.slots[slot].storage
        )
        return integers if _is_exact(mask, self.program, LARGEST_INTEGER) else None

    def specs(self) -> dict[str, Spec]:
        """What is asked of the kernel of each pass."""
        wanted: dict[str, Wanted | None] = {"forward": None}
        if not self.forward_only:
            live = self.is_live
            wanted["backward"] = Wanted(live, live, True)
            if self.differentiable and not self.constant_captured:
                wanted["captured"] = Wanted(live, live, True, self.differentiable)
        return {name: self._spec(gradients) for name, gradients in wanted.items()}

    def _spec(self, gradients: Wanted | None) -> Spec:
        lifted = self.program.lifted
        return Spec(
            mask=lifted.exprs[0],
            score=lifted.exprs[1],
            slots=self.program.slots,
            params=lifted.dtypes,
            dtype=self.storage,
            head_dim=self.head_dim,
            value_dim=self.value_width,
            target=self.machine,
            from_table=self.program.mask is not None and (self.from_table or self.small is None),
            wide_index=self.wide_index,
            wants_lse=gradients is None,
            gradients=gradients,
        )


def _is_exact(mask: Expr, program: Program, largest: int | None) -> bool:
    """Whether no integer of ``mask`` wraps around, whatever captured tensors hold.

    ``largest`` bounds the integers in them; None leaves them free.
    """
    read = set(slots_of(mask))
    choices = [
        _extremes(tensor, largest) if slot in read else [tensor]
        for slot, tensor in enumerate(program.tensors)
    ]
    if math.prod(map(len, choices)) > _MOST_CHOICES:
        return False
    return all(
        never_wraps(
            [mask],
            Facts(tensors),
            n_batch=LARGEST_LENGTH,
            n_heads=LARGEST_LENGTH,
            n_queries=LARGEST_LENGTH,
            n_keys=LARGEST_LENGTH,
        )
        for tensors in itertools.product(*choices)
    )


def _extremes(tensor: torch.Tensor, largest: int | None) -> list[torch.Tensor]:
    """Tensors of its dtype and rank that hold, together, the least and the greatest number."""
    if tensor.dtype is torch.bool:
        ends: tuple[float, float] = (0, 1)
    elif tensor.dtype.is_floating_point:
        ends = (-torch.inf, torch.inf)
    else:
        limits = torch.iinfo(tensor.dtype)
        bound = limits.max if largest is None else largest
        ends = (max(limits.min, -bound - (largest is None)), min(limits.max, bound))
    if not tensor.dim():  # it has room for one of them
        return [torch.tensor(end, dtype=tensor.dtype) for end in ends]
    return [torch.tensor(ends, dtype=tensor.dtype).expand(*(2,) * tensor.dim())]
