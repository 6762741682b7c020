"""Masks, kernels and block masks. See ``error_texts``."""

from __future__ import annotations

import pytest
import torch
from error_texts import Q, attend, causal, decay, tells

import attnc
from attnc import errors


@tells(
    errors.NotAModError,
    "mask is a Tensor of shape (20, 20), not a function. Index it in a function: lambda b, h, "
    "q_idx, kv_idx: tensor[q_idx, kv_idx].",
)
def test_masks_are_functions() -> None:
    attend(mask=torch.ones(20, 20, dtype=torch.bool))


@tells(
    errors.NotAModError,
    "an argument of and_masks is None, not a function. Pass a mask_mod, (b, h, q_idx, kv_idx) -> "
    "bool.",
)
def test_masks_that_are_combined_are_functions() -> None:
    attnc.and_masks(causal, None)  # type: ignore[arg-type]


@tells(
    errors.ModSignatureError,
    "<lambda> (FILE:LINE) takes 2 parameters without default. A mask_mod takes 4: (b, h, q_idx, "
    "kv_idx); a score_mod takes 5: (score, b, h, q_idx, kv_idx). Give further parameters a "
    "default, or bind them with functools.partial.",
)
def test_kernels_take_four_or_five_parameters() -> None:
    attnc.kernel(lambda q_idx, kv_idx: q_idx >= kv_idx)


@tells(
    errors.WrongModKindError,
    "decay is a score_mod (5 parameters), but mask must be a mask_mod (4 parameters). A mask_mod "
    "takes (b, h, q_idx, kv_idx) and tells what is visible; a score_mod takes (score, b, h, "
    "q_idx, kv_idx) and gives the new score.",
)
def test_scores_are_no_masks() -> None:
    attend(mask=decay)


@tells(
    errors.KernelPartsError,
    "decay, given as score, is a kernel with a mask, which only decay(q, k, v) applies. Pass "
    "decay.fn for the function alone, and the rest as arguments of the call.",
)
def test_parts_of_kernels_are_not_dropped() -> None:
    attend(score=decay.where(causal))


@tells(
    errors.KernelOperatorError,
    "`+` is not defined for causal and decay. Masks combine with `f & g`, `f | g` and `~f`; "
    "scores with `s.then(t)` and `s.where(mask)`.",
)
def test_kernels_are_not_added() -> object:
    return causal + decay


@tells(
    errors.KernelOperatorError,
    "`~` is not defined for decay. Masks combine with `f & g`, `f | g` and `~f`; scores with "
    "`s.then(t)` and `s.where(mask)`.",
)
def test_scores_are_not_inverted() -> object:
    return ~decay


@tells(
    errors.KernelCallError,
    "causal(tensor(1, 2, 20, 8), tensor(1, 2, 20, 8)): call it with three tensors of 4 "
    "dimensions, causal(q, k, v), to run attention with it as the mask, or with (b, h, q_idx, "
    "kv_idx) as a function.",
)
def test_kernels_are_called_with_tensors_or_indices() -> None:
    causal(Q, Q)


@tells(
    errors.BlockMaskArgumentError,
    "BlockMask: dq_kv_order must be a bool here.",
)
def test_write_orders_are_named_by_a_bool() -> None:
    attnc.create_block_mask(causal, None, None, 20, 20, dq_kv_order=None)  # type: ignore[arg-type]


@tells(
    errors.BlockMaskSizeError,
    "BlockMask: Q_LEN is -1; give a number of at least 0.",
)
def test_block_masks_have_a_length() -> None:
    attnc.create_block_mask(causal, None, None, -1, 20)


@tells(
    errors.BlockMaskDimensionsError,
    "BlockMask: kv_indices has 1 dimensions. It needs at least 2, (..., n_q_blocks, n_kv_blocks).",
)
def test_lists_of_blocks_have_rows() -> None:
    attnc.BlockMask.from_kv_blocks(torch.ones(()), torch.zeros(1))


@tells(
    errors.BlockMaskListsError,
    "BlockMask: full_kv_num_blocks and full_kv_indices go together: give both or neither.",
)
def test_lists_of_blocks_come_in_pairs() -> None:
    attnc.BlockMask.from_kv_blocks(torch.ones(1), torch.zeros(1, 1), torch.ones(1))


@tells(
    errors.BlockMaskRowsError,
    "BlockMask: its lists have 1 rows of blocks, but 20 queries in blocks of 16 need more. Assign "
    "seq_lengths that fit the lists.",
)
def test_lists_of_blocks_are_long_enough() -> None:
    number, index = torch.ones(1, dtype=torch.int32), torch.zeros(1, 2, dtype=torch.int32)
    block_mask = attnc.BlockMask.from_kv_blocks(number, index, BLOCK_SIZE=16, seq_lengths=(20, 20))
    attend(mask=block_mask)


@tells(
    errors.MaskDeviceError,
    "block_mask cannot be put on 'cuda:99': no such device. Leave device out, or give one that "
    "this machine has.",
)
def test_block_masks_are_on_a_device_that_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*size: int, device: torch.device) -> torch.Tensor:
        raise RuntimeError("no such device\nand more of it")

    monkeypatch.setattr(torch, "empty", absent)  # what PyTorch says differs between its builds
    attnc.create_block_mask(causal, None, None, 20, 20, device="cuda:99")


@tells(
    errors.WriteOrderError,
    "A BlockMask with a tensor dq_kv_order cannot be sliced: its order is that of the whole. Make "
    "a new one with BlockMask.from_kv_blocks.",
)
def test_slices_have_an_order_of_their_own() -> object:
    whole = attnc.create_block_mask(causal, None, None, 20, 20)
    whole.dq_kv_order = torch.zeros(1, 1, 1)
    return whole[0]


@tells(
    errors.KernelBackendError,
    "kernel option BACKEND is 'FAST'. Use one of 'AUTO', 'TRITON', 'FLASH', 'TRITON_DECODE', or "
    "leave it out.",
)
def test_pytorchs_backends_have_names() -> None:
    attnc.flex_attention(Q, Q, Q, kernel_options={"BACKEND": "FAST"})


@tells(
    errors.KernelOptionConflictError,
    "kernel options BACKEND and FORCE_USE_FLEX_ATTENTION exclude each other. Leave out "
    "FORCE_USE_FLEX_ATTENTION, the older one.",
)
def test_kernel_options_agree() -> None:
    options = {"BACKEND": "AUTO", "FORCE_USE_FLEX_ATTENTION": True}
    attnc.flex_attention(Q, Q, Q, kernel_options=options)


@tells(
    errors.KernelOptionReservedError,
    "kernel option 'OUTPUT_MAX' follows from what is asked for. Use return_aux instead.",
)
def test_outputs_are_no_kernel_option() -> None:
    attnc.flex_attention(Q, Q, Q, kernel_options={"OUTPUT_MAX": True})


@tells(
    errors.SlicedMaskModError,
    "The mask_mod of a sliced BlockMask would see indices of the slice, not of the whole. Assign "
    "one that fits, and the lengths: `sliced.mask_mod = lambda b, h, q_idx, kv_idx: ...`, "
    "`sliced.seq_lengths = (n_queries, n_keys)`.",
)
def test_slices_of_block_masks_lack_a_function() -> None:
    whole = attnc.create_block_mask(causal, None, None, 256, 256)
    q, k = torch.ones(1, 1, 128, 8), torch.ones(1, 1, 256, 8)
    attnc.attention(q, k, k, mask=whole[:, :, :1])


@tells(
    errors.AnalysisArgumentError,
    "analyze: kv_block is 5; it must be in range(2).",
)
def test_tiles_are_numbered_within_the_mask() -> None:
    causal.analyze(256, 256).why(0, 5)


@tells(
    errors.ProofArgumentError,
    "attnc.prove.symmetric(KV_LEN=300): a pair and its mirror image need equal lengths, but Q_LEN "
    "is 256.",
)
def test_mirrored_pairs_need_equal_lengths() -> None:
    attnc.prove.symmetric(causal, Q_LEN=256, KV_LEN=300)


@tells(
    errors.LayoutArgumentError,
    "attnc.layout: tile is (4, 4, 4); give an int of 1 or more for each of the 2 axes, or one for "
    "all.",
)
def test_tiles_have_as_many_axes_as_their_grid() -> None:
    attnc.layout.tiled((8, 8), (4, 4, 4))


@tells(
    errors.LayoutLengthError,
    "layout 'tiles of 4 x 4' is of 64 tokens, but q has 65 and k 64. It orders queries and keys "
    "alike: make it for the tokens of both, or leave it out.",
)
def test_layout_is_of_all_tokens() -> None:
    q, k = torch.zeros(1, 1, 65, 8), torch.zeros(1, 1, 64, 8)
    attnc.attention(q, k, k, layout=attnc.layout.tiled((8, 8), 4))


@tells(
    errors.LayoutOfBlockMaskError,
    "layout='tiles of 4 x 4' with a block mask: its tiles are of tokens in their own order. Pass "
    "the mask_mod as mask.",
)
def test_block_masks_have_an_order_already() -> None:
    q = torch.zeros(1, 1, 64, 8)
    block_mask = attnc.create_block_mask(causal, None, None, 64, 64)
    attnc.attention(q, q, q, mask=block_mask, layout=attnc.layout.tiled((8, 8), 4))


@tells(
    errors.LibraryArgumentError,
    "attnc.library.windows(size=(4, 4, 4)): give one for each of the 2 axes, or one.",
)
def test_windows_have_as_many_axes_as_their_grid() -> None:
    attnc.library.windows((8, 8), (4, 4, 4))


@tells(
    errors.LibraryArgumentError,
    "attnc.library.documents(ids=float32[4]): give a tensor of integers, (n,) or (B, n).",
)
def test_documents_have_numbers() -> None:
    attnc.library.documents(torch.zeros(4))


@tells(
    errors.BlockMaskIndexError,
    "block_mask[2]: 2 is beyond the 1 of axis 0. Its axes are (B, H, blocks of queries), here (1, "
    "1, 2); give for each an int, a slice or a tensor of indices.",
)
def test_block_masks_are_indexed_within_their_axes() -> object:
    return attnc.create_block_mask(causal, None, None, 256, 256)[2]


@tells(
    errors.KernelFunctionError,
    "kernel(None)(tensor(1, 2, 20, 8), tensor(1, 2, 20, 8), tensor(1, 2, 20, 8)): kernel without a "
    "function is a decorator, which takes one function. Write kernel(f, ...), or @kernel(...) above "
    "the function; without mask and score call attention(q, k, v).",
)
def test_kernel_without_a_function_is_a_decorator() -> None:
    attnc.kernel(None)(Q, Q, Q)
