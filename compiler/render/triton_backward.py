"""Triton source of a plan's backward kernels."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from attnc.ir import Const, Expr, IndexName, Level, Ref, reads_score, replaced
from attnc.plan import Accumulation, PartialMasks, Plan
from attnc.render.names import DELTA, KEYS, QUERIES, elements
from attnc.render.rounding import scaled_inside
from attnc.render.triton_expressions import TritonWriter, outer_row
from attnc.render.triton_parts import (
    MaskText,
    Visit,
    common_variables,
    context,
    environment,
    hoisted_lines,
    mask_texts,
    tile_text,
    tolerant_of,
    visit_keys,
    visit_queries,
)
from attnc.scatter import Reduction
from attnc.schedule import Schedule, schedule

_ENDS = ("start", "full_start", "full_stop", "stop", "low_stop", "high_start")  # of a run
_PARAM = re.compile(r"\bp(\d+)\b")


@dataclass(frozen=True)
class _Scores:
    """What is computed of a score: over q . k and the scale, or over the scaled score."""

    masks: PartialMasks | None
    score: Schedule | None
    derivative: Schedule | None
    accumulations: tuple[Accumulation, ...]
    is_scaled: bool


@dataclass(frozen=True)
class _Contribution:
    """To a captured tensor, of a pair: see ``backward.py.jinja``."""

    number: int
    reduction: str
    lines: list[str]
    factor: str
    place_lines: list[str]
    place: str
    rows: tuple[str, ...]


@dataclass(frozen=True)
class _Kernel:
    """Texts of a kernel and of its tiles: see ``backward.py.jinja``."""

    function: str
    adder: str
    wants_query: bool
    wants_key: bool
    wants_value: bool
    sums: list[_Contribution]
    element: _Contribution | None
    visit: Visit
    bound_lines: list[str]
    context: list[str]
    hoisted_lines: list[str]
    masks: list[MaskText]
    score_lines: list[str]
    score: str
    derivative_lines: list[str]
    derivative: str

    @property
    def wants_scores(self) -> bool:
        """Whether gradients of the scores are computed."""
        return self.wants_query or self.wants_key or bool(self.sums or self.element)

    @property
    def state(self) -> list[str]:
        """Names of what a tile adds to."""
        gradients = ("grad_q", "grad_k", "grad_v")
        wanted = (self.wants_query, self.wants_key, self.wants_value)
        names = [name for name, is_wanted in zip(gradients, wanted, strict=True) if is_wanted]
        return names + [f"sum{contribution.number}" for contribution in self.sums]


def render_backward(plan: Plan) -> str:
    """Source of a Python module with the kernels that compute the gradients wanted."""
    writers = [TritonWriter(plan.spec.wide_index) for _ in range(2)]
    writers[1].is_transposed = True
    scores = _scores(plan)
    by_queries, by_keys = [], []
    for function in visits_of_gradients(plan):
        if function == KEYS:
            transposed = replace(scores, masks=plan.transposed_masks)
            by_keys.append(_kernel(plan, transposed, function, writers[1]))
        else:
            by_queries.append(_kernel(plan, scores, function, writers[0]))
    kernels = [*by_queries, *by_keys]
    runs = [run for kernel in kernels for run in kernel.visit.runs]
    source = (
        environment()
        .get_template("backward.py.jinja")
        .render(
            common_variables(plan),
            title=_title(plan),
            keys_m=plan.key_tiles.block_m,
            keys_n=plan.key_tiles.block_n,
            keys_warps=plan.key_tiles.n_warps,
            keys_stages=plan.key_tiles.n_stages,
            functions=writers[0].functions | writers[1].functions,
            scales_score=scores.is_scaled,
            any_visit={
                "runs": runs,
                "exchanges": [pair for kernel in kernels for pair in kernel.visit.exchanges],
                "uses_table": plan.uses_table,
            },
            wants_delta=any(kernel.wants_scores for kernel in kernels),
            wide_param_lines=_wide_param_lines(plan),
            by_queries=by_queries,
            by_keys=by_keys,
        )
    )
    return source.rstrip() + "\n"


def functions_of_gradients(plan: Plan) -> tuple[str, ...]:
    """Names of the backward kernels of ``plan``, in order of launch."""
    visits = tuple(visits_of_gradients(plan))
    has_scores = _wants_query(plan) or _wants_key(plan) or bool(plan.accumulations)
    return (DELTA, *visits) if has_scores else visits


def visits_of_gradients(plan: Plan) -> dict[str, Visit]:
    """What the loops of each backward kernel go over, by its name, in order of launch."""
    wanted = plan.spec.gradients
    assert wanted is not None
    visits = {}
    if _wants_query(plan) or _sums(plan.accumulations, _BY_QUERIES):
        visits[QUERIES] = _visit(visit_keys(plan))
    if _wants_key(plan) or wanted.value or _sums(plan.accumulations, _BY_KEYS):
        visits[KEYS] = _visit(visit_queries(plan))
    for number in _sums(plan.accumulations, _ONE_BY_ONE):
        visits[elements(number)] = _visit(visit_keys(plan))
    return visits


_BY_QUERIES = (Reduction.UNIFORM, Reduction.ROW)
_BY_KEYS = (Reduction.COLUMN,)
_ONE_BY_ONE = (Reduction.DIFFERENCE, Reduction.ELEMENT)


def _sums(
    accumulations: Sequence[Accumulation], reductions: Collection[Reduction]
) -> dict[int, Accumulation]:
    return {n: a for n, a in enumerate(accumulations) if a.reduction in reductions}


def _wants_query(plan: Plan) -> bool:
    """Whether a gradient of q is to be computed; without live products it is 0."""
    return plan.qk_is_live and plan.spec.gradients is not None and plan.spec.gradients.query


def _wants_key(plan: Plan) -> bool:
    """The same for k."""
    return plan.qk_is_live and plan.spec.gradients is not None and plan.spec.gradients.key


def _kernel(plan: Plan, scores: _Scores, function: str, writer: TritonWriter) -> _Kernel:
    wanted = plan.spec.gradients
    assert wanted is not None
    is_by_keys = function == KEYS
    owned, inner = (Level.ROW, Level.COLUMN)[:: -1 if is_by_keys else 1]
    levels = (inner, Level.ELEMENT)
    wants_query, wants_key = function == QUERIES and _wants_query(plan), False
    sums: dict[int, Accumulation] = {}
    element = None
    if is_by_keys:
        wants_key = _wants_key(plan)
        sums = _sums(scores.accumulations, _BY_KEYS)
    elif function == QUERIES:
        sums = _sums(scores.accumulations, _BY_QUERIES)
    else:
        one_by_one = _sums(scores.accumulations, _ONE_BY_ONE)
        element = next(n for n in one_by_one if elements(n) == function)
    derivative = scores.derivative if wants_query or wants_key else None
    read = [*sums.values()] if element is None else [scores.accumulations[element]]
    factors = [a.factor for a in read]
    places = [i for a in read if a.reduction is Reduction.ELEMENT for i in a.indices]
    masks = () if scores.masks is None else scores.masks.computed
    possible = (*masks, scores.score, derivative, *factors, *places)
    parts = [part for part in possible if part is not None]

    bounds = plan.transposed_bounds if is_by_keys else plan.bounds
    bound_lines: list[str] = []
    for name, part in bounds:
        bound_lines += writer.assignments(part.lets)
        text = writer.expression(part.result, name, Level.UNIFORM, bound_lines)
        bound_lines.append(f"{name} = tl.cast({text}, tl.int64)")
    smooth = [part for part in (scores.score, derivative, *factors) if part is not None]
    writer.tolerant = tolerant_of(smooth, plan.mask)
    hoisted = hoisted_lines(writer, parts, (Level.UNIFORM, owned))
    masks_text = mask_texts(writer, scores.masks, levels)
    score_lines, score = tile_text(writer, scores.score, "score", levels)
    derivative_lines, derivative_text = tile_text(writer, derivative, "derivative", levels)
    names = context(plan, parts, levels, IndexName.Q if is_by_keys else IndexName.KV)
    contributions = {
        n: _contribution(plan, writer, scores.accumulations[n], n, levels)
        for n in (sums if element is None else (element,))
    }
    if element is not None:
        names = [*names, *_element_names(plan, scores.accumulations[element])]
    return _Kernel(
        function=function,
        adder={QUERIES: "add_keys", KEYS: "add_queries"}.get(function, f"store_keys{element}"),
        wants_query=wants_query,
        wants_key=wants_key,
        wants_value=is_by_keys and wanted.value,
        sums=[] if element is not None else list(contributions.values()),
        element=None if element is None else contributions[element],
        visit=_visit(visit_queries(plan) if is_by_keys else visit_keys(plan)),
        bound_lines=bound_lines,
        context=list(dict.fromkeys(names)),
        hoisted_lines=hoisted,
        masks=masks_text,
        score_lines=score_lines,
        score=score,
        derivative_lines=derivative_lines,
        derivative=derivative_text,
    )


def _contribution(
    plan: Plan,
    writer: TritonWriter,
    accumulation: Accumulation,
    number: int,
    levels: tuple[Level, Level],
) -> _Contribution:
    result = accumulation.factor.result
    is_one = isinstance(result, Const) and result.value == 1
    writer.outer_rows = frozenset(row.number for row in accumulation.rows)
    lines, factor = tile_text(writer, accumulation.factor, f"factor{number}", levels)
    place_lines: list[str] = []
    place = ""
    if accumulation.reduction is Reduction.ELEMENT:
        place = f"tl.full((), 0, tl.int{64 if plan.spec.wide_index else 32})"
        for dim, index in enumerate(accumulation.indices):
            more, text = tile_text(writer, index, f"place{number}_{dim}", levels)
            place_lines += more
            size = f"t{accumulation.slot}_size{dim}"
            writer.functions.add("wrapped")
            place = f"({place}) * {size} + wrapped({text}, {size})"
    writer.outer_rows = frozenset()
    return _Contribution(
        number=number,
        reduction=accumulation.reduction.name,
        lines=[] if is_one else lines,
        factor="" if is_one else factor,
        place_lines=place_lines,
        place=place,
        rows=tuple(outer_row(row.number) for row in accumulation.rows),
    )


def _element_names(plan: Plan, accumulation: Accumulation) -> list[str]:
    rank = plan.spec.slots[accumulation.slot].rank
    sizes = [f"t{accumulation.slot}_size{dim}" for dim in range(rank)]
    return [*sizes, *(outer_row(row.number) for row in accumulation.rows)]


def _visit(visit: Visit) -> Visit:
    """``visit`` with constants in 64 bits: sums of them may pass 32, as windows of 2**31 - 1 do."""
    runs = tuple(
        run | {end: _PARAM.sub(r"wide_p\1", run[end]) for end in _ENDS} for run in visit.runs
    )
    return replace(visit, runs=runs)


def _wide_param_lines(plan: Plan) -> list[str]:
    numbers: set[int] = set()
    for visit in (visit_keys(plan), visit_queries(plan)):
        for run in visit.runs:
            text = " ".join(run[end] for end in _ENDS)
            numbers |= {int(number) for number in _PARAM.findall(text)}
    return [f"wide_p{number} = tl.cast(p{number}, tl.int64)" for number in sorted(numbers)]


def _scores(plan: Plan) -> _Scores:
    scaled = _Scores(plan.masks, plan.score, plan.derivative, plan.accumulations, True)
    if plan.score is None:
        return replace(scaled, is_scaled=False)
    if not plan.qk_is_live:
        return scaled
    inside = _Inside()
    accumulations = tuple(
        replace(
            a,
            factor=inside.rewritten(a.factor, f"f{number}_"),
            indices=tuple(
                inside.rewritten(index, f"i{number}_{place}_")
                for place, index in enumerate(a.indices)
            ),
        )
        for number, a in enumerate(plan.accumulations)
    )
    score = inside.rewritten(plan.score, "s")
    derivative = None if plan.derivative is None else inside.rewritten(plan.derivative, "d")
    if not inside.is_possible:
        return scaled
    return _Scores(plan.masks, score, derivative, accumulations, False)


class _Inside:
    """Rewrites schedules over the scaled score as such over q . k, if that is possible for all."""

    def __init__(self) -> None:
        self.is_possible = True

    def rewritten(self, part: Schedule, prefix: str) -> Schedule:
        expr = _inlined(part)
        if not reads_score(expr):
            return part
        inside = scaled_inside(expr)
        self.is_possible &= inside is not None
        return part if inside is None else schedule(inside, prefix)


def _inlined(part: Schedule) -> Expr:
    """The expression that ``part`` is a schedule of."""
    values: dict[Expr, Expr] = {}
    for let in part.lets:
        values[Ref(let.name, let.expr.dtype, let.level)] = replaced(let.expr, values)
    return replaced(part.result, values)


def _title(plan: Plan) -> str:
    spec = plan.spec
    mask = "no mask" if plan.mask is None else "a mask"
    score = "the plain score" if plan.score is None else "a score_mod"
    return (
        f"Gradients of attention, {spec.dtype}, widths {spec.head_dim} and {spec.value_dim}, "
        f"{mask}, {score}."
    )
