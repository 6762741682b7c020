"""``attnc inspect --html``: every stage on one page."""

from __future__ import annotations

from pathlib import Path

from attnc.cli.console import write
from attnc.cli.inspect import inspection_of, machine_for, require_options
from attnc.cli.target import load_target
from attnc.errors import OptionValueError
from attnc.report import page_of


def run(
    target: str | None,
    expression: str | None,
    html: str,
    stage: str,
    shape: str | None,
    machine: str,
    dtype: str | None,
    passes: str,
) -> None:
    """Writes the report of a call for ``machine``, with one stage or all, into the file ``html``."""
    wanted = require_options(stage, machine, dtype, passes)
    if not html:
        raise OptionValueError(option="--html", value=html, problem="name a file to write.")
    machine = machine_for(stage, machine)
    mod = load_target(target, expression)
    inspection = inspection_of(target, expression, shape, machine, dtype, mod=mod)
    stages = None if stage == "all" else [stage]
    page = page_of(mod, inspection, measure=True, stages=stages, passes=wanted)
    data = page.encode(errors="backslashreplace")
    Path(html).write_bytes(data)
    write(f"wrote {html}, {len(data):,} bytes")
