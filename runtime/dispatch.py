"""From the arguments of a call to a kernel that runs: backend, front cache, tables, launch."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch

from attnc.errors import BackendError, DeviceError, GradientNotSupportedError
from attnc.ir import Expr, SlotType, slots_of
from attnc.lift import lift
from attnc.mods import Mod
from attnc.plan import Spec
from attnc.run_table import RunTable
from attnc.runtime.call import Call, CompiledKernel
from attnc.runtime.collection import collection_put_off
from attnc.runtime.contents import ContentMemory
from attnc.runtime.layout import Layout, layout_of
from attnc.simplify import simplify
from attnc.target import INTERPRETER, CpuTarget, GpuTarget, Target
from attnc.trace import SlotTable, trace_mask, trace_score

Backend = Literal["cpu", "triton", "reference"]
_BACKENDS = ("cpu", "triton", "reference")
_SHORT_QUERIES = 16
_MAX_FRONT_ENTRIES = 4096
_MAX_READY = 4096


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


class _Key(NamedTuple):
    """What a kernel is chosen by. ``block`` are the tile sizes of a table that must be read:
    those of a given block mask, or (0, 0) where they are free; None where none need be."""

    mask: Expr | None
    score: Expr | None
    slots: tuple[SlotType, ...]
    dtype: torch.dtype
    head_dim: int
    value_dim: int
    target: Target
    block: tuple[int, int] | None
    wide_index: bool
    short_queries: bool
    wants_lse: bool
    wants_max: bool
    strict: bool


@dataclass(frozen=True)
class _Entry:
    """What the front cache remembers of a pair of traced expressions."""

    kernel: CompiledKernel
    params: tuple[int | float, ...]
    mask: Expr | None  # simplified, constants in place: what tables are made from
    mask_slots: tuple[int, ...]


class _Ready(NamedTuple):
    """An entry for a layout. ``is_open``: whether the mask's integers wrap around depends on the
    content of tensors, so that ``from_table`` may have to take over in some calls."""

    entry: _Entry
    is_open: bool
    key: _Key


_ready: dict[tuple[Any, ...], _Ready] = {}
_front: OrderedDict[Any, _Entry] = OrderedDict()
_tables: ContentMemory[RunTable] = ContentMemory()
_exactness: ContentMemory[bool] = ContentMemory()
_lock = threading.Lock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def choose_backend(q: torch.Tensor, backend: str | None) -> Backend:
    """The backend asked for by argument, by ATTNC_BACKEND, or by the device of ``q``.

    Raises:
        BackendError: No such backend, or it cannot run on q's device.
    """
    name = backend or os.environ.get("ATTNC_BACKEND") or ("triton" if q.is_cuda else "cpu")
    if name not in _BACKENDS:
        raise BackendError(backend=name, problem=f"use one of {', '.join(_BACKENDS)}.")
    if name == "cpu" and q.device.type != "cpu":
        raise BackendError(backend=name, problem=f"q is on {q.device}; it runs on CPU tensors.")
    if name == "triton" and not q.is_cuda and not _interpreting():
        raise BackendError(
            backend=name,
            problem=f"q is on {q.device}; it runs on GPU tensors, or on CPU tensors with the "
            "environment variable TRITON_INTERPRET=1.",
        )
    return name  # type: ignore[return-value]


def _interpreting() -> bool:
    return os.environ.get("TRITON_INTERPRET", "0") in ("1", "true", "on")


def run(
    inputs: Inputs, backend: Backend, *, wants_lse: bool, wants_max: bool, strict: bool
) -> Outputs:
    """Computes attention by a generated kernel, built or loaded if it is new."""
    q, k, v, mod, score_mod, scale, layout = inputs
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
    program = TracedProgram(mask, score, slots.tensors, slots.types, given)
    return run_program(
        q,
        k,
        v,
        program,
        scale,
        backend,
        wants_lse=wants_lse,
        wants_max=wants_max,
        strict=strict,
        layout=layout,
    )


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
    """As ``run``, for functions that are traced already; ``q, k, v`` as in ``Inputs``."""
    if layout is None:
        layout = layout_of(q, k, v)
    outputs = empty_outputs(q, v, wants_lse, wants_max)
    if layout.is_empty and not (wants_lse or wants_max):
        return outputs
    mask, score, captured, slots, given = program
    tensors = _captured_for(captured, q) if captured else ()
    block = None if given is None else (given.block_m, given.block_n)
    # Offsets on CPUs are 64 bits wide anyway.
    is_wide = backend != "cpu" and _needs_wide_index(q, k, v, outputs.out, *tensors)
    wanted = (wants_lse, wants_max, strict)
    key = (layout, mask, score, tuple(slots), block, is_wide, backend, wanted)
    ready = _ready.get(key) or _make_ready(key, q, v)
    entry = ready.entry
    if ready.is_open and not _is_exact(entry, tensors, layout.lengths):
        entry = _entry(ready.key._replace(block=(0, 0)))
    table = None
    if entry.kernel.uses_table:
        table = _table_for(entry, given, tensors, layout.lengths)
    entry.kernel.run(Call(q, k, v, *outputs, scale, entry.params, tensors, table))
    return outputs


def _make_ready(key: tuple[Any, ...], q: torch.Tensor, v: torch.Tensor) -> _Ready:
    layout, mask, score, slots, block, is_wide, backend, wanted = key
    wants_lse, wants_max, strict = wanted
    full_key = _Key(
        mask=mask,
        score=score,
        slots=slots,
        dtype=q.dtype,
        head_dim=q.shape[3],
        value_dim=v.shape[3],
        target=_target(backend, q),
        block=block,
        wide_index=is_wide,
        short_queries=q.shape[2] <= _SHORT_QUERIES,
        wants_lse=wants_lse,
        wants_max=wants_max,
        strict=strict,
    )
    entry = _entry(full_key)
    is_open = not entry.kernel.uses_table and bool(entry.mask_slots)
    if not (entry.kernel.uses_table or is_open or _is_exact(entry, (), layout.lengths)):
        entry = _entry(full_key._replace(block=(0, 0)))
    ready = _Ready(entry, is_open, full_key)
    if len(_ready) >= _MAX_READY:
        _ready.clear()
    _ready[key] = ready
    return ready


def _entry(key: _Key) -> _Entry:
    return _front.get(key) or _make_entry(key)


def _captured_for(tensors: Sequence[torch.Tensor], q: torch.Tensor) -> list[torch.Tensor]:
    """Captured tensors on the device of ``q``; PyTorch takes numbers on the CPU anywhere.

    Raises:
        DeviceError: A tensor with dimensions, or of another device, is not there.
        GradientNotSupportedError: A tensor requires grad.
    """
    grad = torch.is_grad_enabled()
    found = []
    device = q.device
    for number, tensor in enumerate(tensors):
        if grad and tensor.requires_grad:
            raise GradientNotSupportedError(what=_named(number, tensor))
        if tensor.device != device:
            if tensor.dim() or tensor.device.type != "cpu":
                what = _named(number, tensor)
                raise DeviceError(what=what, device=tensor.device, expected=device)
            tensor = tensor.to(device)
        found.append(tensor)
    return found


def _named(number: int, tensor: torch.Tensor) -> str:
    return f"captured tensor {number} of shape {tuple(tensor.shape)}"


def empty_outputs(q: torch.Tensor, v: torch.Tensor, lse: bool, max_scores: bool) -> Outputs:
    """Uninitialised outputs for these inputs."""
    # The memory order of q is kept: a (B, S, H, D) model gets its output back without a copy.
    same_width = v.shape[3] == q.shape[3]
    out = torch.empty_like(q) if same_width else q.new_empty((*q.shape[:3], v.shape[3]))
    if not (lse or max_scores):
        return Outputs(out, None, None)
    stat_dtype = torch.float64 if q.dtype is torch.float64 else torch.float32

    def stat() -> torch.Tensor:
        return torch.empty(q.shape[:3], dtype=stat_dtype, device=q.device)

    return Outputs(out, stat() if lse else None, stat() if max_scores else None)


def _target(backend: Backend, q: torch.Tensor) -> Target:
    if backend == "cpu":
        from attnc.runtime.isa import best_isa

        return CpuTarget(best_isa())
    if not q.is_cuda:
        return INTERPRETER
    if torch.version.hip:
        arch = torch.cuda.get_device_properties(q.device).gcnArchName.split(":")[0]
        return GpuTarget("hip", arch, 64)
    major, minor = torch.cuda.get_device_capability(q.device)
    return GpuTarget("cuda", 10 * major + minor, 32)


def _needs_wide_index(*tensors: torch.Tensor) -> bool:
    return any(_largest_offset(tensor) >= 2**31 for tensor in tensors)


def _largest_offset(tensor: torch.Tensor) -> int:
    return sum(
        (size - 1) * abs(stride)
        for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
        if size
    )


def _make_entry(key: _Key) -> _Entry:
    mask = None if key.mask is None else simplify(key.mask)
    score = None if key.score is None else simplify(key.score)
    lifted = lift((mask, score))
    spec = Spec(
        mask=lifted.exprs[0],
        score=lifted.exprs[1],
        slots=key.slots,
        params=lifted.dtypes,
        dtype=str(key.dtype).removeprefix("torch."),
        head_dim=key.head_dim,
        value_dim=key.value_dim,
        target=key.target,
        from_table=key.block is not None,
        block_multiple=key.block or (0, 0),
        wide_index=key.wide_index,
        short_queries=key.short_queries,
        wants_lse=key.wants_lse,
        wants_max=key.wants_max,
    )
    mask_slots = () if mask is None else slots_of(mask)
    with collection_put_off():
        kernel = load_kernel(spec, strict=key.strict)
    entry = _Entry(kernel, lifted.values, mask, mask_slots)
    with _lock:
        _front[key] = entry
        while len(_front) > _MAX_FRONT_ENTRIES:
            _front.popitem(last=False)
    return entry


def load_kernel(spec: Spec, *, strict: bool = False) -> CompiledKernel:
    """The kernel of ``spec`` for its target, from memory, from disk, or built."""
    if isinstance(spec.target, CpuTarget):
        from attnc.runtime.cpu import load_cpu_kernel

        return load_cpu_kernel(spec, strict=strict)
    from attnc.runtime.triton import load_triton_kernel

    return load_triton_kernel(spec)


def _is_exact(
    entry: _Entry, tensors: Sequence[torch.Tensor], lengths: tuple[int, int, int, int]
) -> bool:
    """Whether the mask's integers cannot wrap around, which loop bounds in closed form rely on."""
    mask = entry.mask
    if mask is None:
        return True
    read = [tensors[slot] for slot in entry.mask_slots]

    def never_wraps_here() -> bool:
        from attnc.intervals import Facts, never_wraps

        n_batch, n_heads, n_queries, n_keys = lengths
        return never_wraps(
            [mask],
            Facts(tensors),
            n_batch=n_batch,
            n_heads=n_heads,
            n_queries=n_queries,
            n_keys=n_keys,
        )

    return _exactness.get((mask, lengths), read, never_wraps_here)


def _table_for(
    entry: _Entry,
    given: RunTable | None,
    tensors: Sequence[torch.Tensor],
    lengths: tuple[int, int, int, int],
) -> RunTable:
    block_m, block_n = entry.kernel.block_m, entry.kernel.block_n
    if given is not None:
        return given.refine(block_m, block_n)
    mask = entry.mask
    assert mask is not None, "a kernel without a mask has loop bounds in closed form"
    read = [tensors[slot] for slot in entry.mask_slots]

    def classified() -> RunTable:
        from attnc.blocks import classify

        n_batch, n_heads, n_queries, n_keys = lengths
        return classify(
            mask,
            tensors,
            n_batch=n_batch,
            n_heads=n_heads,
            n_queries=n_queries,
            n_keys=n_keys,
            block_m=block_m,
            block_n=block_n,
        ).table

    return _tables.get((mask, lengths, block_m, block_n), read, classified)
