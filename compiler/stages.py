"""Every stage of a compilation as text: what was traced, understood, decided and generated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from attnc.analysis import Analysis, analyze
from attnc.block_mask import as_fixed
from attnc.blocks import Geometry
from attnc.errors import InspectionOptionError
from attnc.intervals import Facts
from attnc.ir import TRUE, DType, Expr, Leaf, Level, Ref, walk
from attnc.lift import Lifted
from attnc.mods import Mod, mod_kind, mod_name
from attnc.plan import Plan, Spec, make_plan
from attnc.printer import format_expr, format_program
from attnc.program import Program, assemble, build_program
from attnc.run_table import RunTable
from attnc.runtime.dispatch import Fixed
from attnc.schedule import Schedule
from attnc.slots import SlotTable
from attnc.target import GPU_TARGETS, CpuTarget, GpuTarget, Target

Shape = tuple[int, int, int, int, int]

MACHINES = ("cpu", "cpu-avx512", "cpu-avx2", "cpu-generic", "triton", *GPU_TARGETS)
DTYPES = ("float32", "bfloat16", "float16", "float64")
LEGEND = "█ full  ▒ partial  · empty"
_DEFAULT_SHAPE: Shape = (1, 1, 1024, 1024, 64)
_SHORT_QUERIES = 16


@dataclass(frozen=True)
class Inspection:
    """One forward call, seen at every stage; each method returns text.

    Attributes:
        name: Of the user's function.
        program: The traced mask and score.
        shape: (B, H, n_queries, n_keys, head_dim).
        target: The machine that the plan is for.
        dtype: Storage dtype of q, k, v: a torch dtype's short name.
        table: The tiles of the BlockMask that was given as mask, or None.
    """

    name: str
    program: Program
    shape: Shape
    target: Target
    dtype: str
    table: RunTable | None

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
            dtype: One of ``DTYPES``; float32 on CPUs, bfloat16 on GPUs if None.

        Raises:
            InspectionOptionError: No such target or dtype, or a shape that has no call.
            TraceError: The function does something a kernel cannot do.
        """
        machine = _machine(target)
        if dtype is None:
            dtype = "float32" if isinstance(machine, CpuTarget) else "bfloat16"
        _require("dtype", dtype, DTYPES)
        if len(shape) != 5 or min(shape) < 1:
            problem = "give five positive numbers: B, H, n_queries, n_keys, head_dim."
            raise InspectionOptionError(option="shape", value=shape, problem=problem)
        mask, score = _roles(mod)
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
        return Inspection(mod_name(mod), program, shape, machine, dtype, table)

    @cached_property
    def _plan(self) -> Plan:
        return make_plan(self._spec(self.target))

    def analysis(self, block_size: int | tuple[int, int]) -> Analysis:
        """The tiles of the mask at the lengths of the call; those of a BlockMask are its own.

        Args:
            block_size: Tokens per tile, one number or (queries, keys).
        """
        n_batch, n_heads, n_queries, n_keys, _ = self.shape
        mask = TRUE if self.program.traced_mask is None else self.program.traced_mask
        tensors = self.program.tensors
        if self.table is None:
            found = analyze(
                mask, n_batch, n_heads, n_queries, n_keys, block_size, tensors=tensors
            )
            return replace(found, locations=self.program.locations)
        blocks = (block_size, block_size) if isinstance(block_size, int) else block_size
        geometry = Geometry(n_batch, n_heads, n_queries, n_keys, *blocks)
        table = self.table.refine(*blocks)
        return Analysis(mask, table, 0, self.program.locations, Facts(tensors), geometry)

    def _spec(self, target: Target) -> Spec:
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
        )

    @property
    def _gpu(self) -> GpuTarget:
        return self.target if isinstance(self.target, GpuTarget) else _default_gpu()

    def traced(self) -> str:
        """The function as traced, one operation per line, under the user's lines they came from."""
        parts = []
        for role, expr in self._roots(simplified=False):
            parts.append("\n".join([f"{role}:", *_traced_lines(expr, self.program.locations)]))
        return "\n\n".join(parts) or _NOTHING

    def ir(self) -> str:
        """The simplified mask and score; then what of them is an argument at run time."""
        parts = [
            f"{role}: {expr.dtype.value}\n{_indented(format_program(expr))}"
            for role, expr in self._roots()
        ]
        arguments = [*_param_lines(self.program.lifted)]
        for number, tensor in enumerate(self.program.tensors):
            arguments.append(f"t{number}: {self.program.slots[number].storage}{list(tensor.shape)}")
        if arguments:
            parts.append(f"arguments at run time:\n{_indented('; '.join(arguments))}")
        return "\n\n".join(parts) or _NOTHING

    def math(self) -> str:
        """The predicate, the keys a query sees, and the loop bounds of a tile, as formulas."""
        return "\n\n".join(self._math())

    def _math(self) -> Iterator[str]:
        lifted = self.program.lifted
        mask, score = lifted.exprs
        given = ", ".join(_param_lines(lifted))
        if given:
            yield f"With {given}:"
        yield f"visible(q_idx, kv_idx) =\n{_formula(TRUE if mask is None else mask)}"
        if score is not None:
            yield f"score =\n{_formula(score)}"
        plan = self._plan
        form = plan.closed_form
        if form is None:
            reasons = [d.why for d in plan.decisions if "table" in d.what]
            yield f"The tiles come from a table, not from a formula: {'; '.join(reasons)}."
            return
        from attnc.bounds import print_bound

        for name, expr in form.uniforms.items():
            yield f"{name} = {format_expr(expr)}"
        intervals = [
            f"{print_bound(i.start, 'math')} <= kv_idx < {print_bound(i.stop, 'math')}"
            for i in form.tokens
        ]
        seen = "\n  or\n".join(_indented(i) for i in intervals) or "    none"
        yield f"Query q_idx sees the keys\n{seen}"
        for number, run in enumerate(form.runs):
            which = f" {number + 1} of {len(form.runs)}" if len(form.runs) > 1 else ""
            bounds = {
                "start": run.start,
                "full_start": run.full_start,
                "full_stop": run.full_stop,
                "stop": run.stop,
            }
            lines = [f"{name:10} = {print_bound(e, 'math')}" for name, e in bounds.items()]
            yield "\n".join(
                [
                    f"Tiles of {form.block_m} queries, {form.block_n} keys: run{which} of key tiles "
                    "for query tile q_block",
                    *(f"    {line}" for line in lines),
                ]
            )
        if form.runs:
            yield (
                "PARTIAL in [start, full_start), FULL in [full_start, full_stop), "
                "PARTIAL in [full_stop, stop)."
            )

    def blocks(self) -> str:
        """A picture of the tiles, how many there are of each class, and what is saved."""
        tiles = self._plan.tiles
        analysis = self.analysis((tiles.block_m, tiles.block_n))
        table = analysis.table
        title = (
            f"{table.n_queries} queries x {table.n_keys} keys "
            f"in tiles of {table.block_m} x {table.block_n}"
        )
        groups = [
            f"{n} {what}" for n, what in ((table.n_batch, "batches"), (table.n_heads, "heads")) if n > 1
        ]
        if groups:
            title += f" for {' x '.join(groups)}, of which the first:"
        counts = [
            f"{count:>10,}  {name:8}{count / table.n_tiles:6.1%}  {meaning}"
            for name, count, meaning in (
                ("full", analysis.n_full, "computed without the mask"),
                ("partial", analysis.n_partial, "computed with the mask"),
                ("empty", analysis.n_empty, "skipped"),
            )
        ]
        n_pairs = self.shape[0] * self.shape[1] * table.n_queries * table.n_keys
        flops = 4.0 * n_pairs * self.shape[4]
        left = flops * (1.0 - analysis.flops_saved)
        return "\n".join(
            [
                title,
                "",
                analysis.picture(),
                LEGEND,
                "",
                *counts,
                "",
                f"{left:.3g} of {flops:.3g} FLOPs are left: {analysis.flops_saved:.1%} saved.",
                f"Tiles evaluated pair by pair to tell their class: {analysis.n_evaluated}.",
            ]
        )

    def plan(self) -> str:
        """Every decision about the kernel with its reason, and where each value is computed."""
        plan = self._plan
        lines = [f"kernel for {self.target.name}, {self.dtype}, head_dim {self.shape[4]}", ""]
        for decision in plan.decisions:
            lines += [f"- {decision.what}", f"    because {decision.why}"]
        for role, part in (("mask", plan.mask), ("score", plan.score)):
            if part is not None:
                lines += ["", f"{role}:", *_schedule_lines(part)]
        return "\n".join(lines)

    def cpp(self) -> str:
        """The C++ kernel; for this machine's CPU if the target is a GPU."""
        from attnc.render_cpp import render

        cpu = self.target if isinstance(self.target, CpuTarget) else _local_cpu()
        return render(make_plan(self._spec(cpu)))

    def triton(self) -> str:
        """The Triton kernel; for this machine's GPU, else sm_90, if the target is a CPU."""
        from attnc.render_triton import render

        return render(make_plan(self._spec(self._gpu)))

    def source(self) -> str:
        """The generated kernel for the target: C++ or Triton."""
        return self.cpp() if isinstance(self.target, CpuTarget) else self.triton()

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

    def _roots(self, *, simplified: bool = True) -> Iterator[tuple[str, Expr]]:
        program = self.program
        mask = program.mask if simplified else program.traced_mask
        score = program.score if simplified else program.traced_score
        if mask is not None:
            yield "mask", mask
        if score is not None:
            yield "score", score


_DECLARATION = re.compile(r"\w+: ")
_NOTHING = "no mask and no score_mod: plain attention"


def _require(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        problem = f"use one of {', '.join(known)}."
        raise InspectionOptionError(option=option, value=value, problem=problem)


def _machine(name: str) -> Target:
    _require("target", name, MACHINES)
    match name:
        case "cpu":
            return _local_cpu()
        case "cpu-avx512":
            return CpuTarget("avx512")
        case "cpu-avx2":
            return CpuTarget("avx2")
        case "cpu-generic":
            return CpuTarget("generic")
        case "triton":
            return _default_gpu()
        case _:
            return GPU_TARGETS[name]


def _local_cpu() -> CpuTarget:
    from attnc.runtime.isa import best_isa

    return CpuTarget(best_isa())


def _default_gpu() -> GpuTarget:
    if not torch.cuda.is_available() or torch.version.hip:
        return GPU_TARGETS["sm_90"]
    major, minor = torch.cuda.get_device_capability()
    return GpuTarget("cuda", 10 * major + minor, 32)


def _roles(mod: Any) -> tuple[Any, Mod | None]:
    """Mask (function or BlockMask) and score of a Kernel or of a plain function."""
    if hasattr(mod, "mask") and hasattr(mod, "score"):
        return mod.mask, mod.score
    return (mod, None) if mod_kind(mod) == "mask_mod" else (None, mod)


def _fixed(block_mask: Any, shape: Shape) -> Fixed | None:
    n_batch, n_heads, n_queries, n_keys, head_dim = shape
    one = torch.empty(1)
    q = one.expand(n_batch, n_heads, n_queries, head_dim)
    return as_fixed(block_mask, q, one.expand(n_batch, n_heads, n_keys, head_dim))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _formula(expr: Expr) -> str:
    """An expression without the dtypes of what it reads."""
    lines = format_program(expr).splitlines()
    return _indented("\n".join(line for line in lines if not _DECLARATION.match(line)))


def _param_lines(lifted: Lifted) -> list[str]:
    return [f"p{number} = {value}" for number, value in enumerate(lifted.values)]


def _traced_lines(expr: Expr, locations: Mapping[Expr, Any]) -> Iterator[str]:
    """One line per operation; the user's source line before those that it made."""
    names: dict[Expr, Expr] = {}
    n_values = 0
    last = None
    for node in walk(expr):
        if isinstance(node, Leaf):
            names[node] = node
            continue
        location = locations.get(node)
        if location is not None and location != last:
            yield f"  {location}  {location.source}"
            last = location
        shown = node.rebuild(tuple(names[child] for child in node.children))
        names[node] = Ref(f"v{n_values}", node.dtype, Level.ELEMENT)
        n_values += 1
        yield f"    {format_expr(names[node])} = {format_expr(shown)}"
    yield f"  -> {format_expr(names[expr])}"


def _schedule_lines(part: Schedule) -> Iterator[str]:
    places = {
        Level.UNIFORM: "once per tile of queries",
        Level.ROW: "once per row",
        Level.COLUMN: "once per column",
        Level.ELEMENT: "per element",
    }
    for level, place in places.items():
        lets = [f"{let.name} = {format_expr(let.expr)}" for let in part.at(level)]
        if level is Level.ELEMENT:
            lets.append(format_expr(part.result))
        if lets:
            yield f"  {place}:"
            yield from (f"    {line}" for line in lets)
