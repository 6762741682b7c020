"""Derivatives of score_mods, by the score and by all captured tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from attnc.derivative import Derivative, differentiate
from attnc.ir import DType
from attnc.trace import SlotTable, trace_score

F32, F64 = DType.FLOAT32, DType.FLOAT64
Mod = Callable[..., Any]


def derivative_of(fn: Mod, dtype: DType = F64) -> tuple[Derivative, list[torch.Tensor]]:
    """Derivative by the score and by all captured tensors, and these."""
    slots = SlotTable()
    traced = trace_score(fn, slots, dtype).expr
    return differentiate(traced, range(len(slots.tensors))), slots.tensors
