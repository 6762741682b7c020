"""Triton source of a plan's kernels: a module that stands alone, made to be read."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from attnc.ir import IndexName, Level
from attnc.plan import Plan
from attnc.render.names import FORWARD, KEYS
from attnc.render.rounding import scaled_inside
from attnc.render.triton_backward import (
    functions_of_gradients,
    render_backward,
    visits_of_gradients,
)
from attnc.render.triton_expressions import TritonWriter
from attnc.render.triton_parts import (
    Loop,
    common_variables,
    context,
    environment,
    hoisted_lines,
    mask_texts,
    tile_text,
    tolerant_of,
    visit_keys,
)
from attnc.schedule import Schedule, schedule
from attnc.tiles import Tiles

TEMPLATES = (
    "forward.py.jinja",
    "backward.py.jinja",
    "visits.py.jinja",
    "triton_functions.py.jinja",
)

_OUTER = (Level.UNIFORM, Level.ROW)
_INNER = (Level.COLUMN, Level.ELEMENT)


def render(plan: Plan) -> str:
    """Source of a Python module with the kernels of ``plan``: see ``functions_of``."""
    if plan.spec.gradients is not None:
        return render_backward(plan)
    spec = plan.spec
    writer = TritonWriter(spec.wide_index)
    bound_lines = _bound_lines(plan)
    bounds_writer = TritonWriter(spec.wide_index, raw_params=True)
    for name, part in plan.bounds:
        bound_lines += bounds_writer.assignments(part.lets)
        text = bounds_writer.expression(part.result, name, Level.UNIFORM, bound_lines)
        bound_lines.append(f"{name} = tl.cast({text}, tl.int64)")
    score_schedule, scales_score = _score_schedule(plan)
    if score_schedule is not None:
        writer.tolerant = tolerant_of([score_schedule], plan.mask)
    masks = () if plan.masks is None else plan.masks.computed
    parts = [*masks, *([] if score_schedule is None else [score_schedule])]
    hoisted = hoisted_lines(writer, parts, _OUTER)
    masks_text = mask_texts(writer, plan.masks, _INNER)
    score_lines, score = tile_text(writer, score_schedule, "score", _INNER)
    source = (
        environment()
        .get_template("forward.py.jinja")
        .render(
            common_variables(plan),
            title=_title(plan),
            functions=writer.functions | bounds_writer.functions,
            visit=visit_keys(plan),
            context=context(plan, parts, _INNER, IndexName.KV),
            hoisted_lines=hoisted,
            masks=masks_text,
            score_lines=score_lines,
            score=score,
            scales_score=scales_score,
            bound_lines=bound_lines,
            wants_lse=spec.wants_lse,
            wants_max=spec.wants_max,
        )
    )
    return source.rstrip() + "\n"


def functions_of(plan: Plan) -> tuple[str, ...]:
    """Names of the kernels in the source of ``plan``, in order of launch."""
    if plan.spec.gradients is None:
        return (FORWARD,)
    return functions_of_gradients(plan)


def tiles_of(plan: Plan, function: str) -> Tiles:
    """Tiles, warps and stages of a kernel of ``plan``."""
    return plan.key_tiles if function == KEYS else plan.tiles


def render_functions(names: AbstractSet[str]) -> str:
    """Source of the functions that a ``TritonWriter`` says expressions need."""
    return (
        environment()
        .get_template("triton_functions.py.jinja")
        .render(functions=names, is_nvidia=False)
    )


def loops_of(plan: Plan, function: str = FORWARD) -> tuple[Loop, ...]:
    """The loops over tiles in a kernel of ``plan``, in order; the tail tile has none."""
    if function == FORWARD:
        return visit_keys(plan).loops
    visit = visits_of_gradients(plan).get(function)
    return () if visit is None else visit.loops


def _bound_lines(plan: Plan) -> list[str]:
    """Statements that widen the constants in the closed form, which may be near 2**31."""
    if plan.closed_form is None:
        return []
    ends = () if plan.masks is None else (plan.masks.low_stop, plan.masks.high_start)
    ends = tuple(end for end in ends if end is not None)
    read = {
        str(symbol)
        for run in plan.closed_form.runs
        for end in (run.start, run.full_start, run.full_stop, run.stop, *ends)
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


def _title(plan: Plan) -> str:
    spec = plan.spec
    mask = "no mask" if plan.mask is None else "a mask"
    score = "the plain score" if plan.score is None else "a score_mod"
    return (
        f"Attention forward, {spec.dtype}, widths {spec.head_dim} and {spec.value_dim}, "
        f"{mask}, {score}."
    )
