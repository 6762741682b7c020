"""From what users pass, a mask and its lengths, to an expression."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from attnc import checks
from attnc.block_mask.fixed import as_fixed, as_function
from attnc.decorator import Kernel
from attnc.errors import InterchangeArgumentError
from attnc.intervals import Facts
from attnc.ir import KV_IDX, Q_IDX, Expr, IndexName, indices_of, replaced
from attnc.mods import Mod, require_kind
from attnc.simplify import simplify
from attnc.trace import SlotTable, trace_mask


@dataclass(frozen=True)
class Subject:
    """A mask of given lengths; batches and heads that it does not tell apart are one.

    ``mod`` says what ``expr`` says. ``device``: where results belong.
    """

    mod: Mod
    expr: Expr
    facts: Facts
    n_batch: int
    n_heads: int
    n_queries: int
    n_keys: int
    device: torch.device

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        return tuple(self.facts.tensors)

    def transposed(self) -> Subject:
        """The mask of which a line is a key."""
        expr = replaced(self.expr, {Q_IDX: KV_IDX, KV_IDX: Q_IDX})
        facts = Facts(self.facts.tensors)
        return replace(self, expr=expr, facts=facts, n_queries=self.n_keys, n_keys=self.n_queries)

    def group(self, line: int, n_lines: int) -> tuple[int, int, int]:
        """Batch, head and number in its group of a line of ``Runs``."""
        group, number = divmod(line, n_lines)
        return group // self.n_heads, group % self.n_heads, number


def subject_of(
    function: str,
    mask: Any,
    Q_LEN: int | None,
    KV_LEN: int | None,
    B: int | None,
    H: int | None,
) -> Subject:
    """The mask of a mask_mod, or that a Kernel applies, or that a BlockMask lists.

    Raises:
        InterchangeArgumentError: A size is missing or wrong, or not that of a BlockMask.
        TraceError: The function does something a kernel cannot do.
        NotAModError, WrongModKindError: It is no mask.
    """
    while isinstance(mask, Kernel) and mask.mask is not None:
        mask = mask.mask
    known: tuple[int | None, ...] = (None,) * 4
    # PyTorch's block masks are told by their class where they are read; its shape is enough here.
    is_listed = hasattr(mask, "kv_num_blocks") and hasattr(mask, "seq_lengths")
    if is_listed:
        known = (1, 1, *mask.shape)[-4:]
    else:
        require_kind(mask, "mask_mod", "mask")
    sizes = [
        _size(function, name, given, size)
        for name, given, size in zip(
            ("B", "H", "Q_LEN", "KV_LEN"), (B, H, Q_LEN, KV_LEN), known, strict=True
        )
    ]
    n_batch, n_heads = (1 if size is None else size for size in sizes[:2])
    n_queries = sizes[2]
    if n_queries is None:
        problem = "only a block mask knows its lengths; give a number"
        raise InterchangeArgumentError(
            function=function, argument="Q_LEN", value=None, problem=problem
        )
    n_keys = n_queries if sizes[3] is None else sizes[3]
    mod: Callable[..., Any] = mask
    if is_listed:
        one = torch.empty(1)
        q, k = (one.expand(n_batch, n_heads, length, 1) for length in (n_queries, n_keys))
        fixed = as_fixed(mask, q, k)
        assert fixed is not None
        mod = as_function(fixed, mask.kv_num_blocks.device)
    slots = SlotTable()
    expr = simplify(trace_mask(mod, slots).expr)
    read = indices_of(expr)
    devices = (tensor.device for tensor in slots.tensors if tensor.dim())
    return Subject(
        mod,
        expr,
        Facts(tuple(slots.tensors)),
        n_batch if IndexName.B in read else min(n_batch, 1),
        n_heads if IndexName.H in read else min(n_heads, 1),
        n_queries,
        n_keys,
        next(devices, torch.device("cpu")),
    )


def _size(function: str, name: str, given: int | None, known: int | None) -> int | None:
    given = number if (number := checks.whole_number(given)) is not None else given
    problem, least = "", 1 if name in "BH" else 0
    if given is None:
        return known
    if checks.size(given, least) is None:
        problem = f"it must be a number from {least} to {checks.LONGEST}"
    elif known is not None and known != given and not (name in "BH" and known == 1):
        problem = f"the block mask was made for {known}"
    if problem:
        raise InterchangeArgumentError(
            function=function, argument=name, value=given, problem=problem
        )
    return given
