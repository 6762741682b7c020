"""What is called not negative is so at every point, and the useful forms are recognised."""

from __future__ import annotations

import torch
from hypothesis import given

from attnc.evaluate import evaluate
from attnc.intervals.sign import is_not_negative
from attnc.ir import KV_IDX, Q_IDX, Binary, BinaryOp, Cast, Const, DType, Level, Ref, walk
from attnc.program import build_program
from attnc.testing import MaskRecipe, masks

SEVEN = Const(7, DType.INT32)


@given(masks())
def test_not_negative_is_never_negative(recipe: MaskRecipe) -> None:
    """Every part of a random mask that is called not negative is at least 0 everywhere."""
    program = build_program(recipe.build(), None)
    assert program.traced_mask is not None
    grid = {"b": 1, "h": 2, "q_idx": torch.arange(40)[:, None], "kv_idx": torch.arange(40)}
    for node in walk(program.traced_mask):
        if is_not_negative(node):
            assert (evaluate(node, tensors=program.tensors, **grid) >= 0).all()


def test_forms_of_index_arithmetic_are_recognised() -> None:
    """Quotients, remainders and widened indices are; sums, which may wrap, and differences not."""
    assert is_not_negative(Binary(BinaryOp.FLOORDIV, Q_IDX, SEVEN))
    assert is_not_negative(Binary(BinaryOp.MOD, Binary(BinaryOp.SUB, Q_IDX, KV_IDX), SEVEN))
    assert is_not_negative(Cast(KV_IDX, DType.INT64))
    assert is_not_negative(Ref("m0", DType.INT32, Level.ROW), {"m0"})
    assert not is_not_negative(Ref("m1", DType.INT32, Level.ROW), {"m0"})
    assert not is_not_negative(Binary(BinaryOp.ADD, Q_IDX, KV_IDX))
    assert not is_not_negative(Binary(BinaryOp.SUB, Q_IDX, KV_IDX))
