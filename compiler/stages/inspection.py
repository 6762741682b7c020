"""Every stage of a compilation as text: what was traced, understood, decided and generated."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from attnc import checks
from attnc.analysis import Analysis, analyze, captured_names
from attnc.block_mask.fixed import as_fixed
from attnc.blocks import Geometry
from attnc.derivative import Derivative, differentiate
from attnc.errors import HeadTooWideError, InspectionOptionError
from attnc.intervals import Facts
from attnc.ir import TRUE, DType, Expr, reads_score
from attnc.mods import mod_name
from attnc.plan import Plan, Spec, Wanted, make_plan
from attnc.printer import format_program
from attnc.program import Program, assemble, build_program
from attnc.roles import roles_of
from attnc.run_table import RunTable
from attnc.runtime.dispatch import Fixed
from attnc.stages.limits import require_few_rows
from attnc.stages.machines import default_gpu, local_cpu, machine_named, require_known
from attnc.stages.stage import Pass, Stage
from attnc.stages.texts import (
    blocks_data,
    blocks_text,
    derivative_text,
    indented,
    math_text,
    param_texts,
    plan_text,
    traced_text,
)
from attnc.target import CpuTarget, GpuTarget, Target
from attnc.trace import SlotTable

if TYPE_CHECKING:
    from attnc.cost import Cost

Shape = tuple[int, int, int, int, int]

_DEFAULT_SHAPE: Shape = (1, 1, 1024, 1024, 64)
_SHORT_QUERIES = 16


@dataclass(frozen=True)
class Inspection:
    """One call and its gradients, seen at every stage; ``stages`` has all, methods return text.

    Attributes:
        name: Of the user's function.
        program: The traced mask and score.
        shape: (B, H, n_queries, n_keys, head_dim).
        target: The machine that the plan is for.
        dtype: Storage dtype of q, k, v: a torch dtype's short name.
        table: The tiles of the BlockMask that was given as mask, or None.
        names: The user's names of captured tensors, by slot number.
    """

    name: str
    program: Program
    shape: Shape
    target: Target
    dtype: str
    table: RunTable | None
    names: Mapping[int, str]

    @staticmethod
    def of(
        mod: Any,
        /,
        *,
        shape: Shape = _DEFAULT_SHAPE,
        target: str = "cpu",
        dtype: str | None = None,
    ) -> Inspection:
        """Traces a Kernel, mask_mod or score_mod for one call.

        Args:
            mod: Kernel, or plain function.
            shape: (B, H, n_queries, n_keys, head_dim).
            target: One of ``MACHINES``; "triton" is the GPU of this machine, else sm_90.
            dtype: One of ``checks.DTYPES``; float32 on CPUs, bfloat16 on GPUs if None.

        Raises:
            InspectionOptionError: No such target or dtype, or a shape that has no call.
            TraceError: The function does something a kernel cannot do.
        """
        machine = machine_named(target)
        if dtype is None:
            dtype = "float32" if isinstance(machine, CpuTarget) else "bfloat16"
        require_known("dtype", dtype, checks.DTYPES)
        numbers = checks.items(shape) or ()
        if len(numbers) != 5 or any(checks.size(number, least=1) is None for number in numbers):
            problem = "give five positive numbers: B, H, n_queries, n_keys, head_dim."
            raise InspectionOptionError(option="shape", value=shape, problem=problem)
        mask, score = roles_of(mod)
        fixed = None if mask is None or callable(mask) else _fixed(mask, shape)
        float_dtype = DType.FLOAT64 if dtype == "float64" else DType.FLOAT32
        if fixed is not None and fixed.expr is not None:
            scored = build_program(None, score, float_dtype, with_locations=True)
            slots = SlotTable()
            for tensor in scored.tensors:
                slots.slot_of(tensor)
            program = assemble(fixed.expr, scored.traced_score, slots, scored.locations)
        else:
            mask = mask if fixed is None else fixed.mod
            program = build_program(mask, score, float_dtype, with_locations=True)
        table = None if fixed is None else fixed.table
        names = captured_names([*roles_of(mod), getattr(mask, "mask_mod", None)], program.tensors)
        return Inspection(mod_name(mod), program, shape, machine, dtype, table, names)

    @cached_property
    def _plan(self) -> Plan:
        return make_plan(self.spec(self.target))

    @cached_property
    def _derivative(self) -> Derivative | None:
        score = self.program.score
        return None if score is None else differentiate(score, range(len(self.program.tensors)))

    def analysis(self, block_size: int | tuple[int, int]) -> Analysis:
        """The tiles of the mask at the lengths of the call; those of a BlockMask are its own.

        Args:
            block_size: Tokens per tile, one number or (queries, keys).

        Raises:
            InspectionOptionError: The shape has more rows of tiles than can be told in seconds.
        """
        n_batch, n_heads, n_queries, n_keys, _ = self.shape
        mask = TRUE if self.program.traced_mask is None else self.program.traced_mask
        tensors = self.program.tensors
        blocks = (block_size, block_size) if isinstance(block_size, int) else block_size
        if self.table is None:
            require_few_rows(self.shape, self.program.traced_mask, blocks[0])
            found = analyze(mask, n_batch, n_heads, n_queries, n_keys, blocks, tensors=tensors)
            return replace(found, locations=self.program.locations, names=self.names)
        geometry = Geometry(n_batch, n_heads, n_queries, n_keys, *blocks)
        table = self.table.refine(*blocks)
        return Analysis(
            mask,
            table,
            0,
            self.program.locations,
            Facts(tensors),
            geometry,
            self.names,
            is_given=True,
        )

    def spec(self, target: Target, *, backward: bool = False) -> Spec:
        """What is asked of the forward kernel, or of the kernel for all gradients.

        Those of captured tensors are asked for where the tensor requires one.
        """
        _, _, n_queries, _, head_dim = self.shape
        lifted = self.program.lifted
        table = self.table
        return Spec(
            mask=lifted.exprs[0],
            score=lifted.exprs[1],
            slots=self.program.slots,
            params=lifted.dtypes,
            dtype=self.dtype,
            head_dim=head_dim,
            value_dim=head_dim,
            target=target,
            from_table=table is not None,
            block_multiple=(0, 0) if table is None else (table.block_m, table.block_n),
            short_queries=n_queries <= _SHORT_QUERIES,
            gradients=self._wanted() if backward else None,
        )

    def _wanted(self) -> Wanted:
        score = self.program.score
        is_live = score is None or reads_score(score)
        scattered = () if self._derivative is None else self._derivative.captured
        wanted = {s.slot for s in scattered if self.program.tensors[s.slot].requires_grad}
        return Wanted(is_live, is_live, True, tuple(sorted(wanted)))

    @property
    def cpu(self) -> CpuTarget:
        """The target; this machine's CPU if that is a GPU."""
        return self.target if isinstance(self.target, CpuTarget) else local_cpu()

    @property
    def gpu(self) -> GpuTarget:
        """The target; this machine's GPU, else sm_90, if that is a CPU."""
        return self.target if isinstance(self.target, GpuTarget) else default_gpu()

    def stages(
        self,
        names: Collection[str] | None = None,
        *,
        passes: Pass = "all",
        measure: bool = False,
    ) -> tuple[Stage, ...]:
        """The stages with these names, in the order of ``STAGES``; one per kernel where kernels
        have their own.

        Args:
            names: Keys of ``STAGES``; None for all that the target has. Of these, one that cannot be
                made here, for want of a compiler or a tool, tells so in ``Stage.problem``.
            passes: Kernels of which passes.
            measure: As in ``blocks``.

        Raises:
            InspectionOptionError: There is no such stage, or the target does not have it.
            AttncError: A stage that was named cannot be made.
        """
        from attnc.stages.listing import list_stages

        return tuple(list_stages(self, names, passes, measure=measure))

    def stage(self, name: str, *, passes: Pass = "forward") -> Stage:
        """The first of the stages called ``name``: of the forward kernel if kernels have their own.

        Raises:
            InspectionOptionError: There is no such stage, or the target does not have it.
            AttncError: The stage cannot be made.
        """
        return self.stages([name], passes=passes)[0]

    def traced(self) -> str:
        """The function as traced, one operation per line, under the user's lines they came from."""
        parts = []
        for role, expr in self._roots(simplified=False):
            parts.append(f"{role}:\n{traced_text(expr, self.program.locations)}")
        return "\n\n".join(parts) or _NOTHING

    def traced_ir(self) -> str:
        """Mask and score as traced, before any simplification."""
        return self._programs(simplified=False) or _NOTHING

    def ir(self) -> str:
        """The simplified mask and score; then what of them is an argument at run time."""
        text = self._programs(simplified=True)
        parts = [text] if text else []
        arguments = [*param_texts(self.program.lifted)]
        for number, tensor in enumerate(self.program.tensors):
            arguments.append(f"t{number}: {self.program.slots[number].storage}{list(tensor.shape)}")
        if arguments:
            parts.append(f"arguments at run time:\n{indented('; '.join(arguments))}")
        return "\n\n".join(parts) or _NOTHING

    def derivative(self) -> str:
        """Derivatives of the score_mod: by the score, and by each element that it captures."""
        derivative = self._derivative
        return _NO_SCORE if derivative is None else derivative_text(derivative)

    def math(self) -> str:
        """Mask, score and its derivatives, keys a query sees, loop bounds of a tile: formulas."""
        return math_text(self.program.lifted, self._plan, self._derivative)

    def blocks(self, *, measure: bool = False) -> str:
        """A picture of the tiles, how many of each class, loop bounds, and what the call costs.

        Args:
            measure: Time a few kernels if the rates of this machine are not known yet (seconds);
                else there are no times then.
        """
        return self.blocks_and_data(measure=measure)[0]

    def blocks_and_data(self, *, measure: bool = False) -> tuple[str, dict[str, Any]]:
        """``blocks``, and its numbers as JSON's types."""
        tiles = self._plan.tiles
        analysis = self.analysis((tiles.block_m, tiles.block_n))
        costs = self.costs(measure=measure)
        title = f"{self._title(self.target)}, {self.shape[0]} x {self.shape[1]} heads"
        text = blocks_text(analysis, self._plan, costs, title, self.source_of_times(costs))
        return text, blocks_data(analysis, self._plan, costs)

    def costs(self, *, measure: bool = True) -> dict[str, Cost]:
        """What the call costs, by pass; a pass that the target has no kernel for is left out.

        Raises:
            InspectionOptionError: The shape has more rows of tiles than can be told in seconds.
        """
        if self.table is None:
            require_few_rows(self.shape, self.program.traced_mask, self._plan.tiles.block_m)
        from attnc.cost import Problem, backward_target, cost_of

        n_batch, n_heads, n_queries, n_keys, head_dim = self.shape
        forward = Problem(
            program=self.program,
            n_batch=n_batch,
            n_heads=n_heads,
            kv_heads=n_heads,
            n_queries=n_queries,
            n_keys=n_keys,
            head_dim=head_dim,
            value_dim=head_dim,
            dtype=self.dtype,
            target=self.target,
            n_threads=torch.get_num_threads(),
            table=self.table,
            measures=measure,
        )
        backward = replace(forward, backward=True, target=backward_target(self.target))
        costs = {"forward": cost_of(forward)}
        with suppress(HeadTooWideError):
            costs["backward"] = cost_of(backward)
        return costs

    def source_of_times(self, costs: Mapping[str, Cost]) -> str:
        """Where the times of ``costs`` come from, or why there are none, in a sentence."""
        if isinstance(self.target, GpuTarget):
            peaks = self.target.peaks
            if peaks is None:
                return "No published peaks are known here for this GPU."
            return (
                f"Times are bounds, not measurements: published peaks of the {peaks.gpu} allow no "
                "less."
            )
        if any(cost.seconds is None for cost in costs.values()):
            return (
                "No times: the rates of this machine for such kernels are not known. "
                "`attnc doctor --calibrate` measures them."
            )
        n_threads = torch.get_num_threads()
        threads = "one thread" if n_threads == 1 else f"{n_threads} threads"
        return f"Times are expected from rates measured on this machine, for {threads}."

    def plan(self) -> str:
        """Every decision about the kernel with its reason, and where each value is computed."""
        return f"{self._title(self.target)}\n\n{plan_text(self._plan)}"

    def cpp(self) -> str:
        """The C++ kernel; for this machine's CPU if the target is a GPU."""
        return self.stage("cpp").text

    def triton(self) -> str:
        """The Triton kernel; for this machine's GPU, else sm_90, if the target is a CPU."""
        return self.stage("triton").text

    def ptx(self) -> str:
        """Assembly of the Triton kernel, compiled without a GPU: PTX, or AMDGCN for gfx targets."""
        return self.stage("ptx").text

    def resources(self) -> str:
        """What each kernel for the target takes, and the instructions of its loops over tiles."""
        return self.stage("resources", passes="all").text

    @property
    def source_stage(self) -> str:
        """The stage that is the generated source for the target: cpp or triton."""
        return "cpp" if isinstance(self.target, CpuTarget) else "triton"

    def source(self) -> str:
        """The generated kernel for the target: C++ or Triton."""
        return self.stage(self.source_stage).text

    def explain(self) -> str:
        """What was traced, understood and decided, in short."""
        stages = {
            "traced": self.traced,
            "ir": self.ir,
            "math": self.math,
            "blocks": self.blocks,
            "plan": self.plan,
        }
        title = f"{self.name} for {self.target.name}, shape {','.join(map(str, self.shape))}"
        return "\n\n".join([title, *(f"== {name} ==\n{text()}" for name, text in stages.items())])

    def _title(self, target: Target) -> str:
        return f"kernel for {target.name}, {self.dtype}, head_dim {self.shape[4]}"

    def _programs(self, *, simplified: bool) -> str:
        return "\n\n".join(
            f"{role}: {expr.dtype.value}\n{indented(format_program(expr))}"
            for role, expr in self._roots(simplified=simplified)
        )

    def _roots(self, *, simplified: bool = True) -> Iterator[tuple[str, Expr]]:
        program = self.program
        mask = program.mask if simplified else program.traced_mask
        score = program.score if simplified else program.traced_score
        if mask is not None:
            yield "mask", mask
        if score is not None:
            yield "score", score


_NOTHING = "no mask and no score_mod: plain attention"
_NO_SCORE = "no score_mod: the derivative by score is 1"


def _fixed(block_mask: Any, shape: Shape) -> Fixed | None:
    n_batch, n_heads, n_queries, n_keys, head_dim = shape
    one = torch.empty(1)
    q = one.expand(n_batch, n_heads, n_queries, head_dim)
    return as_fixed(block_mask, q, one.expand(n_batch, n_heads, n_keys, head_dim))
