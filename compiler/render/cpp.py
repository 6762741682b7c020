"""C++ source text of planned kernels.

A unit holds any number of kernels; each is a namespace with an entry ``NAME_forward`` that takes
``Args`` (see ``prelude.cpp.jinja``). The loops follow the plan: what it hoists out of a loop is
computed once per tile of queries, row or column.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from attnc.bounds import print_bound
from attnc.ir import Expr, Gather, Index, IndexName, Level, Param, Ref
from attnc.plan import Plan
from attnc.render.cpp_expressions import CPP_TYPES, STORAGE_TYPES, Block
from attnc.render.cpp_gradients import GradientsText, gradients_text
from attnc.render.cpp_loops import Array, LoopText, arrays_at, loop_text, q_line
from attnc.schedule import Schedule
from attnc.target import CpuIsa, CpuTarget

# Interpolated at Chebyshev nodes: 2^r on [-1/2, 1/2] and e^r on [-log(2)/2, log(2)/2].
_FLOAT_EXP2 = (
    "0.00015461445f, 0.0013400428f, 0.009618057f, 0.05550327f, 0.2402265f, 0.6931472f, 1.0f"
)
_FLOAT_EXP = "0.0013941108f, 0.008375126f, 0.04166635f, 0.16666415f, 0.5f, 1.0f, 1.0f"
_DOUBLE_EXP2 = (
    "4.4558179083360645e-10, 7.074194297288521e-09, 1.0178057087733941e-07, "
    "1.3215432535912375e-06, 1.5252733841556773e-05, 0.00015403530463724353, "
    "0.001333355814640647, 0.009618129107587256, 0.055504108664821625, 0.24022650695910158, "
    "0.6931471805599453, 1.0"
)
# Rows and vectors of the register tile of matrix products: they fill the vector registers.
_REGISTER_TILES: dict[CpuIsa, tuple[int, int]] = {
    "amx": (4, 4),
    "avx512_bf16": (4, 4),
    "avx512": (4, 4),
    "avx2": (4, 2),
    "generic": (4, 2),
}

_AMX_BLOCK_N = 32  # keys that AMX multiplies at the least


@dataclass(frozen=True)
class RunText:
    """One run of a closed form, in C++."""

    start: str
    full_start: str
    full_stop: str
    stop: str


@dataclass(frozen=True)
class TermText:
    """A term of the mask, which the tiles of the last run that ``held`` is true of need not check.

    ``bit``: its bit in the terms that hold, in tables too. ``held``: over ``kv_block``, or "".
    """

    bit: int
    loop: LoopText
    held: str


@dataclass(frozen=True)
class KernelText:
    """The variables of ``forward.cpp.jinja``."""

    name: str
    real: str
    storage: str
    unit: str
    head_dim: int
    value_dim: int
    block_m: int
    block_n: int
    qk_is_live: bool
    uses_table: bool
    visits_full: bool
    visits_partial: bool
    joins_heads: bool
    uniform_lines: tuple[str, ...]
    row_arrays: tuple[Array, ...]
    row_lines: tuple[str, ...]
    score: LoopText | None  # of FULL tiles
    mask: LoopText | None  # of PARTIAL tiles: whether a key is visible,
    terms: tuple[TermText, ...]  # the same in tiles all over which some of them hold,
    visible_score: LoopText  # and what follows where some keys are visible
    raw_runs: tuple[RunText, ...]
    exchanges: tuple[tuple[int, int], ...]
    runs: tuple[RunText, ...]
    gradients: GradientsText | None


def render(plan: Plan) -> str:
    """Source of one kernel, named ``attnc``."""
    return _render([plan], ["attnc"])


def render_many(plans: Sequence[Plan]) -> str:
    """Source of a unit with kernels named ``attnc0``, ``attnc1``, ... for one target."""
    return _render(plans, [f"attnc{number}" for number in range(len(plans))])


_TEMPLATES = (
    "prelude.cpp.jinja",
    "math.cpp.jinja",
    "elementary.cpp.jinja",
    "gemm.cpp.jinja",
    "softmax.cpp.jinja",
    "pack.cpp.jinja",
    "gather.cpp.jinja",
    "drive.cpp.jinja",
    "entry.cpp.jinja",
)

_CALLS = re.compile(r"\bop::(\w+)")  # in the text of a kernel


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("attnc.codegen_templates", ""),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["cpp_bool"] = lambda value: "true" if value else "false"
    return environment


def _render(plans: Sequence[Plan], names: Sequence[str]) -> str:
    target = plans[0].spec.target
    assert isinstance(target, CpuTarget)
    gemm_rows, gemm_vectors = _REGISTER_TILES[target.isa]
    # The keys of a narrower tile would not fill a pair of AMX's tiles: AVX512-BF16 multiplies them.
    is_wide = all(plan.tiles.block_n >= _AMX_BLOCK_N for plan in plans)
    uses_amx = target.isa == "amx" and is_wide
    common = {
        "vector_bytes": target.vector_bytes,
        "gemm_rows": gemm_rows,
        "gemm_vectors": gemm_vectors,
        "float_poly": _FLOAT_EXP2,
        "double_poly": _DOUBLE_EXP2,
        "float_exp": _FLOAT_EXP,
        "float_exp2": _FLOAT_EXP2,
        "uses_amx": uses_amx,
        "kernels": [
            (name, plan.spec.gradients is not None) for plan, name in zip(plans, names, strict=True)
        ],
    }
    *prelude, entry = _TEMPLATES
    if any(plan.spec.gradients for plan in plans):
        prelude.append("backward.cpp.jinja")
    if uses_amx:
        prelude.insert(prelude.index("gemm.cpp.jinja") + 1, "amx.cpp.jinja")
    template = _environment().get_template
    kernels = [
        template(_kernel_template(plan)).render(kernel=_kernel_text(plan, name))
        for plan, name in zip(plans, names, strict=True)
    ]
    # What no kernel calls is not compiled either.
    calls = set(_CALLS.findall("".join(kernels)))
    parts = [template(name).render(common, functions=calls) for name in prelude]
    return "".join([*parts, *kernels, template(entry).render(common)])


def _kernel_template(plan: Plan) -> str:
    return "forward.cpp.jinja" if plan.spec.gradients is None else "differentiate.cpp.jinja"


def _kernel_text(plan: Plan, name: str) -> KernelText:
    spec = plan.spec
    stored = "row" if spec.gradients is None else "modified"
    score = None if plan.score is None else loop_text(spec, [plan.score], stored + "[j] = {};")
    mask = (
        None
        if plan.mask is None
        else loop_text(spec, [plan.mask], "visible[j] = -(Int<real>)({});")
    )
    terms = _terms(plan)
    shown = "row[j] = visible[j] ? {} : -Limits<real>::inf;"
    visible_score = loop_text(spec, [plan.score], shown)
    gradients = gradients_text(plan)
    more = () if gradients is None else gradients.loops
    checks = [mask, *(term.loop for term in terms)]
    loops = [loop for loop in (score, *checks, visible_score, *more) if loop is not None]
    inner_reads = frozenset().union(*(loop.leaves for loop in loops))
    row_lines, row_arrays, row_reads = _rows(plan, inner_reads)
    raw_runs, bound_names = _runs(plan)
    closed = plan.closed_form
    exchanges = () if closed is None else closed.exchanges
    runs = _ordered(raw_runs) if exchanges else raw_runs
    uniform_lines = _uniforms(plan, inner_reads | row_reads, bound_names)
    if plan.joins_heads:  # then each loop declares all of them, for its head
        uniform_lines = tuple(f"[[maybe_unused]] {line}" for line in uniform_lines)
    return KernelText(
        name=name,
        real=CPP_TYPES[spec.float_dtype],
        storage=STORAGE_TYPES[spec.dtype],
        unit="Pair" if plan.multiplies_pairs else CPP_TYPES[spec.float_dtype],
        head_dim=spec.head_dim,
        value_dim=spec.value_dim,
        block_m=plan.tiles.block_m,
        block_n=plan.tiles.block_n,
        qk_is_live=plan.qk_is_live,
        uses_table=plan.uses_table,
        visits_full=closed is None or bool(runs),
        visits_partial=plan.has_partial_tiles and (closed is None or bool(runs)),
        joins_heads=plan.joins_heads,
        uniform_lines=uniform_lines,
        row_arrays=row_arrays,
        row_lines=row_lines,
        score=score,
        mask=mask,
        terms=terms,
        visible_score=visible_score,
        raw_runs=raw_runs if exchanges else (),
        exchanges=exchanges,
        runs=runs,
        gradients=gradients,
    )


def _terms(plan: Plan) -> tuple[TermText, ...]:
    masks = plan.masks
    if masks is None:
        return ()
    held = {"": ""}
    if masks.low_stop is not None:
        held["low"] = f"kv_block >= {_bound_text(masks.low_stop)}"
    if masks.high_start is not None:
        held["high"] = f"kv_block < {_bound_text(masks.high_start)}"
    result = "visible[j] &= -(Int<real>)({});"
    return tuple(
        TermText(1 << number, loop_text(plan.spec, [term.schedule], result), held[term.side])
        for number, term in enumerate(masks.terms)
    )


def _rows(
    plan: Plan, reads: frozenset[Expr]
) -> tuple[tuple[str, ...], tuple[Array, ...], frozenset[Expr]]:
    """Lines of the loop over rows, the arrays they fill, and what they read."""
    arrays = arrays_at(reads, Level.ROW)
    if not arrays:
        return (), (), frozenset()
    block = Block(plan.spec.slots)
    for part in plan.parts:
        if part is not None:
            for let in part.at(Level.ROW):
                block.declare(let.name, let.expr)
    stores = [f"{array.name}_row[i] = {array.name};" for array in arrays]
    return (*q_line(block.reads), *block.lines, *stores), arrays, frozenset(block.reads)


def _uniforms(plan: Plan, reads: frozenset[Expr], bound_names: frozenset[str]) -> tuple[str, ...]:
    """Declarations at the head of a kernel: what its loops read, in order of dependence."""
    block = Block(plan.spec.slots)
    wanted = {leaf.name for leaf in reads if isinstance(leaf, Ref) and leaf.level is Level.UNIFORM}
    for part in plan.parts:
        if part is not None:
            _declare_uniforms(block, part, wanted)
    for name, part in plan.bounds:
        for let in part.at(Level.UNIFORM):
            block.declare(let.name, let.expr)
        block.lines.append(f"const int64_t {name} = (int64_t)({block.value(part.result)});")
    reads = reads | block.reads
    lines = []
    for index in (IndexName.B, IndexName.H):
        if Index(index) in reads:
            lines.append(f"const int32_t {index.value} = (int32_t)item.{index.value};")
    if "q_block" in bound_names:
        lines.append("const int64_t q_block = item.q_block;")
    for name in ("n_queries", "n_keys"):
        if name in bound_names:
            lines.append(f"const int64_t {name} = forward.args.{name};")
    used = {leaf.number for leaf in reads if isinstance(leaf, Param)}
    for number, dtype in enumerate(plan.spec.params):
        array = "int_params" if dtype.is_int else "float_params"
        source = f"forward.args.{array}[{number}]"
        if number in used:
            lines.append(f"const {CPP_TYPES[dtype]} p{number} = ({CPP_TYPES[dtype]}){source};")
        if f"p{number}" in bound_names:
            lines.append(f"const int64_t wide_p{number} = (int64_t){source};")
    gathered = {node.slot for node in reads if isinstance(node, Gather)}
    for slot in sorted(gathered):
        lines += _slot_lines(slot, plan)
    return (*lines, *block.lines)


def _declare_uniforms(block: Block, part: Schedule, wanted: set[str]) -> None:
    """Declares the UNIFORM lets that ``wanted`` names and those that they need."""
    lets = part.at(Level.UNIFORM)
    needed = set(wanted)
    for let in reversed(lets):
        if let.name in needed:
            probe = Block(block.slots)
            probe.value(let.expr)
            needed |= {leaf.name for leaf in probe.reads if isinstance(leaf, Ref)}
    for let in lets:
        if let.name in needed:
            block.declare(let.name, let.expr)


def _slot_lines(slot: int, plan: Plan) -> list[str]:
    kind = plan.spec.slots[slot]
    source = f"forward.args.slots[{plan.slots.index(slot)}]"
    storage = STORAGE_TYPES[kind.storage]
    lines = [f"const {storage}* const t{slot} = (const {storage}*){source}.data;"]
    for dimension in range(kind.rank):
        for field in ("size", "stride"):
            value = f"{source}.{field}s[{dimension}]"
            lines.append(f"const int64_t t{slot}_{field}{dimension} = {value};")
    return lines


def _runs(plan: Plan) -> tuple[tuple[RunText, ...], frozenset[str]]:
    if plan.closed_form is None:
        return (), frozenset()
    names: set[str] = set()
    texts = []
    for run in plan.closed_form.runs:
        ends = (run.start, run.full_start, run.full_stop, run.stop)
        used = ends if plan.has_partial_tiles else (run.start, run.stop)
        for end in used:
            names |= {str(symbol) for symbol in end.free_symbols}
        texts.append(RunText(*(_bound_text(end) for end in ends)))
    for end in () if plan.masks is None else (plan.masks.low_stop, plan.masks.high_start):
        names |= set() if end is None else {str(symbol) for symbol in end.free_symbols}
    return tuple(texts), frozenset(names)


def _ordered(runs: tuple[RunText, ...]) -> tuple[RunText, ...]:
    """The runs by names of variables, which are put in order first."""
    ends = ("start", "full_start", "full_stop", "stop")
    return tuple(RunText(*(f"run{n}.{end}" for end in ends)) for n in range(len(runs)))


def _bound_text(bound: Any) -> str:
    # Sums of parameters may pass 32 bits: a window of 2**31 - 1 is no window.
    return re.sub(r"\bp(\d+)\b", r"wide_p\1", print_bound(bound, "cpp"))
