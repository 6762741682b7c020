"""Errors that are raised while torch.compile traces: dynamo follows no errors of a class of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from attnc.errors.base import described, visible


def break_graph(template: str, fields: Mapping[str, Any]) -> None:
    """Ends dynamo's graph here, if it traces; with ``fullgraph=True`` that is an error with our text.

    Without, the call that holds this one is run as it stands, and raises what it raises.
    """
    if not torch.compiler.is_dynamo_compiling():
        return
    # Lines of code are no constants for dynamo, texts are.
    values = [str(x) if name == "location" else x for name, x in fields.items()]
    torch._dynamo.graph_break(msg=_message(template, tuple(fields), *values))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # PyTorch's
def _message(template: str, names: tuple[str, ...], *values: Any) -> str:
    """What an error says; dynamo calls this instead of tracing it."""
    fields = {name: described(value) for name, value in zip(names, values, strict=True)}
    return visible(template.format(**fields).rstrip())
