"""Block masks. Each also has the base that PyTorch raises for the mistake."""

from __future__ import annotations

from attnc.errors.base import AttncError


class BlockMaskArgumentError(AttncError, ValueError):
    template = "BlockMask: {problem}."


class BlockMaskLengthError(AttncError, ValueError):
    template = (
        "block_mask was created for {mask_q} queries and {mask_kv} keys, but is used for "
        "{n_queries} queries and {n_keys} keys. Create it for these lengths, or pass the mask_mod "
        "in its place, which holds for all."
    )


class BlockMaskIndexError(AttncError, IndexError, TypeError):
    template = (
        "block_mask[{index}]: {problem}. Its axes are (B, H, blocks of queries), here {sizes}; "
        "give for each an int, a slice or a tensor of indices."
    )


class BlockMaskShapeError(AttncError, ValueError):
    template = (
        "block_mask has {axis} {mask_size}, but q has {size}. Create it with {axis}={size}, "
        "or with {axis}=None where the mask is the same for all."
    )


class SlicedMaskModError(AttncError, RuntimeError):
    template = (
        "The mask_mod of a sliced BlockMask would see indices of the slice, not of the whole. "
        "Assign one that fits, and the lengths: `sliced.mask_mod = lambda b, h, q_idx, kv_idx: "
        "...`, `sliced.seq_lengths = (n_queries, n_keys)`."
    )


class BlockMaskDimensionsError(BlockMaskArgumentError, RuntimeError):
    template = (
        "BlockMask: kv_indices has {n_dims} dimensions. It needs at least 2, "
        "(..., n_q_blocks, n_kv_blocks)."
    )


class BlockMaskListsError(BlockMaskArgumentError, AssertionError):
    template = "BlockMask: {one} and {other} go together: give both or neither."


class BlockMaskRowsError(BlockMaskArgumentError):
    template = (
        "BlockMask: its lists have {n_rows} rows of blocks, but {n_queries} queries in blocks of "
        "{block} need more. Assign seq_lengths that fit the lists."
    )


class BlockMaskSizeError(BlockMaskArgumentError, RuntimeError, TypeError):
    template = "BlockMask: {name} is {size!r}; give {wanted}."


class MaskDeviceError(AttncError, RuntimeError, AssertionError):
    template = (
        "block_mask cannot be put on {device!r}: {problem} Leave device out, or give one that "
        "this machine has."
    )


class WriteOrderError(AttncError, NotImplementedError):
    template = (
        "A BlockMask with a tensor dq_kv_order cannot be {verb}: its order is that of the whole. "
        "Make a new one with BlockMask.from_kv_blocks."
    )
