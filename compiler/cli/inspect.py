"""``attnc inspect``: the stages of a compilation, printed."""

from __future__ import annotations

from attnc.cli.console import write, write_heading
from attnc.cli.options import of_user_code, parsed_shape, require_choice, shape_for
from attnc.cli.target import load_target
from attnc.stages import DTYPES, MACHINES, STAGES, Inspection


def run(
    target: str | None,
    expression: str | None,
    stage: str,
    shape: str | None,
    machine: str,
    dtype: str | None,
) -> None:
    """Prints one stage, or all that lead to the kernel for ``machine``."""
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
    names = None if stage == "all" else [stage]
    for found in inspection.stages(names):
        write_heading(found.title)
        write(found.problem or found.text, found.language)
