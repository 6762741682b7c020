"""Where in the user's code dynamo is, while it traces a mod in a graph."""

from __future__ import annotations

import linecache
from typing import Any

import torch
from torch._dynamo.symbolic_convert import InstructionTranslator

from attnc.errors.base import visible
from attnc.trace.location import INTERNAL, UNKNOWN_SOURCE


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # PyTorch's
def traced_line() -> tuple[str, int, str]:
    """File, number and source of the user's line that dynamo is at; it calls this, not traces it."""
    frame: Any = InstructionTranslator.current_tx().output.current_tx
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(INTERNAL):
            source = linecache.getline(code.co_filename, frame.lineno, frame.f_globals).strip()
            return code.co_filename, frame.lineno, visible(source) or UNKNOWN_SOURCE
        frame = frame.parent
    return "<torch.compile>", 0, UNKNOWN_SOURCE
