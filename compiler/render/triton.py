"""Triton source of a plan's forward kernel: a module that stands alone, made to be read."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal

import jinja2

from attnc.bounds import BlockRun, print_bound
from attnc.ir import DType, Expr, Gather, Index, Level, Param, Ref, walk
from attnc.plan import Plan
from attnc.render.rounding import SCALE, scaled_inside, tolerant_nodes
from attnc.render.triton_expressions import TritonWriter, type_name
from attnc.schedule import Let, Schedule, schedule
from attnc.target import INTERPRETER
from attnc.tiles import padded

TEMPLATES = ("forward.py.jinja", "triton_functions.py.jinja")

LoopKind = Literal["PARTIAL", "FULL"]


@dataclass(frozen=True)
class Loop:
    """One loop over kv tiles of a kernel, in order of the source; ends are names in it."""

    kind: LoopKind
    start: str
    stop: str


@dataclass(frozen=True)
class _Slot:
    number: int
    dims: range


@dataclass(frozen=True)
class _Param:
    number: int
    annotation: str
    dtype: str
    is_float: bool


def render(plan: Plan) -> str:
    """Source of a Python module whose ``attention_forward`` is the kernel of ``plan``."""
    spec, tiles = plan.spec, plan.tiles
    writer = TritonWriter(spec.wide_index)
    bound_lines = _bound_lines(plan)
    bounds_writer = TritonWriter(spec.wide_index, raw_params=True)
    for name, part in plan.bounds:
        bound_lines += bounds_writer.assignments(part.lets)
        text = bounds_writer.expression(part.result, name, Level.UNIFORM, bound_lines)
        bound_lines.append(f"{name} = tl.cast({text}, tl.int64)")
    score_schedule, scales_score = _score_schedule(plan)
    if score_schedule is not None:
        writer.tolerant = tolerant_nodes(score_schedule)
    parts = [part for part in (plan.mask, score_schedule) if part is not None]
    hoisted = [
        let for level in (Level.UNIFORM, Level.ROW) for part in parts for let in part.at(level)
    ]
    hoisted_lines = writer.assignments(hoisted)
    mask_lines, mask = _tile_text(writer, plan.mask, "mask")
    score_lines, score = _tile_text(writer, score_schedule, "score")
    accumulates_64 = spec.float_dtype is DType.FLOAT64
    dot_dtype = _dot_dtype(plan)
    source = (
        _environment()
        .get_template("forward.py.jinja")
        .render(
            title=_title(plan),
            is_nvidia=spec.target.name.startswith("sm_"),
            functions=writer.functions | bounds_writer.functions,
            block_m=tiles.block_m,
            block_n=tiles.block_n,
            n_warps=tiles.n_warps,
            n_stages=tiles.n_stages,
            head_dim=spec.head_dim,
            value_dim=spec.value_dim,
            head_block=padded(spec.head_dim),
            value_block=padded(spec.value_dim),
            pads_head=padded(spec.head_dim) != spec.head_dim,
            pads_value=padded(spec.value_dim) != spec.value_dim,
            acc_dtype="tl.float64" if accumulates_64 else "tl.float32",
            dot_dtype=dot_dtype,
            dot_operand=lambda name: f"{name}.to({dot_dtype})" if dot_dtype else name,
            weights_operand="weights.to(v.dtype)" if _casts_weights(plan) else "weights",
            wide=(lambda name: f"tl.cast({name}, tl.int64)") if spec.wide_index else str,
            slots=[_Slot(number, range(spec.slots[number].rank)) for number in plan.slots],
            params=[_param(number, dtype) for number, dtype in enumerate(spec.params)],
            context=_context(plan, parts),
            hoisted_lines=hoisted_lines,
            mask_lines=mask_lines,
            mask=mask,
            score_lines=score_lines,
            score=score,
            scales_score=scales_score,
            qk_is_live=plan.qk_is_live,
            runs=list(_runs(plan)),
            bound_lines=bound_lines,
            uses_table=plan.uses_table,
            full_tail=spec.from_table,
            wants_lse=spec.wants_lse,
            wants_max=spec.wants_max,
        )
    )
    return source.rstrip() + "\n"


def render_functions(names: AbstractSet[str]) -> str:
    """Source of the functions that a ``TritonWriter`` says expressions need."""
    return (
        _environment()
        .get_template("triton_functions.py.jinja")
        .render(functions=names, is_nvidia=False)
    )


def loops_of(plan: Plan) -> tuple[Loop, ...]:
    """The loops over kv tiles in the kernel of ``plan``, in order; the tail tile has none."""
    if plan.closed_form is None:
        return tuple(Loop(kind, "run_start", "run_stop") for kind in ("PARTIAL", "FULL"))
    return tuple(
        loop for n, run in enumerate(plan.closed_form.runs) for loop in _loops_of_run(plan, n, run)
    )


def _loops_of_run(plan: Plan, number: int, run: BlockRun) -> Iterator[Loop]:
    """Loops of one run; one that is empty whatever the lengths are is left out."""
    start, full_start = f"start{number}", f"full_start{number}"
    full_stop, stop = f"full_stop{number}", f"stop{number}"
    if not plan.has_partial_tiles:
        yield Loop("FULL", start, stop)
        return
    if run.full_start != run.start:
        yield Loop("PARTIAL", start, full_start)
    if run.full_start != run.full_stop:
        yield Loop("FULL", full_start, full_stop)
    if run.full_stop != run.stop:
        yield Loop("PARTIAL", full_stop, stop)


def _runs(plan: Plan) -> Iterator[dict[str, Any]]:
    if plan.closed_form is None:
        return
    cursor = "0"
    for number, run in enumerate(plan.closed_form.runs):
        yield {
            "number": number,
            "start": print_bound(run.start, "triton"),
            "full_start": print_bound(run.full_start, "triton"),
            "full_stop": print_bound(run.full_stop, "triton"),
            "stop": print_bound(run.stop, "triton"),
            "cursor": cursor,
            "parts": list(_loops_of_run(plan, number, run)),
        }
        cursor = f"stop{number}"  # clamped, a run never stops before it starts


def _bound_lines(plan: Plan) -> list[str]:
    """Statements that widen the constants in the closed form, which may be near 2**31."""
    if plan.closed_form is None:
        return []
    read = {
        str(symbol)
        for run in plan.closed_form.runs
        for end in (run.start, run.full_start, run.full_stop, run.stop)
        for symbol in end.free_symbols
    }
    names = (f"p{number}" for number in range(len(plan.spec.params)))
    return [f"{name} = tl.cast({name}, tl.int64)" for name in names if name in read]


def _score_schedule(plan: Plan) -> tuple[Schedule | None, bool]:
    """Schedule of the score_mod, and whether it is over the score: otherwise, over q . k."""
    if plan.score is None or plan.spec.score is None:
        return None, False
    inside = scaled_inside(plan.spec.score)
    if inside is None or not plan.qk_is_live:
        return plan.score, True
    return schedule(inside, "s"), False


def _tile_text(writer: TritonWriter, part: Schedule | None, name: str) -> tuple[list[str], str]:
    """Statements and result of what a tile computes anew; ("", []) without a schedule."""
    if part is None:
        return [], ""
    lines = writer.assignments((*part.at(Level.COLUMN), *part.at(Level.ELEMENT)))
    return lines, writer.expression(part.result, name, Level.ELEMENT, lines)


def _context(plan: Plan, parts: Iterable[Schedule]) -> list[str]:
    """Names from outside the loops that a tile reads, in order of first use."""
    slots = plan.spec.slots
    names: dict[str, None] = {}
    for part in parts:
        inner = [let.expr for let in part.lets if _is_inner(let)]
        for node in walk(*inner, part.result):
            for name in _outer_names(node, slots):
                names[name] = None
    return list(names)


def _is_inner(let: Let) -> bool:
    return let.level in (Level.COLUMN, Level.ELEMENT)


def _outer_names(node: Expr, slots: tuple[Any, ...]) -> Iterator[str]:
    match node:
        case Index(name) if name.value != "kv_idx":
            yield name.value
        case Param(number, _):
            yield f"p{number}"
        case Ref(name, _, Level.UNIFORM | Level.ROW) if name != SCALE:
            yield name
        case Gather(slot, _, _):
            yield f"t{slot}_ptr"
            for dim in range(slots[slot].rank):
                yield f"t{slot}_size{dim}"
                yield f"t{slot}_stride{dim}"


def _param(number: int, dtype: DType) -> _Param:
    annotation = "tl.float64" if dtype.is_float else "tl.int64"
    return _Param(number, annotation, type_name(dtype), dtype.is_float)


def _dot_dtype(plan: Plan) -> str:
    # Triton's interpreter multiplies the bits of bfloat16 as if they were integers.
    is_broken = plan.spec.target == INTERPRETER and plan.spec.dtype == "bfloat16"
    return "tl.float32" if is_broken else ""


def _casts_weights(plan: Plan) -> bool:
    return plan.spec.dtype in ("float16", "bfloat16") and not _dot_dtype(plan)


def _title(plan: Plan) -> str:
    spec = plan.spec
    mask = "no mask" if plan.mask is None else "a mask"
    score = "the plain score" if plan.score is None else "a score_mod"
    return (
        f"Attention forward, {spec.dtype}, widths {spec.head_dim} and {spec.value_dim}, "
        f"{mask}, {score}."
    )


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("attnc.codegen_templates", ""),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
