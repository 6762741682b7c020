"""What Triton kernels of both directions are made of: loops, texts of tiles, names."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jinja2

from attnc.bounds import BlockRun, ClosedForm, print_bound
from attnc.bounds.algebra import substituted
from attnc.bounds.term import symbol
from attnc.ir import DType, Expr, Gather, Index, IndexName, Level, Param, Ref, walk
from attnc.plan import PartialMasks, Plan, Term
from attnc.render.rounding import SCALE, tolerant_nodes
from attnc.render.triton_expressions import TritonWriter
from attnc.render.triton_names import type_name
from attnc.schedule import Schedule
from attnc.target import INTERPRETER
from attnc.tiles import padded

LoopKind = Literal["PARTIAL", "FULL"]


@dataclass(frozen=True)
class Loop:
    """One loop over tiles of a kernel, in order of the source; ends are names in it."""

    kind: LoopKind
    start: str
    stop: str
    checks: str = (
        "ALL"  # of PARTIAL tiles: a name of PartialMasks.schedules; or the bits of terms that hold
    )


@dataclass(frozen=True)
class Visit:
    """What the loops of a kernel go over: see ``visits.py.jinja``."""

    block: str
    n_blocks: str
    outer: str
    runs: tuple[dict[str, Any], ...]
    exchanges: tuple[tuple[int, int], ...]
    uses_table: bool
    tail_may_be_full: bool
    tail_is_loop: bool
    n_terms: int

    @property
    def n_whole(self) -> str:
        return "n_whole_blocks"

    @property
    def loops(self) -> tuple[Loop, ...]:
        """The loops over whole tiles, in order; the tail tile has none."""
        if self.uses_table:
            return tuple(Loop(kind, "run_start", "run_stop") for kind in ("PARTIAL", "FULL"))
        return tuple(loop for run in self.runs for loop in run["parts"])


@dataclass(frozen=True)
class Slot:
    """A captured tensor that a kernel reads."""

    number: int
    dims: range


@dataclass(frozen=True)
class KernelParam:
    """A lifted constant, as an argument of a kernel."""

    number: int
    annotation: str
    dtype: str
    is_float: bool


def common_variables(plan: Plan) -> dict[str, Any]:
    """Variables of the templates of both directions."""
    spec, tiles = plan.spec, plan.tiles
    dot_dtype = _dot_dtype(plan)
    rounds = spec.dtype in ("float16", "bfloat16") and not dot_dtype
    return {
        "is_nvidia": spec.target.name.startswith("sm_"),
        "block_m": tiles.block_m,
        "block_n": tiles.block_n,
        "n_warps": tiles.n_warps,
        "n_stages": tiles.n_stages,
        "head_dim": spec.head_dim,
        "value_dim": spec.value_dim,
        "head_block": padded(spec.head_dim),
        "value_block": padded(spec.value_dim),
        "pads_head": padded(spec.head_dim) != spec.head_dim,
        "pads_value": padded(spec.value_dim) != spec.value_dim,
        "acc_dtype": "tl.float64" if spec.float_dtype is DType.FLOAT64 else "tl.float32",
        "dot_dtype": dot_dtype,
        "dot_operand": lambda name: f"{name}.to({dot_dtype})" if dot_dtype else name,
        "rounded": lambda name, like: f"{name}.to({like}.dtype)" if rounds else name,
        "wide": (lambda name: f"tl.cast({name}, tl.int64)") if spec.wide_index else str,
        "slots": [Slot(number, range(spec.slots[number].rank)) for number in plan.slots],
        "params": [_param(number, dtype) for number, dtype in enumerate(spec.params)],
        "qk_is_live": plan.qk_is_live,
    }


def visit_keys(plan: Plan) -> Visit:
    """The loops of a tile of queries over tiles of keys."""
    return Visit(
        block="kv_block",
        n_blocks="n_kv_blocks",
        outer="q_block",
        runs=tuple(_runs(plan.masks, plan.closed_form, {}, "kv_block")),
        exchanges=() if plan.closed_form is None else plan.closed_form.exchanges,
        uses_table=plan.uses_table,
        tail_may_be_full=plan.spec.from_table,
        tail_is_loop=plan.tail_is_loop,
        n_terms=0 if plan.masks is None else len(plan.masks.terms),
    )


def visit_queries(plan: Plan) -> Visit:
    """The loops of a tile of keys over tiles of queries, in a backward kernel."""
    names = {"q_block": "kv_block", "n_queries": "n_keys", "n_keys": "n_queries"}
    exchanged = {symbol(x): symbol(y) for x, y in names.items()} if plan.transposed else {}
    return Visit(
        block="q_block",
        n_blocks="n_q_blocks",
        outer="kv_block",
        runs=tuple(_runs(plan.transposed_masks, plan.transposed, exchanged, "q_block")),
        exchanges=() if plan.transposed is None else plan.transposed.exchanges,
        uses_table=plan.uses_table,
        tail_may_be_full=plan.spec.from_table,
        tail_is_loop=plan.tail_is_loop,
        n_terms=0 if plan.transposed_masks is None else len(plan.transposed_masks.terms),
    )


def _runs(
    masks: PartialMasks | None,
    closed_form: ClosedForm | None,
    renamed: Mapping[Any, Any],
    block: str,
) -> Iterator[dict[str, Any]]:
    if closed_form is None:
        return
    cursor = "0"
    for number, run in enumerate(closed_form.runs):
        has_parts = masks is not None and masks.has_parts and run is closed_form.runs[-1]
        if masks is not None and has_parts:
            parts = list(_loops_of_parts(masks, number))
        else:
            parts = list(_loops_of_run(masks, number, run, not closed_form.is_ordered))
            if masks is not None and masks.terms:
                held = _held(masks, number, block)
                parts = [replace(loop, checks=held) for loop in parts]
        yield {
            "number": number,
            "start": print_bound(substituted(run.start, renamed), "triton"),
            "full_start": print_bound(substituted(run.full_start, renamed), "triton"),
            "full_stop": print_bound(substituted(run.full_stop, renamed), "triton"),
            "stop": print_bound(substituted(run.stop, renamed), "triton"),
            "cursor": cursor,
            "parts": parts,
            "has_parts": has_parts,
            "has_terms": masks is not None and bool(masks.terms),
            "low_stop": _end(masks.low_stop if masks else None, renamed, f"start{number}"),
            "high_start": _end(masks.high_start if masks else None, renamed, f"stop{number}"),
        }
        cursor = f"stop{number}"  # clamped, a run never stops before it starts


def _held(masks: PartialMasks, number: int, block: str) -> str:
    """The terms that hold all over a tile of a run, as bits: an expression of the kernel."""
    at = {"low": f"{block} >= low_stop{number}", "high": f"{block} < high_start{number}"}
    bits = [(1 << place, term.side) for place, term in enumerate(masks.terms)]
    return " | ".join(f"tl.where({at[side]}, {bit}, 0)" for bit, side in bits if side)


def _end(bound: Any, renamed: Mapping[Any, Any], without: str) -> str:
    return without if bound is None else print_bound(substituted(bound, renamed), "triton")


def _loops_of_parts(masks: PartialMasks, number: int) -> Iterator[Loop]:
    """Loops of a run of which parts check less than the whole mask."""
    start, stop = f"start{number}", f"stop{number}"
    low_stop, both_stop, middle_stop = (f"{x}_stop{number}" for x in ("low", "both", "middle"))
    if masks.middle is None:
        yield Loop("PARTIAL", start, low_stop, "LOW")
        yield Loop("PARTIAL", low_stop, both_stop)
        yield Loop("FULL", both_stop, middle_stop)
        yield Loop("PARTIAL", middle_stop, stop, "HIGH")
        return
    if masks.low_stop is not None:
        yield Loop("PARTIAL", start, both_stop)
    yield Loop("PARTIAL", both_stop, middle_stop, "MIDDLE")
    if masks.high_start is not None:
        yield Loop("PARTIAL", middle_stop, stop)


def _loops_of_run(
    masks: PartialMasks | None, number: int, run: BlockRun, may_be_another: bool
) -> Iterator[Loop]:
    """Loops of one run; one that is empty whatever the lengths are is left out.

    ``may_be_another``: runs are put in order first, so it may be any of them.
    """
    start, full_start = f"start{number}", f"full_start{number}"
    full_stop, stop = f"full_stop{number}", f"stop{number}"
    if masks is None:
        yield Loop("FULL", start, stop)
        return
    if may_be_another or run.full_start != run.start:
        yield Loop("PARTIAL", start, full_start)
    if may_be_another or run.full_start != run.full_stop:
        yield Loop("FULL", full_start, full_stop)
    if may_be_another or run.full_stop != run.stop:
        yield Loop("PARTIAL", full_stop, stop)


def tolerant_of(scores: Iterable[Schedule], mask: Schedule | None) -> frozenset[Expr]:
    """Nodes that may be rounded once where the IR rounds twice: none that the mask reads."""
    nodes = frozenset[Expr]().union(*(tolerant_nodes(part) for part in scores))
    if mask is None:
        return nodes
    return nodes - frozenset(walk(*(let.expr for let in mask.lets), mask.result))


def hoisted_lines(
    writer: TritonWriter, parts: Collection[Schedule], levels: Sequence[Level]
) -> list[str]:
    """Statements before the loops, for what is the same in all of them."""
    return writer.assignments(let for level in levels for part in parts for let in part.at(level))


def tile_text(
    writer: TritonWriter, part: Schedule | None, name: str, levels: Sequence[Level]
) -> tuple[list[str], str]:
    """Statements and result of what a tile computes anew; ("", []) without a schedule."""
    if part is None:
        return [], ""
    lines = writer.assignments([let for level in levels for let in part.at(level)])
    return lines, writer.expression(part.result, name, Level.ELEMENT, lines)


@dataclass(frozen=True)
class MaskText:
    """What a PARTIAL tile checks, if its loop asks for it by ``name``; ``mask``: the result.

    ``bit``: of a term, in place of a name; its ``shared_lines`` come before all branches, so that
    what they load can be loaded ahead.
    """

    name: str
    lines: list[str]
    mask: str
    bit: int = 0
    shared_lines: Sequence[str] = ()


def mask_texts(
    writer: TritonWriter, masks: PartialMasks | None, levels: Sequence[Level]
) -> list[MaskText]:
    """Texts of all that PARTIAL tiles check, the whole mask last, or those of its terms; none
    without a mask."""
    if masks is None:
        return []
    if masks.terms:
        return [_term_text(writer, term, n, levels) for n, term in enumerate(masks.terms)]
    found = []
    for name, part in masks.schedules.items():
        lines, text = tile_text(writer, part, f"{name.lower()}_mask", levels)
        found.append(MaskText(name, lines, text))
    return found


def _term_text(writer: TritonWriter, term: Term, number: int, levels: Sequence[Level]) -> MaskText:
    part = term.schedule
    shared = writer.assignments(
        [let for level in levels if level is not Level.ELEMENT for let in part.at(level)]
    )
    lines, text = tile_text(writer, part, f"term{number}", (Level.ELEMENT,))
    return MaskText(f"term{number}", lines, text, 1 << number, shared)


def context(
    plan: Plan, parts: Iterable[Schedule], inner: Collection[Level], own: IndexName
) -> list[str]:
    """Names from outside the loops that a tile reads, in order of first use.

    ``inner`` are the levels that it computes itself, ``own`` the index that it goes over.
    """
    names: dict[str, None] = {}
    for part in parts:
        exprs = [let.expr for let in part.lets if let.level in inner]
        for node in walk(*exprs, part.result):
            for name in _outer_names(node, plan, inner, own):
                names[name] = None
    return list(names)


def _outer_names(node: Expr, plan: Plan, inner: Collection[Level], own: IndexName) -> Iterator[str]:
    match node:
        case Index(name) if name is not own:
            yield name.value
        case Param(number, _):
            yield f"p{number}"
        case Ref(name, _, level) if level not in inner and name != SCALE:
            yield name
        case Gather(slot, _, _):
            yield f"t{slot}_ptr"
            for dim in range(plan.spec.slots[slot].rank):
                yield f"t{slot}_size{dim}"
                yield f"t{slot}_stride{dim}"


def _param(number: int, dtype: DType) -> KernelParam:
    annotation = "tl.float64" if dtype.is_float else "tl.int64"
    return KernelParam(number, annotation, type_name(dtype), dtype.is_float)


def _dot_dtype(plan: Plan) -> str:
    # Triton's interpreter multiplies the bits of bfloat16 as if they were integers.
    is_broken = plan.spec.target == INTERPRETER and plan.spec.dtype == "bfloat16"
    return "tl.float32" if is_broken else ""


@functools.cache
def environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("attnc.codegen_templates", ""),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
