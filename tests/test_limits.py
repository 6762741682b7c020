"""Masks with limits in place of comparisons are the same masks, and the useful forms are found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from attnc.evaluate import evaluate
from attnc.intervals import Facts, never_wraps
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
    IndexName,
    Level,
    Ref,
    level_of,
    replaced,
    walk,
)
from attnc.limits import FIRST, PLACE, limits_of
from attnc.program import build_program
from attnc.testing import MaskRecipe, masks

I32 = DType.INT32
_N = 70
_EXTREMES = (-(2**31), -(2**31) + 1, -2, -1, 0, 1, 5, 40, _N, 2**31 - 2, 2**31 - 1)


def without_places(limited: Expr, own: IndexName, first: int) -> Expr:
    """``limited`` in terms of the index itself, in a tile that begins with ``first``."""
    level = Level.COLUMN if own is IndexName.KV else Level.ROW
    index = KV_IDX if own is IndexName.KV else Q_IDX
    number = Const(first, I32)
    return replaced(
        limited,
        {
            Ref(FIRST, I32, level): number,
            Ref(PLACE, I32, level): Binary(BinaryOp.SUB, index, number),
        },
    )


def values_of(mask: Expr, tensors: Any = (), n: int = _N) -> torch.Tensor:
    grid = {"b": 1, "h": 2, "q_idx": torch.arange(n)[:, None], "kv_idx": torch.arange(n)}
    return evaluate(mask, tensors=tensors, **grid).expand(n, n)


def assert_same(mask: Expr, own: IndexName, first: int, tensors: Any = ()) -> None:
    is_exact = never_wraps([mask], Facts(tensors), n_batch=2, n_heads=3, n_queries=_N, n_keys=_N)
    for exactness in {False, is_exact}:
        limited = without_places(limits_of(mask, own, is_exact=exactness), own, first)
        assert torch.equal(values_of(limited, tensors), values_of(mask, tensors))


@given(masks(), st.sampled_from([IndexName.KV, IndexName.Q]), st.integers(0, _N))
def test_a_mask_and_its_limits_are_equal(recipe: MaskRecipe, own: IndexName, first: int) -> None:
    """A random mask is what its limits say, at every pair and in every tile."""
    program = build_program(recipe.build(), None)
    if program.mask is not None:
        assert_same(program.mask, own, first, program.tensors)


def _terms() -> st.SearchStrategy[Expr]:
    numbers = st.sampled_from(_EXTREMES).map(lambda value: Const(value, I32))
    indices = st.sampled_from([Q_IDX, KV_IDX])
    sums = st.builds(
        Binary, st.sampled_from([BinaryOp.ADD, BinaryOp.SUB]), indices, indices | numbers
    )
    sides = indices | numbers | sums
    return st.builds(Compare, st.sampled_from(list(CompareOp)), sides, sides)


@example(Compare(CompareOp.GE, KV_IDX, Const(-(2**31), I32)), 64)
@example(Compare(CompareOp.LT, KV_IDX, Const(-(2**31), I32)), 64)
@example(Compare(CompareOp.LT, Binary(BinaryOp.SUB, Q_IDX, KV_IDX), Const(-(2**31), I32)), 64)
@given(
    st.recursive(
        _terms(),
        lambda inner: st.builds(Binary, st.sampled_from([BinaryOp.AND, BinaryOp.OR]), inner, inner),
        max_leaves=6,
    ),
    st.integers(0, _N),
)
def test_limits_do_not_wrap_around(mask: Expr, first: int) -> None:
    """Sums and numbers at the ends of 32 bits give the same mask as its limits do."""
    assert_same(mask, IndexName.KV, first)
    assert_same(mask, IndexName.Q, first)


PREFIX = torch.tensor([3, -(2**31), 2**31 - 1])


@pytest.mark.parametrize(
    ("mask", "n_comparisons"),
    [
        (lambda b, h, q, kv: q >= kv, 1),
        (lambda b, h, q, kv: (q >= kv) & (q - kv < 9), 2),
        (lambda b, h, q, kv: (q - kv).abs() <= 9, 2),
        (lambda b, h, q, kv: (q >= kv) | (kv < 9), 1),
        (lambda b, h, q, kv: (q >= kv) & (kv < 50) & (kv < PREFIX[h]), 1),
        (lambda b, h, q, kv: ~((q < kv) | (q < 9)), 1),
    ],
    ids=["causal", "window", "around", "prefix", "bounded", "negated"],
)
@pytest.mark.parametrize("own", [IndexName.KV, IndexName.Q])
def test_limits_of_one_direction_are_one(mask: Any, own: IndexName, n_comparisons: int) -> None:
    """What is compared per element is a place with a limit, one for each direction."""
    program = build_program(mask, None)
    assert program.mask is not None

    limited = limits_of(program.mask, own, is_exact=True)

    index = KV_IDX if own is IndexName.KV else Q_IDX
    places = [node for node in walk(limited) if isinstance(node, Ref) and node.name == PLACE]
    compared = [node for node in walk(limited) if places[0] in node.children]
    assert index not in walk(limited)
    assert len(compared) == n_comparisons
    assert level_of(limited) is Level.ELEMENT
    assert_same(program.mask, own, 64, program.tensors)


def test_sums_that_may_wrap_stay_as_they_are() -> None:
    """Without exact integers, only differences of indices are solved."""
    wraps = Compare(CompareOp.LT, Binary(BinaryOp.ADD, KV_IDX, Const(2**31 - 1, I32)), Q_IDX)
    differs = Compare(CompareOp.LT, Binary(BinaryOp.SUB, Q_IDX, KV_IDX), Const(9, I32))

    assert limits_of(wraps, IndexName.KV, is_exact=False) is wraps
    assert limits_of(wraps, IndexName.KV, is_exact=True) is not wraps
    assert limits_of(differs, IndexName.KV, is_exact=False) is not differs


def test_masks_of_many_nodes_are_left_alone() -> None:
    """A mask that would take too long, or too deep a recursion, is returned as it is."""
    mask: Expr = Compare(CompareOp.GE, Q_IDX, KV_IDX)
    for number in range(3000):
        term = Compare(CompareOp.NE, KV_IDX, Const(number, I32))
        mask = Binary(BinaryOp.AND, mask, term)
    assert limits_of(mask, IndexName.KV, is_exact=True) is mask

    doubled: Expr = KV_IDX
    for _ in range(40):
        doubled = Binary(BinaryOp.ADD, doubled, doubled)
    compared = Compare(CompareOp.LT, doubled, Q_IDX)
    assert limits_of(compared, IndexName.KV, is_exact=True) is compared
