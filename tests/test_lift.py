"""Constants become run-time arguments, and the meaning stays."""

import torch
from hypothesis import given

from attnc.evaluate import evaluate
from attnc.ir import (
    KV_IDX,
    Q_IDX,
    Binary,
    BinaryOp,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    Param,
    Score,
    canonical_text,
    walk,
)
from attnc.lift import lift
from attnc.simplify import simplify
from attnc.testing import masks
from attnc.trace import SlotTable, trace_mask


def integer(value: int) -> Const:
    return Const(value, DType.INT32)


def window(size: int) -> Expr:
    return Compare(CompareOp.LT, Binary(BinaryOp.SUB, Q_IDX, KV_IDX), integer(size))


def test_windows_of_all_sizes_share_one_expression() -> None:
    """The kernel's key does not know the size of a window."""
    small, large = lift((window(5),)), lift((window(1000),))

    assert small.exprs[0] is large.exprs[0]
    assert (small.values, large.values) == ((5,), (1000,))
    assert small.dtypes == (DType.INT32,)


def test_each_occurrence_has_its_own_number() -> None:
    """Two equal windows lift as two different ones do."""

    def two(first: int, second: int) -> Expr:
        left = Compare(CompareOp.LT, Q_IDX, integer(first))
        right = Compare(CompareOp.LT, KV_IDX, integer(second))
        return Binary(BinaryOp.AND, left, right)

    assert lift((two(7, 7),)).exprs == lift((two(7, 9),)).exprs
    assert lift((two(7, 7),)).values == (7, 7)


def test_divisors_factors_and_small_constants_stay() -> None:
    """What the analysis needs to know is not lifted."""
    kept = [
        Binary(BinaryOp.FLOORDIV, Q_IDX, integer(12)),
        Binary(BinaryOp.MOD, Q_IDX, integer(12)),
        Binary(BinaryOp.SHL, Q_IDX, integer(3)),
        Binary(BinaryOp.MUL, Q_IDX, integer(3)),
        Binary(BinaryOp.ADD, Q_IDX, integer(1)),
        Binary(BinaryOp.ADD, Q_IDX, integer(-1)),
    ]
    assert lift(kept).exprs == tuple(kept)


def test_what_equals_a_modulus_stays() -> None:
    """Whether ``kv_idx >= 64`` is the second half of what ``kv_idx % 64`` counts is known."""
    half = Binary(BinaryOp.MOD, KV_IDX, integer(64))
    clean = Compare(CompareOp.GE, KV_IDX, integer(64))
    other = Compare(CompareOp.GE, half, integer(48))

    pair = Binary(BinaryOp.MOD, Binary(BinaryOp.FLOORDIV, KV_IDX, integer(4)), integer(16))

    lifted = lift((clean, other))
    of_pairs = lift((clean, Compare(CompareOp.GE, pair, integer(12))))

    assert lifted.exprs[0] is of_pairs.exprs[0] is clean
    assert lifted.values == (48,)
    assert of_pairs.values == (12,)


def test_float_factors_are_lifted_and_infinities_are_not() -> None:
    """A softcap is a run-time argument; -inf is part of the program."""
    score = Score(DType.FLOAT32)
    capped = Binary(BinaryOp.MUL, score, Const(30.0, DType.FLOAT32))
    hidden = Binary(BinaryOp.ADD, score, Const(float("-inf"), DType.FLOAT32))

    lifted = lift((capped, hidden))

    assert lifted.values == (30.0,)
    assert lifted.exprs[1] is hidden


def test_absent_parts_stay_absent() -> None:
    """Mask and score are lifted together, either may be missing."""
    assert lift((None, window(3))).exprs[0] is None


@given(masks())
def test_lifting_keeps_every_value(recipe: object) -> None:
    """With the lifted constants as arguments a mask is what it was."""
    slots = SlotTable()
    mask = simplify(trace_mask(recipe.build(), slots).expr)  # type: ignore[attr-defined]
    lifted = lift((mask,))
    expr = lifted.exprs[0]
    assert expr is not None
    assert sum(isinstance(node, Param) for node in walk(expr)) == len(lifted.values)
    at = {
        "b": 0,
        "h": 1,
        "q_idx": torch.arange(40, dtype=torch.int32)[:, None],
        "kv_idx": torch.arange(40, dtype=torch.int32)[None],
        "tensors": slots.tensors,
    }
    assert torch.equal(
        torch.as_tensor(evaluate(mask, **at)),
        torch.as_tensor(evaluate(expr, params=lifted.values, **at)),
    )


def test_canonical_text_tells_constants_of_different_types_apart() -> None:
    """1, 1.0 and True are three constants."""
    texts = {
        canonical_text(Const(value, dtype))
        for value, dtype in ((1, DType.INT32), (1.0, DType.FLOAT32), (True, DType.BOOL))
    }
    assert len(texts) == 3
