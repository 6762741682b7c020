"""The report of one kernel, from what its inspection gives to the text of the page."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import attnc
from attnc.analysis import Analysis
from attnc.analysis.counts import share_text
from attnc.pictures import colours
from attnc.report.costs import CostRow, cost_rows
from attnc.report.highlight import highlighted
from attnc.report.picture import MaskPicture, ScorePicture, mask_picture, score_picture
from attnc.report.sources import sources_of
from attnc.report.stages import Section, ShownStage, sections_of, shown
from attnc.stages import Inspection, Pass

_SHAPE = (1, 1, 1024, 1024, 64)


@dataclass(frozen=True)
class Fact:
    """A number with its name and what it means."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class ShownSource:
    """One function of the user, with syntax colours."""

    role: str
    place: str
    html: Markup


@dataclass(frozen=True)
class Page:
    """All that the page shows.

    Attributes:
        name: Of the function.
        summary: The first line of its docstring, or nothing.
        version: Of attnc.
        facts: What call it is: names and values.
        sources: The functions.
        numbers: What matters most.
        picture: The mask; None without one.
        score_picture: What becomes of scores; None without a score_mod.
        costs: A row for each pass.
        cost_source: Where times come from.
        stages: All, in order.
        sections: Of them those with a place of their own.
    """

    name: str
    summary: str
    version: str
    facts: tuple[tuple[str, str], ...]
    sources: tuple[ShownSource, ...]
    numbers: tuple[Fact, ...]
    picture: MaskPicture | None
    score_picture: ScorePicture | None
    costs: tuple[CostRow, ...]
    cost_source: str
    stages: tuple[ShownStage, ...]
    sections: tuple[Section, ...]


def write(
    mod: Any,
    path: str | Path,
    *,
    shape: tuple[int, int, int, int, int] = _SHAPE,
    target: str = "cpu",
    dtype: str | None = None,
    measure: bool = False,
    stages: Collection[str] | None = None,
) -> Path:
    """Writes the report of a Kernel, mask_mod or score_mod as one HTML file; its path.

    Args:
        mod: Kernel, or plain function.
        path: The file; what it held is lost.
        shape: (B, H, n_queries, n_keys, head_dim).
        target: The machine, as in ``attnc inspect --target``.
        dtype: float32 on CPUs, bfloat16 on GPUs if None.
        measure: Time a few kernels if the rates of this machine are not known yet (seconds).
        stages: Names of stages as in ``attnc inspect --stage``; None for all that the target has,
            machine code too, for which kernels are compiled (seconds).

    Raises:
        InspectionOptionError: No such target, dtype or stage, or a shape that has no call.
        TraceError: The function does something a kernel cannot do.
        OSError: The file cannot be written.
    """
    inspection = Inspection.of(mod, shape=shape, target=target, dtype=dtype)
    file = Path(path)
    file.write_text(page_of(mod, inspection, measure=measure, stages=stages), encoding="utf-8")
    return file


def page_of(
    mod: Any,
    inspection: Inspection,
    *,
    measure: bool = False,
    stages: Collection[str] | None = None,
    passes: Pass = "all",
) -> str:
    """The page that ``write`` writes, as text.

    Args:
        mod: Kernel, mask_mod or score_mod.
        inspection: Of ``mod``, with shape, target and dtype.
        measure, stages, passes: As in ``write``.
    """
    costs = inspection.costs(measure=measure)
    forward = costs["forward"]
    analysis = inspection.analysis((forward.block_m, forward.block_n))
    has_mask = inspection.program.mask is not None or inspection.table is not None
    picture = mask_picture(analysis) if has_mask else None
    found = inspection.stages(stages, passes=passes)
    page = Page(
        name=inspection.name,
        summary=_summary(mod),
        version=attnc.__version__,
        facts=tuple(_facts(inspection)),
        sources=tuple(_sources(mod, inspection)),
        numbers=tuple(_numbers(analysis, cost_rows(costs))),
        picture=picture,
        score_picture=score_picture(inspection, forward.block_m),
        costs=cost_rows(costs),
        cost_source=inspection.source_of_times(costs),
        stages=tuple(map(shown, found)),
        sections=sections_of(found),
    )
    data = {"mask": None if picture is None else picture.data}
    return _rendered(page, data)


def _summary(mod: Any) -> str:
    """The first line of the function's own docstring: not that of its class, as ``partial`` has."""
    fn = mod
    while isinstance(fn, functools.partial):
        fn = fn.func
    text = getattr(fn, "__doc__", None)
    is_own = text is not getattr(type(fn), "__doc__", None)
    return text.strip().partition("\n")[0] if is_own and isinstance(text, str) else ""


def _facts(inspection: Inspection) -> Iterator[tuple[str, str]]:
    n_batch, n_heads, n_queries, n_keys, head_dim = inspection.shape
    yield "batch", f"{n_batch:,}"
    yield "heads", f"{n_heads:,}"
    yield "queries", f"{n_queries:,}"
    yield "keys", f"{n_keys:,}"
    yield "head_dim", f"{head_dim:,}"
    yield "dtype", inspection.dtype
    yield "target", inspection.target.name
    yield "attnc", attnc.__version__


def _sources(mod: Any, inspection: Inspection) -> Iterator[ShownSource]:
    for source in sources_of(mod, inspection.program):
        yield ShownSource(source.role, source.place, highlighted(source.text, "python"))


def _numbers(analysis: Analysis, costs: tuple[CostRow, ...]) -> Iterator[Fact]:
    table = analysis.table
    n_visited = analysis.n_full + analysis.n_partial
    yield Fact("work saved", share_text(analysis.flops_saved), "of all pairs of query and key")
    yield Fact("tiles visited", f"{n_visited:,}", f"of {table.n_tiles:,}")
    yield Fact("need the mask", f"{analysis.n_partial:,}", "PARTIAL; FULL ones do without")
    for cost in costs:
        if cost.time is not None:
            word = "at the best" if cost.is_bound else "expected"
            note = word if cost.speedup is None else f"{word}, {cost.speedup} the speed of dense"
            yield Fact(cost.name, cost.time, note)


def _rendered(page: Page, data: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("attnc.codegen_templates", "report"),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = environment.get_template("page.css.jinja").render(light=_LIGHT, dark=_DARK)
    # In one element, because the policy admits one script by its hash.
    names = ("picture.js.jinja", "page.js.jinja")
    script = "\n".join(environment.get_template(name).render() for name in names)
    return environment.get_template("page.html.jinja").render(
        page=page,
        style=Markup(style),
        script=Markup(script),
        style_hash=_digest(style),
        script_hash=_digest(script),
        data=Markup(in_script(data)),
    )


def in_script(data: Any) -> str:
    """JSON that ends no element and begins none, wherever in HTML it stands."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _digest(text: str) -> str:
    """Base64 of the SHA-256, as a Content-Security-Policy names the text of an element."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _named(tiles: tuple[tuple[int, int, int], ...], **others: str) -> tuple[tuple[str, str], ...]:
    kinds = zip(("empty", "partial", "full"), tiles, strict=True)
    return (*((name, colours.in_hex(colour)) for name, colour in kinds), *others.items())


_LIGHT = _named(
    colours.LIGHT,
    **{
        "ground": "#f7f8f9",
        "card": "#ffffff",
        "text": "#1a2027",
        "faint": "#57616c",
        "edge": "#e2e6ea",
        "control": "#b9c1c9",
        "link": "#1f6299",
        "on-partial": "#1a2027",
        "on-full": "#ffffff",
        "hatch": "#8a5a10",
        "cursor": "#d1206a",
        "comment": "#5f6b76",
        "keyword": "#8a3ab0",
        "string": "#1c6b3f",
        "number": "#a34708",
        "function": "#1f5fa8",
        "builtin": "#0b6a75",
        "decorator": "#8c5a00",
    },
)
_DARK = _named(
    colours.DARK,
    **{
        "ground": "#0f1216",
        "card": "#161a20",
        "text": "#e5e9ee",
        "faint": "#9ba7b3",
        "edge": "#272d35",
        "control": "#4a545f",
        "link": "#74b4ea",
        "on-partial": "#14100a",
        "on-full": "#0b1118",
        "hatch": "#513408",
        "cursor": "#ff6aa9",
        "comment": "#8794a1",
        "keyword": "#c99bf0",
        "string": "#8ed19b",
        "number": "#f0a871",
        "function": "#7fb8f5",
        "builtin": "#6fcbd6",
        "decorator": "#e2bd6e",
    },
)
