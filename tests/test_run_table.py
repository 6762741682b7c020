"""Run tables hold the same tiles in every form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from attnc.run_table import Kind, RunTable


@st.composite
def tables(draw: st.DrawFn) -> tuple[NDArray[np.int8], RunTable]:
    """A dense array of kinds and its table, with ragged last blocks and lengths of 0."""
    n_batch, n_heads = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    block_m, block_n = draw(st.sampled_from([16, 24, 64])), draw(st.sampled_from([8, 32, 96]))
    n_queries, n_keys = draw(st.integers(0, 5 * block_m)), draw(st.integers(0, 7 * block_n))
    shape = (n_batch, n_heads, -(-n_queries // block_m), -(-n_keys // block_n))
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    weights = draw(st.sampled_from([(0.8, 0.1, 0.1), (0.1, 0.1, 0.8), (0.3, 0.3, 0.4)]))
    dense = generator.choice(3, size=shape, p=weights).astype(np.int8)
    table = RunTable.from_dense(
        dense, n_queries=n_queries, n_keys=n_keys, block_m=block_m, block_n=block_n
    )
    return dense, table


@given(tables())
def test_dense_round_trip(case: tuple[NDArray[np.int8], RunTable]) -> None:
    """A table gives back the dense array it was made from, and counts its tiles."""
    dense, table = case

    assert np.array_equal(table.to_dense(), dense)
    assert table.n_empty == (dense == Kind.EMPTY).sum()
    assert table.n_partial == (dense == Kind.PARTIAL).sum()
    assert table.n_full == (dense == Kind.FULL).sum()


@given(tables())
def test_runs_are_ascending_disjoint_and_maximal(
    case: tuple[NDArray[np.int8], RunTable],
) -> None:
    """Runs of a row ascend without overlap, and neighbours that touch differ in kind."""
    _, table = case
    rows = table.run_rows()
    same_row = rows[1:] == rows[:-1]

    assert (table.starts < table.stops).all()
    assert (table.starts[1:] >= table.stops[:-1])[same_row].all()
    touching = same_row & (table.starts[1:] == table.stops[:-1])
    assert (table.kinds[1:] != table.kinds[:-1])[touching].all()
    assert table.offsets[-1] == len(table.starts)


@given(tables())
def test_transpose_is_the_transposed_array(case: tuple[NDArray[np.int8], RunTable]) -> None:
    """Transposing the table transposes the array, and twice gives the table back."""
    dense, table = case

    transposed = table.transpose()

    assert np.array_equal(transposed.to_dense(), dense.swapaxes(2, 3))
    assert transposed.transpose() == table


@given(tables(), st.sampled_from([(8, 8), (4, 2), (1, 8)]))
def test_refine_repeats_every_tile(
    case: tuple[NDArray[np.int8], RunTable], block: tuple[int, int]
) -> None:
    """A refined table has each tile's kind on all tiles inside it."""
    dense, table = case

    fine = table.refine(*block)

    repeated = dense.repeat(table.block_m // block[0], 2).repeat(table.block_n // block[1], 3)
    expected = repeated[:, :, : fine.n_q_blocks, : fine.n_kv_blocks]
    assert np.array_equal(fine.to_dense(), expected)


def test_refine_refuses_tiles_that_do_not_divide() -> None:
    """48 does not divide 64."""
    table = RunTable.from_dense(
        np.ones((1, 1, 1, 1), np.int8), n_queries=64, n_keys=64, block_m=64, block_n=64
    )
    with pytest.raises(ValueError, match="do not divide"):
        table.refine(48, 64)


@given(tables())
def test_lists_are_a_stable_sort(case: tuple[NDArray[np.int8], RunTable]) -> None:
    """Listed blocks first, then the others, each ascending, as PyTorch's argsort gives them."""
    dense, table = case
    for kind, part in zip((Kind.PARTIAL, Kind.FULL), table.split(), strict=True):
        numbers, indices = part.to_list()
        assert np.array_equal(numbers, (dense == kind).sum(3))
        assert np.array_equal(indices, np.argsort(dense != kind, axis=3, kind="stable"))
        assert numbers.dtype == indices.dtype == np.int32


@given(tables())
def test_split_separates_the_kinds(case: tuple[NDArray[np.int8], RunTable]) -> None:
    """The two halves of a split hold the PARTIAL and the FULL tiles."""
    dense, table = case

    partial, full = table.split()

    assert np.array_equal(partial.to_dense(), np.where(dense == Kind.PARTIAL, dense, 0))
    assert np.array_equal(full.to_dense(), np.where(dense == Kind.FULL, dense, 0))
