"""``attnc inspect --html``: every stage on one page."""

from __future__ import annotations

from pathlib import Path

from attnc.cli.console import write
from attnc.cli.options import of_user_code, parsed_shape, require_choice, shape_for
from attnc.cli.target import load_target
from attnc.report import page_of
from attnc.stages import DTYPES, MACHINES, STAGES, Inspection


def run(
    target: str | None,
    expression: str | None,
    html: str,
    stage: str,
    shape: str | None,
    machine: str,
    dtype: str | None,
) -> None:
    """Writes the report of a call for ``machine``, with one stage or all, into the file ``html``."""
    require_choice("--stage", stage, [*STAGES, "all"])
    require_choice("--target", machine, MACHINES)
    if dtype is not None:
        require_choice("--dtype", dtype, DTYPES)
    sizes = parsed_shape(shape_for(target, shape))
    mod = load_target(target, expression)
    inspection = of_user_code(
        target or "--expr",
        lambda: Inspection.of(mod, shape=sizes, target=machine, dtype=dtype),
    )
    stages = None if stage == "all" else [stage]
    data = page_of(mod, inspection, measure=True, stages=stages).encode()
    Path(html).write_bytes(data)
    write(f"wrote {html}, {len(data):,} bytes")
