"""A failure as a program: pasted and run, it fails in the same way."""

from __future__ import annotations

import re
from dataclasses import fields

from attnc.testing.case import Case
from attnc.testing.laws.registry import Failure, Law
from attnc.testing.recipes import InputsRecipe, Shape
from attnc.testing.source import Script


def reproduction(case: Case, law: Law, failure: Failure) -> str:
    """Python source that examines one law at one input.

    Functions that no text makes are assumed in scope, with a comment that tells where they are.

    Args:
        case: Where the law is broken.
        law: The law.
        failure: How it is broken.
    """
    subject = case.subject
    script = Script()
    is_mask = subject.score_source is None
    checked = subject.mask_source if is_mask else subject.score_source
    name = script.define(checked, "f")
    arguments = [name]
    if subject.expected is not None:
        arguments.append(f"expected={script.define(subject.expected, 'meant')}")
    if not is_mask and subject.mask_source is not None:
        arguments.append(f"mask={script.define(subject.mask_source, 'mask')}")
    if subject.scale is not None:
        arguments.append(f"scale={subject.scale!r}")
    if law.function is not None:
        arguments += ["laws=()", f"properties=[{script.define(law.function, 'law')}]"]
    elif law.is_property:
        arguments += ["laws=()", f"properties={law.name!r}"]
    else:
        arguments.append(f"laws={law.name!r}")
    if failure.backend is not None:
        arguments.append(f"backends=[{failure.backend!r}]")
    else:
        arguments.append("backends=[]")
    if subject.device != "cpu":
        arguments.append(f"device={subject.device!r}")
    if not subject.with_gradients and failure.backend is not None:
        arguments.append("gradients=False")
    arguments.append(f"at={_brief(case.recipe)}")
    lines = ["import torch", "import attnc", "from attnc.testing import *", "", *script.lines, ""]
    if failure.point is not None and law.name in _AT_A_POINT:
        score = "" if is_mask else "torch.tensor(1.0), "
        point = ", ".join(f"torch.tensor({i}, dtype=torch.int32)" for i in failure.point)
        lines.append(f"print({name}({score}{point}))")
    joined = ",\n    ".join(arguments)
    text = "\n".join([*lines, f"check(\n    {joined},\n)"])
    return re.sub("\n{3,}", "\n\n", text)


def _brief(recipe: InputsRecipe | Shape) -> str:
    """Its repr without what is so by default."""
    parts = []
    for each in fields(recipe):
        value = getattr(recipe, each.name)
        if value != each.default:
            text = _brief(value) if isinstance(value, Shape) else repr(value)
            parts.append(f"{each.name}={text}")
    return f"{type(recipe).__name__}({', '.join(parts)})"


#: What these laws find is a value of the function.
_AT_A_POINT = frozenset(
    {"expected", "compiled-mask", "compiled-score", "causal", "equivariant-heads"}
)
