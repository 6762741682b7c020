"""Arithmetic of proofs: what it calls impossible is nowhere true, and what it sees."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from proofs import as_given, values_of

from attnc import prove
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
    Unary,
    UnaryOp,
    replaced,
)
from attnc.prove.arithmetic import is_impossible
from attnc.testing import MaskRecipe, Shape, TensorRecipe, masks, shapes
from attnc.trace import SlotTable, trace_mask


def violations_of(mask: Expr) -> list[Expr]:
    """Predicates of the kinds that proofs ask about."""
    mirrored = replaced(mask, {Q_IDX: KV_IDX, KV_IDX: Q_IDX})
    later = replaced(mask, {Q_IDX: Binary(BinaryOp.ADD, Q_IDX, Const(1, DType.INT32))})
    own = replaced(mask, {KV_IDX: Q_IDX})
    return [
        Binary(BinaryOp.AND, mask, Compare(CompareOp.GT, KV_IDX, Q_IDX)),
        Binary(BinaryOp.AND, mask, Unary(UnaryOp.NOT, later)),
        Binary(BinaryOp.XOR, mask, mirrored),
        Unary(UnaryOp.NOT, own),
    ]


@given(masks(max_depth=4), shapes())
def test_what_arithmetic_calls_impossible_is_nowhere_true(recipe: MaskRecipe, shape: Shape) -> None:
    """Arithmetic by itself, where sampling has not sorted out what is false before."""
    slots = SlotTable()
    mask = trace_mask(recipe.build(), slots).expr
    facts = Facts(tuple(slots.tensors))
    sizes = as_given(shape)
    names = ("n_batch", "n_heads", "n_queries", "n_keys")
    for predicate in violations_of(mask):
        if not never_wraps((predicate,), facts, **dict(zip(names, sizes, strict=True))):
            continue
        if is_impossible(predicate, dict(zip(IndexName, sizes, strict=True)), facts):
            assert not values_of(predicate, slots.tensors, sizes).any()


def is_shown_impossible(source: str, tables: tuple[TensorRecipe, ...] = ()) -> bool:
    """Whether arithmetic shows that a predicate is false at all coordinates below 12."""
    slots = SlotTable()
    predicate = trace_mask(MaskRecipe(source, tables).build(), slots).expr
    return is_impossible(predicate, dict.fromkeys(IndexName, 12), Facts(tuple(slots.tensors)))


_TABLES = (TensorRecipe((12,), low=-3, high=9), TensorRecipe((12,), "float32", low=-3, high=3))


_numbers = st.integers(-9, 9)


_leaves = st.sampled_from(["q_idx", "kv_idx", "t0[q_idx]", "t0[kv_idx]"])


_integers = st.recursive(
    _leaves,
    lambda x: st.one_of(
        st.builds("({} {} {})".format, x, st.sampled_from("+-*"), x),
        st.builds("({} + {})".format, x, _numbers),
        st.builds(
            "({} {} {})".format, x, st.sampled_from(["//", "%"]), st.sampled_from([2, 3, -3])
        ),
        st.builds("({} {})".format, x, st.sampled_from(["& 3", ">> 1", "<< 1", "* -2"])),
        st.builds("abs({})".format, x),
        st.builds("torch.{}({}, {})".format, st.sampled_from(["minimum", "maximum"]), x, x),
        st.builds("torch.where({} < 4, {}, {})".format, x, x, x),
    ),
    max_leaves=4,
)


_sparse = st.lists(
    st.builds("({} {} {})".format, _integers, st.sampled_from(["==", "==", "<", ">="]), _numbers),
    min_size=1,
    max_size=4,
).map(" & ".join)


@settings(max_examples=300)
@given(_sparse)
@example("(q_idx % 3 == 2)")
@example("((q_idx + 5) // 3 == 5) & (q_idx == 11)")
@example("((q_idx - kv_idx) * (kv_idx - q_idx) < 0)")
@example("(t0[q_idx] == 8)")
def test_arithmetic_is_right_about_what_is_rarely_true(source: str) -> None:
    """Equations of sums, remainders, cases and products, each solution of which counts."""
    slots = SlotTable()
    predicate = trace_mask(MaskRecipe(source, _TABLES).build(), slots).expr

    if is_shown_impossible(source, _TABLES):
        assert not values_of(predicate, slots.tensors, (1, 1, 12, 12)).any()


@pytest.mark.parametrize(
    ("source", "impossible"),
    [
        ("(torch.maximum(q_idx, kv_idx) < 5) & (q_idx * kv_idx >= 5)", False),
        ("(q_idx - kv_idx) * (kv_idx - q_idx) > 0", True),
        ("(q_idx - kv_idx) * (kv_idx - q_idx) < 0", False),
        ("~(t1[q_idx] < t1[kv_idx]) & ~(t1[q_idx] >= t1[kv_idx])", False),
        ("(t1[q_idx] < t1[kv_idx]) & ~(t1[kv_idx] > t1[q_idx])", True),
        ("~(t1[q_idx] == t1[kv_idx]) & ~(t1[kv_idx] != t1[q_idx])", True),
        ("2 * q_idx == 2 * kv_idx + 1", True),
        ("3 * q_idx + 6 * kv_idx == 10", True),
        ("(q_idx // 4 == kv_idx // 4) & (q_idx - kv_idx > 3)", True),
        ("(q_idx // 4 == kv_idx // 4) & (q_idx - kv_idx > 2)", False),
        ("kv_idx > 11", True),
    ],
)
def test_arithmetic_sees(source: str, impossible: bool) -> None:
    """Signs of products, integers between fractions, and that NaN is neither less nor not less."""
    assert is_shown_impossible(source, _TABLES) is impossible


def test_integers_that_wrap_at_these_lengths_are_no_mathematical_ones() -> None:
    """A key that is visible only because a product wraps to a negative number is found."""
    wrapped = 23_456 * 100_003 - 2**32

    proof = prove.implies(
        lambda b, h, q, kv: kv * 100_003 == wrapped,
        lambda b, h, q, kv: q < 0,
        Q_LEN=1,
        KV_LEN=30_000,
    )

    assert proof.counterexample == (0, 0, 0, 23_456)
