"""Masks made ahead of the call: block masks by analysis, dense ones by evaluation."""

from __future__ import annotations

import torch

from attnc.block_mask.mask import BlockMask
from attnc.errors import BlockMaskArgumentError
from attnc.mods import Mod, mod_kind, require_kind
from attnc.simplify import simplify
from attnc.trace import SlotTable, trace_mask, trace_score


def create_block_mask(
    mask_mod: Mod,
    B: int | None,
    H: int | None,
    Q_LEN: int,
    KV_LEN: int,
    device: torch.device | str | None = None,
    BLOCK_SIZE: int | tuple[int, int] = 128,
    _compile: bool = False,
    separate_full_blocks: bool = True,
) -> BlockMask:
    """The block mask of a mask_mod, by analysis of the function instead of evaluating every pair.

    Args:
        mask_mod: ``(b, h, q_idx, kv_idx) -> bool``.
        B: Batches, or None where the mask is the same for all.
        H: Query heads, or None where the mask is the same for all.
        Q_LEN: Number of queries.
        KV_LEN: Number of keys.
        device: Where the index lists are put when they are asked for; that of the captured
            tensors, else the CPU, if None.
        BLOCK_SIZE: Tokens per block, one number or (queries, keys).
        _compile: Accepted for PyTorch's sake; there is nothing to compile.
        separate_full_blocks: Tell full blocks from partial ones in the index lists.
    """
    from attnc.blocks import classify

    require_kind(mask_mod, "mask_mod", "mask_mod")
    slots = SlotTable(device or "cpu")
    expr = simplify(trace_mask(mask_mod, slots).expr)
    block = (BLOCK_SIZE, BLOCK_SIZE) if isinstance(BLOCK_SIZE, int) else BLOCK_SIZE
    _require_sizes(B, H, Q_LEN, KV_LEN)
    if min(block) <= 0:
        raise BlockMaskArgumentError(problem=f"BLOCK_SIZE {BLOCK_SIZE} is not positive")
    shape = (B or 1, H or 1)
    table = classify(
        expr,
        slots.tensors,
        n_batch=shape[0],
        n_heads=shape[1],
        n_queries=Q_LEN,
        n_keys=KV_LEN,
        block_m=block[0],
        block_n=block[1],
    ).table
    if device is None:
        device = slots.tensors[0].device if slots.tensors else "cpu"
    # Without captured tensors the expression is the mask for good; with them the table is a
    # snapshot of their content, and mask_mod is read anew inside partial blocks.
    frozen = None if slots.tensors else expr
    return BlockMask.from_table(
        table, mask_mod, frozen, torch.device(device), shape, separate_full_blocks
    )


def _require_sizes(B: int | None, H: int | None, Q_LEN: int, KV_LEN: int) -> None:
    for name, size in (("B", B or 0), ("H", H or 0), ("Q_LEN", Q_LEN), ("KV_LEN", KV_LEN)):
        if not isinstance(size, (int, torch.SymInt)) or size < 0:
            raise BlockMaskArgumentError(problem=f"{name} is {size!r}; give a number of at least 0")


def create_mask(
    mod_fn: Mod,
    B: int | None,
    H: int | None,
    Q_LEN: int,
    KV_LEN: int,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Dense (B or 1, H or 1, Q_LEN, KV_LEN) bool: where a mask_mod holds.

    For a score_mod, where it does not turn a score of 0 into -inf.
    """
    from attnc.evaluate import evaluate

    slots = SlotTable(device or "cpu")
    _require_sizes(B, H, Q_LEN, KV_LEN)
    is_mask = mod_kind(mod_fn) == "mask_mod"
    traced = trace_mask(mod_fn, slots) if is_mask else trace_score(mod_fn, slots)
    if device is None:
        device = slots.tensors[0].device if slots.tensors else "cpu"
    shape = (B or 1, H or 1, Q_LEN, KV_LEN)
    indices = [
        torch.arange(n, dtype=torch.int32, device=device).reshape(
            [n if axis == i else 1 for i in range(4)]
        )
        for axis, n in enumerate(shape)
    ]
    value = evaluate(
        traced.expr,
        b=indices[0],
        h=indices[1],
        q_idx=indices[2],
        kv_idx=indices[3],
        score=None if is_mask else torch.zeros((), device=device),
        tensors=[t.to(device) for t in slots.tensors],
    )
    visible = value if is_mask else value != -torch.inf
    return visible.expand(shape).contiguous()
