"""``attnc inspect``: the stages of a compilation, printed, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from attnc.cli.console import write_stage
from attnc.cli.options import of_user_code, parsed_shape, require_choice, shape_for
from attnc.cli.target import load_target
from attnc.stages import DTYPES, MACHINES, PASSES, STAGES, Inspection, Pass, Stage


def run(
    target: str | None,
    expression: str | None,
    stage: str,
    shape: str | None,
    machine: str,
    dtype: str | None,
    passes: str,
    as_json: bool,
) -> None:
    """Prints one stage, or all that the target has."""
    wanted = require_options(stage, machine, dtype, passes)
    machine = machine_for(stage, machine)
    inspection = inspection_of(target, expression, shape, machine, dtype)
    names = None if stage == "all" else [stage]
    found = inspection.stages(names, passes=wanted, measure=stage == "blocks" and not as_json)
    if as_json:
        data = [_object(inspection, group) for group in _groups(found)]
        print(json.dumps(data[0] if names else {"stages": data}, indent=2, allow_nan=False))
        return
    for number, one in enumerate(found):
        if number:
            print()
        write_stage(one)


def require_options(stage: str, machine: str, dtype: str | None, passes: str) -> Pass:
    """``passes``, if that and all others are among the known ones."""
    require_choice("--stage", stage, [*STAGES, "all"])
    require_choice("--target", machine, MACHINES)
    if dtype is not None:
        require_choice("--dtype", dtype, DTYPES)
    require_choice("--pass", passes, PASSES)
    return next(known for known in PASSES if known == passes)


def machine_for(stage: str, machine: str) -> str:
    """``machine``; in place of a CPU the GPU of this machine, for a stage that only GPUs have."""
    is_of_gpus = stage != "all" and STAGES[stage].machine in ("gpu", "nvidia")
    return "triton" if is_of_gpus and machine.startswith("cpu") else machine


def inspection_of(
    target: str | None,
    expression: str | None,
    shape: str | None,
    machine: str,
    dtype: str | None,
    *,
    mod: Callable[..., Any] | None = None,
) -> Inspection:
    """Of what was typed; options must be known ones. ``mod``: the target, if it is loaded."""
    sizes = parsed_shape(shape_for(target, shape))
    mod = load_target(target, expression) if mod is None else mod
    return of_user_code(
        target or "--expr",
        lambda: Inspection.of(mod, shape=sizes, target=machine, dtype=dtype),
    )


def _groups(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Stages of one name together; they follow each other."""
    names = dict.fromkeys(stage.name for stage in stages)
    return [[stage for stage in stages if stage.name == name] for name in names]


def _object(inspection: Inspection, group: Sequence[Stage]) -> dict[str, Any]:
    """A stage as JSON; where kernels have their own, they are in a list."""
    first = group[0]
    data: dict[str, Any] = {
        "stage": first.name,
        "title": STAGES[first.name].title,
        "function": inspection.name,
        "shape": list(inspection.shape),
        "dtype": inspection.dtype,
        "target": first.target,
        "language": first.language,
    }
    if first.problem is not None:
        return data | {"problem": first.problem}
    if not first.kernel:
        return data | {"text": first.text} | dict(first.data)
    kernels = [
        {"name": one.kernel, "title": one.title, "text": one.text} | dict(one.data) for one in group
    ]
    return data | {"text": "\n\n".join(one.text for one in group), "kernels": kernels}
