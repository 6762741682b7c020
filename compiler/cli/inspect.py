"""``attnc inspect``: the stages of a compilation, printed."""

from __future__ import annotations

from collections.abc import Mapping

from attnc.cli.console import Language, write, write_heading
from attnc.cli.options import of_user_code, parsed_shape, require_choice, shape_for
from attnc.cli.target import load_target
from attnc.stages import DTYPES, MACHINES, Inspection

LANGUAGES: Mapping[str, Language] = {
    "traced": "text",
    "ir": "python",
    "derivative": "python",
    "math": "text",
    "blocks": "text",
    "plan": "text",
    "cpp": "cpp",
    "triton": "python",
    "ptx": "asm",
    "resources": "text",
}
_CPU_STAGES = ("traced", "ir", "derivative", "math", "blocks", "plan", "cpp")
_GPU_ONLY = ("triton", "ptx", "resources")
_GPU_STAGES = ("traced", "ir", "derivative", "math", "blocks", "plan", *_GPU_ONLY)


def run(
    target: str | None,
    expression: str | None,
    stage: str,
    shape: str | None,
    machine: str,
    dtype: str | None,
) -> None:
    """Prints one stage, or all that lead to the kernel for ``machine``."""
    require_choice("--stage", stage, [*LANGUAGES, "all"])
    require_choice("--target", machine, MACHINES)
    if dtype is not None:
        require_choice("--dtype", dtype, DTYPES)
    if stage in _GPU_ONLY and machine.startswith("cpu"):
        machine = "triton"
    sizes = parsed_shape(shape_for(target, shape))
    mod = load_target(target, expression)
    inspection = of_user_code(
        target or "--expr",
        lambda: Inspection.of(mod, shape=sizes, target=machine, dtype=dtype),
    )
    if stage == "blocks":
        write(inspection.blocks(measure=True), LANGUAGES[stage])
        return
    if stage != "all":
        write(getattr(inspection, stage)(), LANGUAGES[stage])
        return
    for name in _CPU_STAGES if machine.startswith("cpu") else _GPU_STAGES:
        write_heading(name)
        write(getattr(inspection, name)(), LANGUAGES[name])
