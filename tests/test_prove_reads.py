"""``prove.in_bounds``: indices of captured tensors are found outside exactly where they are."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from proofs import as_given, assert_decided, causal, dense, sizes_of, values_of

import attnc
from attnc import prove
from attnc.ir import Q_IDX, Binary, BinaryOp, DType, Expr, Gather, Reduce, ReduceOp, RowIndex
from attnc.prove.gathers import index_uses
from attnc.testing import MaskRecipe, Shape, TensorRecipe, shapes


def test_the_weakest_of_several_reads_is_the_answer() -> None:
    """One index that is left open leaves the whole open, in any order."""
    generator = torch.Generator().manual_seed(7)
    x, table = torch.rand(90, generator=generator) * 2 - 1, torch.zeros(10)

    def sure(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return table[q % 5] > 0

    def unsure(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return table[(x[q] * x[kv] * x[q] * x[kv] * 10 + 0.5).to(torch.int32)] > 0

    assert prove.in_bounds(sure, Q_LEN=90, budget=0).holds
    for mask in (attnc.and_masks(sure, unsure), attnc.and_masks(unsure, sure)):
        assert prove.in_bounds(mask, Q_LEN=90, budget=0).holds is None


def test_indices_inside_sums_range_over_their_extent() -> None:
    """A sum over more elements than its tensor has, as a program in text form may be."""
    row, inner = RowIndex(0), torch.zeros(5)

    def outside(index: Expr, extent: int) -> list[Expr]:
        body = Gather(0, (index,), DType.FLOAT32)
        total = Reduce(ReduceOp.SUM, 0, extent, body)
        return [use.outside for use in index_uses(total, [inner], allow_negative=False)]

    shifted = Binary(BinaryOp.ADD, row, Q_IDX)
    (beyond,) = outside(row, 9)
    (sometimes,) = outside(shifted, 3)

    assert outside(row, 5) == []
    assert values_of(beyond, (), (1, 1, 1, 1)).all()
    assert values_of(sometimes, (), (1, 1, 5, 1)).flatten().tolist() == [False] * 3 + [True] * 2


@given(
    st.sampled_from(["q_idx", "kv_idx", "(q_idx - kv_idx)", "(kv_idx // 3)", "t1[q_idx % 5]"]),
    st.integers(-5, 40),
    st.integers(1, 60),
    shapes(),
    st.booleans(),
)
def test_indices_are_found_outside_exactly_where_they_are(
    index: str, offset: int, size: int, shape: Shape, allow_negative: bool
) -> None:
    """A table read at random places: in bounds if no index of any pair lies outside."""
    tables = (TensorRecipe((size,)), TensorRecipe((5,), low=0, high=40))
    mask = MaskRecipe(f"t0[{index} + {offset}] > 0", tables).build()
    numbers = MaskRecipe(f"{index} + {offset} >= 0", tables).build()
    above = MaskRecipe(f"{index} + {offset} >= {size}", tables).build()
    below = MaskRecipe(f"{index} + {offset} < {-size}", tables).build()
    outside = dense(above, *as_given(shape)) | dense(below, *as_given(shape))
    if not allow_negative:
        outside |= ~dense(numbers, *as_given(shape))

    proof = prove.in_bounds(mask, **sizes_of(outside), allow_negative=allow_negative)

    assert_decided(proof, outside)
    only_causal = prove.in_bounds(
        mask, where=causal, **sizes_of(outside), allow_negative=allow_negative
    )
    assert_decided(only_causal, outside & dense(causal, *as_given(shape)))


def test_reads_of_rows_and_tables_of_scores_are_checked() -> None:
    """A score_mod's relative table, and rows that are multiplied, at their true sizes."""
    table, rows = torch.zeros(2, 199), torch.zeros(100, 8)

    def relative(score: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return score + table[h, q - kv + 99]

    def product(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (rows[q] * rows[kv]).sum() > 0

    assert prove.in_bounds(relative, H=2, Q_LEN=100).holds
    proof = prove.in_bounds(relative, H=2, Q_LEN=101)
    assert proof.counterexample is not None
    assert abs(proof.counterexample[2] - proof.counterexample[3]) == 100  # type: ignore[operator]
    assert "t0[h, q_idx - kv_idx + 99]: dimension 1 is of size 199" in proof.detail
    assert prove.in_bounds(relative, H=3, Q_LEN=100).counterexample == (0, 2, 0, 0)
    assert prove.in_bounds(relative, H=2, Q_LEN=500, where=lambda b, h, q, kv: abs(q - kv) < 99)
    assert prove.in_bounds(product, Q_LEN=100).holds
    assert prove.in_bounds(product, Q_LEN=101).holds is False


def test_indices_written_as_negative_count_from_the_end() -> None:
    """``t[-1]`` is meant; ``t[q - 1]`` at 0 is not, unless the caller says so."""
    table = torch.arange(50)

    assert prove.in_bounds(lambda b, h, q, kv: kv <= table[-1], Q_LEN=50).holds
    proof = prove.in_bounds(lambda b, h, q, kv: kv <= table[q - 1], Q_LEN=50)
    assert proof.counterexample == (0, 0, 0, 0)
    assert proof.detail == "t0[q_idx - 1]: dimension 0 is of size 50, but `q_idx - 1` is -1"
    assert prove.in_bounds(lambda b, h, q, kv: kv <= table[q - 1], Q_LEN=50, allow_negative=True)
