"""The text of each stage; see ``inspection``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from attnc import decorator, mods
from attnc.analysis import LEGEND, Analysis
from attnc.analysis.counts import share_text
from attnc.derivative import Derivative, Scatter
from attnc.ir import TRUE, Expr, Gather, Leaf, Level, Ref, walk
from attnc.lift import Lifted
from attnc.plan import Plan
from attnc.printer import format_expr, format_program
from attnc.schedule import Schedule
from attnc.trace import Location

if TYPE_CHECKING:
    from attnc.bounds import ClosedForm
    from attnc.cost import Cost
    from attnc.runtime.disassembly import MachineFunction

_DECLARATION = re.compile(r"\w+: ")

#: Files where masks and scores of the user are joined: what is traced there, nobody wrote.
JOINS = (decorator.__file__, mods.__file__)


def indented(text: str) -> str:
    """``text`` with four spaces before each line."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def param_texts(lifted: Lifted) -> list[str]:
    """``p0 = 256`` for each constant that is an argument at run time."""
    return [f"p{number} = {value}" for number, value in enumerate(lifted.values)]


def traced_text(expr: Expr, locations: Mapping[Expr, Location]) -> str:
    """One line per operation; the user's source line before those that it made."""
    return "\n".join(_traced_lines(expr, locations))


def _traced_lines(expr: Expr, locations: Mapping[Expr, Location]) -> Iterator[str]:
    names: dict[Expr, Expr] = {}
    n_values = 0
    last = None
    for node in walk(expr):
        if isinstance(node, Leaf):
            names[node] = node
            continue
        location = locations.get(node)
        if location is not None and location != last:
            is_join = location.file in JOINS
            yield "  joined by attnc" if is_join else f"  {location}  {location.source}"
            last = location
        shown = node.rebuild(tuple(names[child] for child in node.children))
        names[node] = Ref(f"v{n_values}", node.dtype, Level.ELEMENT)
        n_values += 1
        yield f"    {format_expr(names[node])} = {format_expr(shown)}"
    yield f"  -> {format_expr(names[expr])}"


def derivative_text(derivative: Derivative) -> str:
    """What the backward multiplies with: derivatives of the score_mod, each with its dtypes."""
    parts = [f"by score:\n{indented(format_program(derivative.score))}"]
    for scatter in derivative.captured:
        parts.append(f"by {_element(scatter)}:\n{indented(format_program(scatter.factor))}")
    return "\n\n".join(parts)


def _element(scatter: Scatter) -> str:
    element = Gather(scatter.slot, scatter.indices, scatter.factor.dtype)
    loops = "".join(f" for r{row.number} in range({row.extent})" for row in scatter.rows)
    return f"{format_expr(element)}{loops}"


def math_text(lifted: Lifted, plan: Plan, derivative: Derivative | None) -> str:
    """Mask and score as formulas, the keys a query sees, the loop bounds of a tile of queries.

    ``derivative`` is that of the score, or None without one; its constants are in place.
    """
    return "\n\n".join(_math_paragraphs(lifted, plan, derivative))


def _math_paragraphs(lifted: Lifted, plan: Plan, derivative: Derivative | None) -> Iterator[str]:
    mask, score = lifted.exprs
    given = ", ".join(param_texts(lifted))
    if given:
        yield f"With {given}:"
    yield f"visible(q_idx, kv_idx) =\n{_formula(TRUE if mask is None else mask)}"
    if score is not None:
        yield f"score =\n{_formula(score)}"
    if derivative is not None:
        yield f"derivative of it by score =\n{_formula(derivative.score)}"
        for scatter in derivative.captured:
            yield f"derivative of it by {_element(scatter)} =\n{_formula(scatter.factor)}"
    form = plan.closed_form
    if form is None:
        reasons = [d.why for d in plan.decisions if "table" in d.what]
        yield f"The tiles come from a table, not from a formula: {'; '.join(reasons)}."
        return
    for name, expr in form.uniforms.items():
        yield f"{name} = {format_expr(expr)}"
    seen = "\n  or\n".join(indented(str(i)) for i in form.tokens) or "    none"
    yield f"Query q_idx sees the keys\n{seen}"
    yield from _bounds_paragraphs(form)


def _bounds_paragraphs(form: ClosedForm) -> Iterator[str]:
    """The loop bounds of a tile of queries, run by run."""
    from attnc.bounds import print_bound

    for number, run in enumerate(form.runs):
        which = f" {number + 1} of {len(form.runs)}" if len(form.runs) > 1 else ""
        bounds = {
            "start": run.start,
            "full_start": run.full_start,
            "full_stop": run.full_stop,
            "stop": run.stop,
        }
        lines = [f"    {name:10} = {print_bound(e, 'math')}" for name, e in bounds.items()]
        title = (
            f"Tiles of {form.block_m} queries, {form.block_n} keys: run{which} of key tiles for "
            "query tile q_block"
        )
        yield "\n".join([title, *lines])
    if form.runs:
        yield (
            "PARTIAL in [start, full_start), FULL in [full_start, full_stop), "
            "PARTIAL in [full_stop, stop)."
        )
    if not form.is_ordered:
        yield "Runs with tiles go first, in order of their starts."


def _formula(expr: Expr) -> str:
    """An expression without the dtypes of what it reads."""
    lines = format_program(expr).splitlines()
    return indented("\n".join(line for line in lines if not _DECLARATION.match(line)))


def blocks_text(
    analysis: Analysis, plan: Plan, costs: Mapping[str, Cost], title: str, source: str
) -> str:
    """A picture of the first batch and head, counts of tiles, loop bounds, and costs of the call.

    ``costs``: by pass. ``title``: what call that is. ``source``: where its times come from.
    """
    table = analysis.table
    shown = (
        f"{table.n_queries} queries x {table.n_keys} keys "
        f"in tiles of {table.block_m} x {table.block_n}"
    )
    groups = [
        f"{n} {what}" for n, what in ((table.n_batch, "batches"), (table.n_heads, "heads")) if n > 1
    ]
    if groups:
        shown += f" for {' x '.join(groups)}, of which the first:"
    counts = [
        f"{count:>10,}  {name:8}{count / table.n_tiles:6.1%}  {meaning}"
        for name, count, meaning in (
            ("full", analysis.n_full, "computed without the mask"),
            ("partial", analysis.n_partial, "computed with the mask"),
            ("empty", analysis.n_empty, "skipped"),
        )
    ]
    if plan.closed_form is None:
        bounds = [f"Tiles come from a table of {len(table.starts):,} runs of key tiles."]
    elif plan.closed_form.runs:
        bounds = list(_bounds_paragraphs(plan.closed_form))
    else:
        bounds = ["No tile is visited."]
    return "\n".join(
        [
            shown,
            "",
            analysis.picture(),
            LEGEND,
            "",
            *counts,
            "",
            f"{share_text(analysis.flops_saved)} of the work of all tiles is saved.",
            f"Tiles evaluated pair by pair to tell their class: {analysis.n_evaluated}.",
            "",
            "\n\n".join(bounds),
            "",
            *_cost_lines(costs, title, source),
        ]
    )


def blocks_data(analysis: Analysis, plan: Plan, costs: Mapping[str, Cost]) -> dict[str, Any]:
    """Counts of tiles, loop bounds as text, costs by pass: of JSON's types."""
    table = analysis.table
    return {
        "tiles": {
            "block_m": table.block_m,
            "block_n": table.block_n,
            "full": analysis.n_full,
            "partial": analysis.n_partial,
            "empty": analysis.n_empty,
            "evaluated": analysis.n_evaluated,
        },
        "flops_saved": analysis.flops_saved,
        "bounds": None if plan.closed_form is None else _bounds_data(plan.closed_form),
        "costs": {name: asdict(cost) | {"speedup": cost.speedup} for name, cost in costs.items()},
    }


def _bounds_data(form: ClosedForm) -> list[dict[str, str]]:
    from attnc.bounds import print_bound

    return [
        {
            "start": print_bound(run.start, "math"),
            "full_start": print_bound(run.full_start, "math"),
            "full_stop": print_bound(run.full_stop, "math"),
            "stop": print_bound(run.stop, "math"),
        }
        for run in form.runs
    ]


def _cost_lines(costs: Mapping[str, Cost], title: str, source: str) -> Iterator[str]:
    yield title
    yield (
        f"{'':10}{'tiles':>12}{'skipped':>9}{'FLOPs':>10}{'bytes':>10}{'FLOPs/byte':>12}"
        f"{'time':>11}{'over dense':>12}"
    )
    for name, cost in costs.items():
        yield (
            f"{name:10}{cost.n_visited:>12,}{cost.skipped:>9.1%}{scaled(cost.flops):>10}"
            f"{scaled(cost.n_bytes):>10}{cost.intensity:>12.1f}{time_text(cost.seconds):>11}"
            + (f"{'-':>12}" if cost.speedup is None else f"{cost.speedup:>11.2f}x")
        )
    yield source


def scaled(number: float) -> str:
    """Three digits and a unit: ``1.23 G``."""
    for factor, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number:.3g}"


def time_text(seconds: float | None) -> str:
    """Three digits and a unit: ``1.23 ms``; ``-`` for None."""
    if seconds is None:
        return "-"
    for factor, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def plan_text(plan: Plan) -> str:
    """Decisions with their reasons, then the values computed per tile, row, column, element."""
    lines = []
    for decision in plan.decisions:
        lines += [f"- {decision.what}", f"    because {decision.why}"]
    for role, part in (("mask", plan.mask), ("score", plan.score)):
        if part is not None:
            lines += ["", f"{role}:", *_schedule_lines(part)]
    return "\n".join(lines)


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


def plan_data(plan: Plan) -> dict[str, Any]:
    """Decisions and their reasons, tile sizes, loop bounds or a table: of JSON's types."""
    return {
        "decisions": [{"what": d.what, "why": d.why} for d in plan.decisions],
        "tiles": {"block_m": plan.tiles.block_m, "block_n": plan.tiles.block_n},
        "uses_table": plan.uses_table,
    }


def assembly_text(functions: Sequence[MachineFunction]) -> str:
    """Each function with what it multiplies and spills, those that multiply most first."""
    from attnc.runtime.disassembly import by_products

    parts = []
    for function in by_products(functions):
        counts = {
            "products of tiles of registers": function.n_tile_products,
            "products of pairs of bfloat16": function.n_dot_products,
            "fused multiply-adds": function.n_fma,
            "bytes of vector registers kept on the stack": sum(function.spilled_places.values()),
        }
        told = [f"{count} {what}" for what, count in counts.items() if count]
        head = [f"; {function.name}", f"; {', '.join(told)}"] if told else [f"; {function.name}"]
        # Within the function the address says enough of where a jump goes.
        inner = f" <{function.name}+"
        lines = zip(function.addresses, function.instructions, strict=True)
        shown = (f"{address:>8}  {text.partition(inner)[0]}" for address, text in lines)
        parts.append("\n".join([*head, *shown]))
    return "\n\n".join(parts)
