"""The front cache: from traced expressions and a layout to a kernel, and the tiles it visits."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch

from attnc.ir import Expr, SlotType, slots_of
from attnc.lift import lift
from attnc.plan import Spec, Wanted
from attnc.run_table import RunTable
from attnc.runtime.call import CompiledKernel
from attnc.runtime.collection import collection_put_off
from attnc.runtime.contents import ContentMemory
from attnc.runtime.forks import forks_wait
from attnc.runtime.layout import Layout
from attnc.simplify import simplify
from attnc.target import INTERPRETER, CpuTarget, Target, gpu_of

Backend = Literal["cpu", "triton", "reference"]
_SHORT_QUERIES = 16
_MAX_FRONT_ENTRIES = 4096
_MAX_READY = 4096


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
    gradients: Wanted | None


@dataclass(frozen=True)
class Entry:
    """What the front cache remembers of a pair of traced expressions."""

    kernel: CompiledKernel
    params: tuple[int | float, ...]
    mask: Expr | None  # simplified, constants in place: what tables are made from
    mask_slots: tuple[int, ...]


class _Ready(NamedTuple):
    """An entry for a layout. ``is_open``: whether the mask's integers wrap around depends on the
    content of tensors, so that ``from_table`` may have to take over in some calls."""

    entry: Entry
    is_open: bool
    key: _Key


_ready: dict[tuple[Any, ...], _Ready] = {}
_front: OrderedDict[Any, Entry] = OrderedDict()
_tables: ContentMemory[RunTable] = ContentMemory()
_exactness: ContentMemory[bool] = ContentMemory()
_lock = threading.Lock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def entry_for(
    key: tuple[Any, ...], q: torch.Tensor, v: torch.Tensor, tensors: Sequence[torch.Tensor]
) -> Entry:
    """What runs a call, built or loaded if it is new.

    Args:
        key: (layout, mask, score, slots, block, wide index, backend, wanted), where ``block`` is as
            in ``_Key`` and ``wanted`` is (lse, maxima, strict, gradients).
        q, v: For their shapes, dtype and device.
        tensors: Captured tensors by slot number.
    """
    ready = _ready.get(key) or _make_ready(key, q, v)
    if ready.is_open and not _is_exact(ready.entry, tensors, key[0].lengths):
        return _entry(ready.key._replace(block=(0, 0)))
    return ready.entry


@forks_wait()
def _make_ready(key: tuple[Any, ...], q: torch.Tensor, v: torch.Tensor) -> _Ready:
    layout: Layout = key[0]
    full_key = _full_key(key, q, v)
    entry = _entry(full_key)
    is_open = not entry.kernel.uses_table and bool(entry.mask_slots)
    if not (entry.kernel.uses_table or is_open or _is_exact(entry, (), layout.lengths)):
        entry = _entry(full_key._replace(block=(0, 0)))
    ready = _Ready(entry, is_open, full_key)
    if len(_ready) >= _MAX_READY:
        _ready.clear()
    _ready[key] = ready
    return ready


def spec_for(key: tuple[Any, ...], q: torch.Tensor, v: torch.Tensor) -> Spec:
    """What ``entry_for`` asks of a kernel, at first: whether integers wrap around is not known."""
    return _lifted(_full_key(key, q, v)).spec


def _full_key(key: tuple[Any, ...], q: torch.Tensor, v: torch.Tensor) -> _Key:
    _, mask, score, slots, block, is_wide, backend, wanted = key
    wants_lse, wants_max, strict, gradients = wanted
    return _Key(
        mask=mask,
        score=score,
        slots=slots,
        dtype=q.dtype,
        head_dim=q.shape[3],
        value_dim=v.shape[3],
        target=_target(backend, q, gradients is not None),
        block=block,
        wide_index=is_wide,
        short_queries=q.shape[2] <= _SHORT_QUERIES,
        wants_lse=wants_lse,
        wants_max=wants_max,
        strict=strict,
        gradients=gradients,
    )


def _entry(key: _Key) -> Entry:
    return _front.get(key) or _make_entry(key)


def _target(backend: Backend, q: torch.Tensor, is_backward: bool) -> Target:
    if backend == "cpu":
        from attnc.runtime.isa import best_isa

        isa = best_isa()
        # Backward kernels multiply pairs of bfloat16 in vectors, not in tiles.
        return CpuTarget("avx512_bf16" if is_backward and isa == "amx" else isa)
    if not q.is_cuda:
        return INTERPRETER
    gpu = gpu_of(q.device)
    assert gpu is not None, "q is on a GPU"
    return gpu


class _Lifted(NamedTuple):
    spec: Spec
    params: tuple[int | float, ...]
    mask: Expr | None  # simplified, constants in place


def _lifted(key: _Key) -> _Lifted:
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
        gradients=key.gradients,
    )
    return _Lifted(spec, lifted.values, mask)


@forks_wait()
def _make_entry(key: _Key) -> Entry:
    spec, params, mask = _lifted(key)
    mask_slots = () if mask is None else slots_of(mask)
    with collection_put_off():
        kernel = load_kernel(spec, strict=key.strict)
    entry = Entry(kernel, params, mask, mask_slots)
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
    entry: Entry, tensors: Sequence[torch.Tensor], lengths: tuple[int, int, int, int]
) -> bool:
    """Whether the mask's integers cannot wrap around, which loop bounds in closed form rely on."""
    mask = entry.mask
    if mask is None:
        return True
    read = [tensors[slot] for slot in entry.mask_slots]

    @forks_wait()
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


def table_for(
    entry: Entry,
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
    knows_terms = entry.kernel.knows_terms

    @forks_wait()
    def classified() -> RunTable:
        from attnc.blocks import classify
        from attnc.blocks.terms import with_held_terms
        from attnc.conjunction import terms_of

        n_batch, n_heads, n_queries, n_keys = lengths
        table = classify(
            mask,
            tensors,
            n_batch=n_batch,
            n_heads=n_heads,
            n_queries=n_queries,
            n_keys=n_keys,
            block_m=block_m,
            block_n=block_n,
        ).table
        return with_held_terms(table, terms_of(mask), tensors) if knows_terms else table

    return _tables.get((mask, lengths, block_m, block_n, knows_terms), read, classified)
