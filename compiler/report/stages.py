"""Stages as the page shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from attnc.report.highlight import MAX_COLOURED, highlighted
from attnc.report.tiles import compressed
from attnc.stages import Stage

_MAX_LINES = 400


@dataclass(frozen=True)
class ShownStage:
    """One stage.

    Attributes:
        name: A key of ``STAGES``.
        label: What the list calls it.
        about: Its title and length; the page's header says of what call it is.
        html: Its text; of long ones the beginning.
        packed: All of a long text, base64 of zlib; else None.
    """

    name: str
    label: str
    about: str
    html: Markup
    packed: str | None


@dataclass(frozen=True)
class Section:
    """A stage with a place of its own."""

    name: str
    about: str
    html: Markup


_SECTIONS = ("math", "derivative", "resources")


def shown(stage: Stage) -> ShownStage:
    """``stage`` with its problem in place of a text that could not be made."""
    label = f"{stage.name} · {stage.kernel}" if stage.kernel else stage.name
    if stage.problem is not None:
        return ShownStage(stage.name, label, stage.title, _problem(stage), None)
    n_lines = stage.text.count("\n") + 1
    about = f"{stage.title} · {n_lines:,} lines"
    if len(stage.text) <= MAX_COLOURED:
        return ShownStage(stage.name, label, about, highlighted(stage.text, stage.language), None)
    first = "\n".join(stage.text.split("\n")[:_MAX_LINES])
    told = f"\n\n({n_lines - _MAX_LINES:,} more lines, which are shown where scripts may run)"
    return ShownStage(
        stage.name, label, about, escape(first + told), compressed(stage.text.encode())
    )


def sections_of(stages: Sequence[Stage]) -> tuple[Section, ...]:
    """Those with a place of their own, in the order of ``_SECTIONS``."""
    found = {stage.name: stage for stage in stages if stage.name in _SECTIONS}
    return tuple(
        Section(
            name,
            stage.title,
            _problem(stage)
            if stage.problem is not None
            else highlighted(stage.text, stage.language),
        )
        for name in _SECTIONS
        if (stage := found.get(name)) is not None
    )


def _problem(stage: Stage) -> Markup:
    return escape(f"It could not be made here: {stage.problem}")
