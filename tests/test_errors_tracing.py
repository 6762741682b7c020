"""Tracing, and the text form of what is traced. See ``error_texts``."""

from __future__ import annotations

import torch
from error_texts import TABLE, attend, tells

from attnc import errors
from attnc.parser import parse_expr


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


@tells(
    errors.MissingAttributeError,
    "an index or a score has no attribute 'row'; nor has a tensor.",
)
def test_indices_have_the_attributes_of_tensors() -> None:
    attend(mask=lambda b, h, q_idx, kv_idx: q_idx.row >= kv_idx)


@tells(
    errors.TooManyIndicesError,
    "FILE:LINE: `attend(mask=lambda b, h, q_idx, kv_idx: TABLE[q_idx, kv_idx] > 0)` gives 2 "
    "indices to a tensor of 1 dimensions. Give one for each at the most.",
)
def test_tensors_have_an_index_for_each_dimension() -> None:
    attend(mask=lambda b, h, q_idx, kv_idx: TABLE[q_idx, kv_idx] > 0)


@tells(
    errors.TooLongModError,
    "test_mods_are_of_bounded_length.<locals>.spelled_out computes 9004 different values for each "
    "pair, but a mask_mod may have 8192: a kernel of so many would take minutes to compile. Put "
    "the numbers of a Python loop into a tensor and index it, as in `table[q_idx, kv_idx]` or "
    "`ids[q_idx] == ids[kv_idx]`.",
)
def test_mods_are_of_bounded_length() -> None:
    def spelled_out(b, h, q_idx, kv_idx):
        seen = q_idx == kv_idx
        for distance in range(3000):
            seen = seen | (q_idx - kv_idx == 3 * distance)
        return seen

    attend(mask=spelled_out)
