"""Masks made ahead of the call: block masks by analysis, dense ones by evaluation."""

from __future__ import annotations

import torch
from torch._compile import _disable_dynamo

from attnc import checks
from attnc.block_mask.arguments import checked_block_size, checked_flag
from attnc.block_mask.mask import BlockMask
from attnc.errors import BlockMaskArgumentError, BlockMaskSizeError, MaskDeviceError
from attnc.mods import Mod, mod_kind, require_kind
from attnc.simplify import simplify
from attnc.trace import SlotTable, trace_mask, trace_score

Device = torch.device | str | int | None


def create_block_mask(
    mask_mod: Mod,
    B: int | None,
    H: int | None,
    Q_LEN: int,
    KV_LEN: int,
    device: Device = None,
    BLOCK_SIZE: int | tuple[int, int] = 128,
    _compile: bool = False,
    separate_full_blocks: bool = True,
    compute_dq_write_order: bool = False,
    dq_kv_order: bool = True,
) -> BlockMask:
    """The block mask of a mask_mod, by analysis of the function instead of evaluating every pair.

    Args:
        mask_mod: ``(b, h, q_idx, kv_idx) -> bool``.
        B: Batches, or None where the mask is the same for all.
        H: Query heads, or None where the mask is the same for all.
        Q_LEN: Number of queries.
        KV_LEN: Number of keys.
        device: Where the index lists are put when they are asked for. If None, where the captured
            tensors are; without any, on the accelerator, if there is one.
        BLOCK_SIZE: Tokens per block, one number or (queries, keys).
        _compile: Accepted for PyTorch's sake; there is nothing to compile.
        separate_full_blocks: Tell full blocks from partial ones in the index lists.
        compute_dq_write_order: Add what PyTorch's deterministic FLASH backward reads.
        dq_kv_order: For that, whether the last block of keys comes first.
    """
    create = _created_outside_of_graphs if torch.compiler.is_dynamo_compiling() else _created
    block_mask = create(mask_mod, (B, H), (Q_LEN, KV_LEN), device, BLOCK_SIZE, separate_full_blocks)
    if not isinstance(dq_kv_order, bool):
        raise BlockMaskArgumentError(problem="dq_kv_order must be a bool here")
    if checked_flag("compute_dq_write_order", compute_dq_write_order):
        compute_dq_write_order = True
    if compute_dq_write_order:
        block_mask.add_write_order(descending=dq_kv_order)
        block_mask.dq_kv_order_spt = dq_kv_order
    return block_mask


def _created(
    mask_mod: Mod,
    n_batch_heads: tuple[int | None, int | None],
    lengths: tuple[int, int],
    device: Device,
    block_size: int | tuple[int, int],
    separate_full_blocks: bool,
) -> BlockMask:
    from attnc.blocks import classify

    require_kind(mask_mod, "mask_mod", "mask_mod")
    shape = _checked_shape(*n_batch_heads, *lengths)
    block_m, block_n = checked_block_size(block_size)
    separate_full_blocks = checked_flag("separate_full_blocks", separate_full_blocks)
    device = _named(device)
    slots = SlotTable("cpu" if device is None else device)
    expr = simplify(trace_mask(mask_mod, slots).expr)
    table = classify(
        expr,
        slots.tensors,
        n_batch=shape[0],
        n_heads=shape[1],
        n_queries=shape[2],
        n_keys=shape[3],
        block_m=block_m,
        block_n=block_n,
    ).table
    # Without captured tensors the expression is the mask for good; with them the table is a
    # snapshot of their content, and mask_mod is read anew inside partial blocks.
    frozen = None if slots.tensors else expr
    return BlockMask.from_table(
        table, mask_mod, frozen, _device(device, slots), shape[:2], separate_full_blocks
    )


_created_outside_of_graphs = _disable_dynamo(_created)


def _checked_shape(
    B: int | None, H: int | None, Q_LEN: int, KV_LEN: int
) -> tuple[int, int, int, int]:
    sizes = {
        "B": 1 if B is None else B,
        "H": 1 if H is None else H,
        "Q_LEN": Q_LEN,
        "KV_LEN": KV_LEN,
    }
    for name, size in sizes.items():
        if checks.size(size) is None:
            wanted = "a number of at least 0"
            if (number := checks.whole_number(size)) is not None and number > checks.LONGEST:
                wanted = f"one of at most {checks.LONGEST}"
            raise BlockMaskSizeError(name=name, size=size, wanted=wanted)
    n_batch, n_heads, n_queries, n_keys = map(int, sizes.values())
    return n_batch, n_heads, n_queries, n_keys


def _named(device: Device) -> torch.device | None:
    if device is None:
        return None
    named = checks.device(device)
    if named is None:
        raise MaskDeviceError(device=device, problem="that is no device.")
    return named


def _device(device: Device, slots: SlotTable) -> torch.device:
    """Where lists belong.

    Raises:
        MaskDeviceError: This machine has no such device.
    """
    if device is None:
        if slots.tensors:
            return slots.tensors[0].device
        return torch.accelerator.current_accelerator(True) or torch.device("cpu")
    device = torch.device(device)
    if device.type == "cpu":
        return device
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        problem = str(error).split("\n")[0].rstrip(".") + "."
        raise MaskDeviceError(device=str(device), problem=problem) from None
    return device


def create_mask(
    mod_fn: Mod,
    B: int | None,
    H: int | None,
    Q_LEN: int,
    KV_LEN: int,
    device: Device = None,
) -> torch.Tensor:
    """Dense (B or 1, H or 1, Q_LEN, KV_LEN) bool: where a mask_mod holds.

    Args:
        mod_fn: mask_mod; or a score_mod, which hides the pairs where it makes -inf of a score of 0.
        B: Batches, or None for one that stands for all.
        H: Query heads, or None for one that stands for all.
        Q_LEN: Number of queries.
        KV_LEN: Number of keys.
        device: Of the result, as in ``create_block_mask``.

    Raises:
        TraceError: The function does something a kernel cannot do.
        BlockMaskArgumentError: A length or number is none.
    """
    create = _dense_outside_of_graphs if torch.compiler.is_dynamo_compiling() else _dense
    return create(mod_fn, B, H, Q_LEN, KV_LEN, device)


def _dense(
    mod_fn: Mod, B: int | None, H: int | None, Q_LEN: int, KV_LEN: int, device: Device
) -> torch.Tensor:
    from attnc.evaluate import evaluate

    shape = _checked_shape(B, H, Q_LEN, KV_LEN)
    device = _named(device)
    slots = SlotTable("cpu" if device is None else device)
    if not callable(mod_fn):
        require_kind(mod_fn, "mask_mod", "mod_fn")
    is_mask = mod_kind(mod_fn) == "mask_mod"
    traced = trace_mask(mod_fn, slots) if is_mask else trace_score(mod_fn, slots)
    at = _device(device, slots)
    indices = [
        torch.arange(n, dtype=torch.int32, device=at).reshape(
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
        score=None if is_mask else torch.zeros((), device=at),
        tensors=[t.to(at) for t in slots.tensors],
    )
    visible = value if is_mask else value != -torch.inf
    return visible.expand(shape).contiguous()


_dense_outside_of_graphs = _disable_dynamo(_dense)
