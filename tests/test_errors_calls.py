"""Calls: q, k, v, and what goes along with them. See ``error_texts``."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch
from error_texts import TABLE, Q, attend, causal, tells

import attnc
from attnc import errors


@tells(
    errors.InputTypeError,
    "q is a numpy.ndarray, k is a list, v is None. All three must be tensors: "
    "torch.from_numpy(x) makes one of a NumPy array, torch.tensor(x) of a list.",
)
def test_inputs_are_tensors() -> None:
    attnc.attention(np.ones((1, 2, 20, 8)), [], None)  # type: ignore[arg-type]


@tells(
    errors.InputDTypeError,
    "q is torch.float32, k is torch.float16, v is torch.float32. All three must have the same "
    "dtype, one of float32, bfloat16, float16 and float64; convert with .to(torch.float32) or "
    ".to(q.dtype).",
)
def test_inputs_have_one_dtype() -> None:
    attnc.attention(Q, Q.half(), Q)


@tells(
    errors.ShapeError,
    "q and k differ in heads: q is (1, 2, 20, 8), k is (1, 1, 20, 8), v is (1, 1, 20, 8). Pass "
    "enable_gqa=True to share key heads among queries.",
)
def test_heads_are_shared_on_request() -> None:
    attnc.attention(Q, Q[:, :1], Q[:, :1])


@tells(
    errors.DimensionsError,
    "q, k and v need 4 dimensions: q is (2, 20, 8), k is (1, 2, 20, 8), v is (1, 2, 20, 8). They "
    "are (batch, heads, length, head_dim).",
)
def test_inputs_have_four_dimensions() -> None:
    attnc.attention(Q[0], Q, Q)


@tells(
    errors.DeviceError,
    "k is on meta, but q is on cpu. Move it with .to(q.device).",
)
def test_inputs_are_on_one_device() -> None:
    attnc.attention(Q, Q.to("meta"), Q)


@tells(
    errors.FunctionTransformError,
    "q belongs to torch.vmap or to forward-mode differentiation (jvp), which cannot look into a "
    "kernel. Call attention outside of it; batch and heads are dimensions of q, k and v. "
    "torch.func.grad and vjp work.",
)
def test_transforms_of_functions_are_refused() -> None:
    torch.vmap(attnc.attention)(*[Q.expand(3, *Q.shape)] * 3)


@tells(
    errors.SymbolicNumberError,
    "a size or number that a compiled graph passes to a mask or score is 1099511627776, which has "
    "more than 32 bits. Compute with it in a tensor: torch.tensor(number).",
)
def test_numbers_of_graphs_have_32_bits() -> None:
    from attnc.in_graph.operators import attention_op

    mask = "p0: int32\nq_idx >= p0"
    attention_op(Q, Q, Q, [], [], mask, "", [2**40], [], None, False, False, None, False)


@tells(
    errors.BackendError,
    "backend 'cuda': use one of cpu, triton, reference. It is chosen by backend= or the "
    "environment variable ATTNC_BACKEND.",
)
def test_backends_have_names() -> None:
    attend(backend="cuda")


@tells(
    errors.BackendError,
    "backend 'triton': q is on cpu; it runs on GPU tensors, or on CPU tensors with the "
    "environment variable TRITON_INTERPRET=1. It is chosen by backend= or the environment "
    "variable ATTNC_BACKEND.",
)
def test_triton_needs_a_gpu_or_its_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("ATTNC_BACKEND", "triton")
    attend()


@tells(
    errors.KernelOptionError,
    "unknown kernel option 'BLOK_M'. Leave it out, or use one that PyTorch has, to no effect "
    "here: BACKEND, BLOCKS_ARE_CONTIGUOUS, BLOCK_M, BLOCK_M1, BLOCK_M2, BLOCK_N, BLOCK_N1, "
    "BLOCK_N2, FORCE_USE_FLEX_ATTENTION, PARTITION_SIZE, PRESCALE_QK, ROWS_GUARANTEED_SAFE, "
    "SKIP_MASK_SCORE, SPLIT_KV, USE_TMA, WRITE_DQ, kpack, matrix_instr_nonkdim, "
    "num_buffers_warp_spec, num_consumer_groups, num_stages, num_warps, waves_per_eu; each also "
    "with fwd_ or bwd_ in front.",
)
def test_kernel_options_are_spelled_as_in_pytorch() -> None:
    attnc.flex_attention(Q, Q, Q, kernel_options={"BLOK_M": 64})


@tells(
    errors.AuxRequestError,
    "return_lse and return_aux both ask for the log-sum-exp. Use return_aux=AuxRequest(lse=True) "
    "alone.",
)
def test_the_log_sum_exp_is_asked_for_once() -> None:
    attnc.flex_attention(Q, Q, Q, return_lse=True, return_aux=attnc.AuxRequest(lse=True))


@tells(
    errors.BlockMaskLengthError,
    "block_mask was created for 20 queries and 30 keys, but is used for 20 queries and 20 keys. "
    "Create it for these lengths, or pass the mask_mod in its place, which holds for all.",
)
def test_block_masks_fit_in_length() -> None:
    attnc.flex_attention(Q, Q, Q, block_mask=attnc.create_block_mask(causal, 1, 2, 20, 30))


@tells(
    errors.BlockMaskShapeError,
    "block_mask has H 3, but q has 2. Create it with H=2, or with H=None where the mask is the "
    "same for all.",
)
def test_block_masks_fit_in_heads() -> None:
    attend(mask=attnc.create_block_mask(causal, 1, 3, 20, 20))


@tells(
    errors.InputLayoutError,
    "v is a tensor of layout torch.sparse_coo, whose elements do not lie at even steps in memory, "
    "as kernels read them. Convert it with .to_dense().",
)
def test_inputs_are_dense() -> None:
    attnc.attention(Q, Q, Q.to_sparse())


@tells(
    errors.FreedStorageError,
    "k has the shape [1, 2, 20, 8], but its memory was given back, all or its end (resize_ of its "
    "storage, as sharded parameters do between their uses). Gather it again before the call.",
)
def test_inputs_have_memory() -> None:
    k = Q.clone()
    k.untyped_storage().resize_(0)
    attnc.attention(Q, k, Q)


@tells(
    errors.FreedStorageError,
    "a captured tensor has the shape [20], but its memory was given back, all or its end (resize_ "
    "of its storage, as sharded parameters do between their uses). Gather it again before the call.",
)
def test_captured_tensors_have_memory() -> None:
    numbers = torch.arange(20)
    numbers.untyped_storage().resize_(0)
    attend(mask=lambda b, h, q_idx, kv_idx: numbers[q_idx] >= kv_idx)


@tells(
    errors.ScaleError,
    "scale is nan. Give a finite number, or None for 1 / sqrt(head_dim).",
)
def test_scales_are_finite() -> None:
    attend(scale=float("nan"))


@tells(
    errors.ScaleError,
    "scale is float32[2]. Give a finite number, or multiply in a score_mod, which passes gradients "
    "on and takes one factor per head too: lambda score, b, h, q_idx, kv_idx: score * scale[h].",
)
def test_scales_are_numbers() -> None:
    attend(scale=torch.ones(2))


@tells(errors.FlagError, "strict is 'yes'; give True or False.")
def test_switches_are_bools() -> None:
    attend(strict="yes")


@tells(
    errors.AuxRequestTypeError,
    "return_aux is True. Give AuxRequest(lse=True), AuxRequest(max_scores=True) or None.",
)
def test_statistics_are_asked_for_by_name() -> None:
    attnc.flex_attention(Q, Q, Q, return_aux=True)


@tells(
    errors.KernelOptionsTypeError,
    "kernel_options is 'BLOCK_M=64'. Give a dict of options by name, such as {\"BLOCK_M\": 64}, or "
    "None.",
)
def test_kernel_options_are_a_dict() -> None:
    attnc.flex_attention(Q, Q, Q, kernel_options="BLOCK_M=64")  # type: ignore[arg-type]


@tells(
    errors.GraphTextError,
    "torch.ops.attnc.attention: the text of the mask says `t0[q_idx, kv_idx]`, but t0 has 1 "
    "dimensions. Call attnc.attention with a function, which writes its text itself.",
)
def test_texts_of_graphs_fit_their_tensors() -> None:
    attention_op = import_module("attnc.in_graph.operators").attention_op
    mask = "t0: float32\nt0[q_idx, kv_idx] > 0.5"
    attention_op(Q, Q, Q, [TABLE], [], mask, "", [], [], None, False, False, None, False)


@tells(
    errors.GraphArgumentError,
    "torch.ops.attnc.attention: numbers has 0 values, but a text reads p0. Call attnc.attention, "
    "which writes the arguments itself.",
)
def test_texts_of_graphs_have_their_numbers() -> None:
    attention_op = import_module("attnc.in_graph.operators").attention_op
    mask = "p0: int32\nq_idx >= p0"
    attention_op(Q, Q, Q, [], [], mask, "", [], [], None, False, False, None, False)
