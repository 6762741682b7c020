"""From the arguments of a call to a kernel that runs: backend, tracing, launch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import torch

from attnc.errors import BackendError, DeviceError
from attnc.ir import Expr, SlotType
from attnc.mods import Mod
from attnc.run_table import RunTable
from attnc.runtime.call import Call
from attnc.runtime.front import Backend, entry_for, table_for
from attnc.runtime.layout import Layout, layout_of
from attnc.trace import SlotTable, trace_mask, trace_score

_BACKENDS = ("cpu", "triton", "reference")


class Fixed(NamedTuple):
    """What a block mask says: its tiles, and what holds inside PARTIAL ones.

    Without a table the tiles are those that the mask implies. ``expr`` replaces ``mod`` where the
    block mask remembers a mask that reads no tensor.
    """

    table: RunTable | None
    mod: Mod | None
    expr: Expr | None


class Inputs(NamedTuple):
    """Checked arguments of ``attention``; see there for the shapes.

    ``layout`` is that of q, k and v, where it is known.
    """

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    mask: Mod | Fixed | None
    score: Mod | None
    scale: float
    layout: Layout | None = None


class TracedProgram(NamedTuple):
    """A mask and a score as traced, with the storage and content of the tensors they read.

    ``given`` are the tiles of a block mask, or None where the mask implies them.
    """

    mask: Expr | None
    score: Expr | None
    tensors: Sequence[torch.Tensor]
    slots: Sequence[SlotType]
    given: RunTable | None


class Outputs(NamedTuple):
    """out (B, Hq, n_queries, value_dim); the others (B, Hq, n_queries), or None if not wanted."""

    out: torch.Tensor
    lse: torch.Tensor | None
    max_scores: torch.Tensor | None


def choose_backend(q: torch.Tensor, backend: str | None) -> Backend:
    """The backend asked for by argument, by ATTNC_BACKEND, or by the device of ``q``.

    Raises:
        BackendError: No such backend, or it cannot run on q's device.
    """
    name = backend
    if name is None:
        name = os.environ.get("ATTNC_BACKEND") or ("triton" if q.is_cuda else "cpu")
    if not isinstance(name, str) or name not in _BACKENDS:
        raise BackendError(backend=name, problem=f"use one of {', '.join(_BACKENDS)}.")
    if name == "cpu" and q.device.type != "cpu":
        raise BackendError(backend=name, problem=f"q is on {q.device}; it runs on CPU tensors.")
    if name == "triton" and not q.is_cuda and not interprets():
        raise BackendError(
            backend=name,
            problem=f"q is on {q.device}; it runs on GPU tensors, or on CPU tensors with the "
            "environment variable TRITON_INTERPRET=1.",
        )
    return name  # type: ignore[return-value]


def interprets() -> bool:
    """Whether Triton runs kernels in its interpreter, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET", "0") in ("1", "true", "on")


def traced_program(inputs: Inputs) -> TracedProgram:
    """The mask and the score of a call, traced into one table of captured tensors."""
    q, k, v, mod, score_mod, _, layout = inputs
    if layout is None:
        layout = layout_of(q, k, v)
    mask = score = given = None
    slots = SlotTable(q.device)
    if isinstance(mod, Fixed):
        given, mask = mod.table, mod.expr
        mod = None if mask is not None else mod.mod
    if mod is not None:
        mask = trace_mask(mod, slots).expr
    if score_mod is not None:
        score = trace_score(score_mod, slots, layout.float_dtype).expr
    return TracedProgram(mask, score, slots.tensors, slots.types, given)


def run_program(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    program: TracedProgram,
    scale: float,
    backend: Backend,
    *,
    wants_lse: bool,
    wants_max: bool,
    strict: bool,
    layout: Layout | None = None,
) -> Outputs:
    """Computes attention by a generated kernel, built or loaded if it is new.

    ``q, k, v`` are as in ``Inputs``. The outputs have no graph: ``autograd`` makes it.
    """
    if layout is None:
        layout = layout_of(q, k, v)
    outputs = empty_outputs(q, v, wants_lse, wants_max)
    if layout.is_empty and not (wants_lse or wants_max):
        return outputs
    mask, score, captured, slots, given = program
    tensors = captured_on_device(captured, q) if captured else ()
    block = None if given is None else (given.block_m, given.block_n)
    is_wide = needs_wide_index(backend, tensors, q, k, v, outputs.out)
    wanted = (wants_lse, wants_max, strict, None)
    key = (layout, mask, score, tuple(slots), block, is_wide, backend, wanted)
    entry = entry_for(key, q, v, tensors)
    table = None
    if entry.kernel.uses_table:
        table = table_for(entry, given, tensors, layout.lengths)
    entry.kernel.run(Call(q, k, v, *outputs, scale, entry.params, tensors, table, layout))
    return outputs


def captured_on_device(tensors: Sequence[torch.Tensor], q: torch.Tensor) -> list[torch.Tensor]:
    """Captured tensors on the device of ``q``; PyTorch takes numbers on the CPU anywhere.

    Raises:
        DeviceError: A tensor with dimensions, or of another device, is not there.
    """
    found = []
    device = q.device
    for number, tensor in enumerate(tensors):
        if tensor.device != device:
            if tensor.dim() or tensor.device.type != "cpu":
                what = f"captured tensor {number} of shape {tuple(tensor.shape)}"
                raise DeviceError(what=what, device=tensor.device, expected=device)
            tensor = tensor.to(device)
        found.append(tensor)
    return found


def empty_outputs(q: torch.Tensor, v: torch.Tensor, lse: bool, max_scores: bool) -> Outputs:
    """Uninitialised outputs for these inputs."""
    # The memory order of q is kept: a (B, S, H, D) model gets its output back without a copy.
    same_width = v.shape[3] == q.shape[3]
    out = torch.empty_like(q if same_width else q[..., :1].expand(*q.shape[:3], v.shape[3]))
    if not (lse or max_scores):
        return Outputs(out, None, None)
    stat_dtype = torch.float64 if q.dtype is torch.float64 else torch.float32

    def stat() -> torch.Tensor:
        return torch.empty(q.shape[:3], dtype=stat_dtype, device=q.device)

    return Outputs(out, stat() if lse else None, stat() if max_scores else None)


def needs_wide_index(
    backend: Backend, captured: Sequence[torch.Tensor], *others: torch.Tensor
) -> bool:
    """Whether an offset into one of these tensors, or into a gradient of it, needs 64 bits."""
    # Kernels for CPUs have 64 bits for all but captured tensors.
    tensors = captured if backend == "cpu" else (*others, *captured)
    return any(_largest_offset(tensor) >= 2**31 for tensor in tensors)


def _largest_offset(tensor: torch.Tensor) -> int:
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    largest = sum((size - 1) * abs(stride) for size, stride in steps if size)
    # Gradients are contiguous.
    return max(largest, tensor.numel() - 1)
