"""Launching the functions of Triton kernels, compiled once per device and layout of arguments."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from attnc.run_table import RunTable
from attnc.runtime import cache
from attnc.runtime.call import Call
from attnc.runtime.triton_build import FunctionFacts, KernelFacts

_MAX_TABLES = 64
_MAX_LAYOUTS = 1024

_tables: OrderedDict[tuple[int, bool, torch.device], tuple[RunTable, tuple[Any, ...]]] = (
    OrderedDict()
)
_lock = threading.Lock()
_launch_lock = threading.Lock()


def _after_fork() -> None:
    global _lock, _launch_lock
    _lock, _launch_lock = threading.Lock(), threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True)
class Launcher:
    """One function of a kernel.

    Attributes:
        function: The JIT function.
        facts: Of the function.
        is_interpreted: It runs on CPU tensors.
        compiled: What the function was compiled to, by device and by what Triton specializes on:
            strides, and whether addresses are multiples of 16.
    """

    function: Any
    facts: FunctionFacts
    is_interpreted: bool
    compiled: dict[tuple[int, ...], Any] = field(default_factory=dict)

    def launch(
        self,
        device: torch.device,
        n_programs: int,
        fixed: list[Any],
        moving: list[Any],
    ) -> None:
        """Runs ``n_programs`` of it, if any.

        Args:
            device: Where the tensors are.
            n_programs: Size of the grid.
            fixed: Arguments that Triton specializes on, in order.
            moving: The other arguments, which follow.
        """
        if n_programs == 0:
            return
        if self.is_interpreted:
            # One at a time: the interpreter replaces what Triton's language is while it runs.
            # Overflow and NaN are values here.
            with _launch_lock, np.errstate(all="ignore"):
                self.function[(n_programs,)](*fixed, *moving, **self.facts.options)
            return
        index = device.index
        if index == torch.cuda.current_device():
            self._launch(index, n_programs, fixed, moving)
            return
        with torch.cuda.device(index):
            self._launch(index, n_programs, fixed, moving)

    def _launch(
        self, device: int, n_programs: int, arguments: list[Any], unspecialized: list[Any]
    ) -> None:
        """Launches what was compiled for such arguments, which Triton is asked for only once."""
        key = (
            device,
            *(x.data_ptr() % 16 if isinstance(x, torch.Tensor) else x for x in arguments),
        )
        compiled = self.compiled.get(key)
        if compiled is not None:
            compiled[n_programs, 1, 1](*arguments, *unspecialized)
            return
        from triton import knobs

        # One at a time: Triton's settings belong to the process.
        with _launch_lock, knobs.cache.scope():
            knobs.cache.dir = str(cache.disk_cache().binaries())
            compiled = self.function[(n_programs,)](
                *arguments, *unspecialized, **self.facts.options
            )
            if len(self.compiled) >= _MAX_LAYOUTS:
                self.compiled.clear()
            self.compiled[key] = compiled


def kv_strides(tensor: torch.Tensor) -> tuple[int, ...]:
    """Strides of k or v, whose batch of one serves every query."""
    stride = tensor.stride()
    return stride if tensor.shape[0] != 1 else (0, *stride[1:])


def add_captured(fixed: list[Any], moving: list[Any], call: Call, facts: KernelFacts) -> None:
    """Appends what follows the other arguments: lifted constants, and captured tensors."""
    moving += call.params
    for slot in facts.slots:
        tensor = _readable(call.tensors[slot])
        fixed += (tensor, *tensor.stride())
        moving += tensor.shape


def _readable(tensor: torch.Tensor) -> torch.Tensor:
    """A captured tensor as a kernel can read it at clamped indices."""
    if tensor.dtype is torch.bool:
        tensor = tensor.view(torch.uint8)
    if 0 in tensor.shape:  # every element of it counts as 0
        tensor = tensor.new_zeros(()).expand((1,) * tensor.dim())
    return tensor


def table_of(call: Call, facts: FunctionFacts) -> RunTable:
    """The table of ``call`` in tiles of a function, which may be parts of the table's blocks."""
    assert call.table is not None, "the kernel reads a table"
    return call.table.refine(facts.block_m, facts.block_n)


def table_arguments(
    table: RunTable, device: torch.device, *, knows_terms: bool, is_transposed: bool = False
) -> tuple[Any, ...]:
    """The arrays on ``device`` of the table or its transpose, kept there as long as the same table
    is used, and its strides; ``knows_terms`` as in ``KernelFacts``."""
    key = (id(table), is_transposed, device)
    known = _tables.get(key)
    if known is None:
        partial, full = (table.transpose() if is_transposed else table).split()
        read = [
            partial.offsets,
            partial.starts,
            partial.stops,
            full.offsets,
            full.starts,
            full.stops,
        ]
        if knows_terms:
            read.insert(3, partial.held)
        arrays = tuple(torch.from_numpy(array).to(device) for array in read)
        known = (table, arrays)  # holds the table, so that its id stays its own
        with _lock:
            _tables[key] = known
            while len(_tables) > _MAX_TABLES:
                _tables.popitem(last=False)
    n_rows = table.n_kv_blocks if is_transposed else table.n_q_blocks
    return (
        *known[1],
        0 if table.n_batch == 1 else table.n_heads * n_rows,
        0 if table.n_heads == 1 else n_rows,
    )
