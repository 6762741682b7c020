"""Terms of a mask that hold all over a tile are not checked there: they hold, and kernels agree."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import Any

import cpu_kernels
import numpy as np
import pytest
import torch
from cpu_kernels import load, program_of, run, spec_of
from hypothesis import given, settings
from hypothesis import strategies as st
from triton_kernels import qkv

import attnc
from attnc.blocks import classify
from attnc.blocks.terms import with_held_terms
from attnc.conjunction import terms_of
from attnc.evaluate import evaluate
from attnc.plan import make_plan
from attnc.program import build_program
from attnc.run_table import Kind, RunTable
from attnc.runtime.triton import is_interpreting
from attnc.target import GPU_TARGETS
from attnc.testing import Limits, MaskRecipe, available_backends, masks

BLOCK_M, BLOCK_N = 8, 4
LIMITS = Limits(n_batch=2, n_heads=2, length=70)
IDS = torch.arange(300) // 37
LENGTHS = torch.tensor([300, 129])


def table_of(mask: Any, tensors: Any, lengths: tuple[int, int]) -> RunTable:
    table = classify(
        mask,
        tensors,
        n_batch=2,
        n_heads=2,
        n_queries=lengths[0],
        n_keys=lengths[1],
        block_m=BLOCK_M,
        block_n=BLOCK_N,
    ).table
    return with_held_terms(table, terms_of(mask), tensors)


def tiles_of(table: RunTable) -> Any:
    """Of each PARTIAL tile: batch, head, row and column numbers, and the terms that hold."""
    for row, start, stop, kind, held in zip(
        table.run_rows(), table.starts, table.stops, table.kinds, table.held, strict=True
    ):
        if kind != Kind.FULL:
            group, q_block = divmod(int(row), table.n_q_blocks)
            for kv_block in range(start, stop):
                yield *divmod(group, table.n_heads), q_block, kv_block, int(held)


@settings(max_examples=60)
@given(
    st.lists(masks(limits=LIMITS, max_depth=1), min_size=2, max_size=5),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_terms_that_are_said_to_hold_do(
    recipes: list[MaskRecipe], lengths: tuple[int, int]
) -> None:
    """In every tile, and what is FULL or EMPTY stays so; the terms together are the mask."""
    built = [recipe.build() for recipe in recipes]

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return reduce(lambda x, y: x & y, [part(b, h, q_idx, kv_idx) for part in built])

    program = build_program(mask, None)
    if program.mask is None:
        return
    terms = terms_of(program.mask)
    assert 1 <= len(terms) <= 4

    table = table_of(program.mask, program.tensors, lengths)

    expected = classify(
        program.mask,
        program.tensors,
        n_batch=2,
        n_heads=2,
        n_queries=lengths[0],
        n_keys=lengths[1],
        block_m=BLOCK_M,
        block_n=BLOCK_N,
    ).table
    kinds = table.to_dense()
    assert np.array_equal(np.where(kinds == Kind.FULL, kinds, kinds & 1), expected.to_dense())
    counts = (table.n_partial, table.n_full, table.n_empty)
    assert counts == (expected.n_partial, expected.n_full, expected.n_empty)
    for b, h, q_block, kv_block, held in tiles_of(table):
        q_idx = torch.arange(q_block * BLOCK_M, min((q_block + 1) * BLOCK_M, lengths[0]))[:, None]
        kv_idx = torch.arange(kv_block * BLOCK_N, min((kv_block + 1) * BLOCK_N, lengths[1]))
        for number, term in enumerate(terms):
            if held >> number & 1:
                at = {"b": b, "h": h, "q_idx": q_idx, "kv_idx": kv_idx}
                assert evaluate(term, tensors=program.tensors, **at).all()


def test_tiles_of_documents_check_one_term() -> None:
    """On the diagonal within a document only the order, at its beginning only the document."""
    ids = torch.arange(64) // 30
    program = build_program(lambda b, h, q, kv: (q >= kv) & (ids[q] == ids[kv]), None)
    assert program.mask is not None

    table = table_of(program.mask, program.tensors, (64, 64))

    held = {(q_block, kv_block): bits for _, _, q_block, kv_block, bits in tiles_of(table)}
    assert held[0, 0] == 0b10  # the diagonal: documents are equal
    assert held[5, 7] == 0b01  # the second document begins within this tile of keys
    assert {0b00, 0b01, 0b10} == set(held.values())


def test_transposed_tables_keep_the_terms() -> None:
    """What holds in a tile holds in the same tile of the transpose, that of gradients of keys."""
    ids = torch.arange(64) // 30
    program = build_program(lambda b, h, q, kv: (q >= kv) & (ids[q] == ids[kv]), None)
    assert program.mask is not None
    table = table_of(program.mask, program.tensors, (64, 50))

    assert np.array_equal(table.transpose().to_dense(), table.to_dense().swapaxes(2, 3))


MASKS = {
    "documents": lambda b, h, q, kv: (q >= kv) & (IDS[q] == IDS[kv]),
    "window_in_documents": lambda b, h, q, kv: (
        (q >= kv) & (q - kv < 50) & (IDS[q] == IDS[kv]) & (kv < LENGTHS[b])
    ),
    "five_terms": lambda b, h, q, kv: (
        (q >= kv) & (q - kv < 90) & (IDS[q] == IDS[kv]) & (kv < LENGTHS[b]) & ((q - kv) % 3 != 1)
    ),
    "window": lambda b, h, q, kv: (q >= kv) & (q - kv < 100),
    "band": lambda b, h, q, kv: (q - kv).abs() <= 40,
    "dilated_window": lambda b, h, q, kv: (q >= kv) & (q - kv < 100) & ((q - kv) % 2 == 0),
}


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("length", [1, 300])
def test_kernels_that_branch_on_terms_equal_the_oracle(
    backend: str, name: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and all gradients; Triton's in its interpreter."""
    if backend == "cpu" and backend not in available_backends():
        pytest.skip("needs a C++ compiler")
    if backend == "triton":
        if not is_interpreting():
            pytest.skip("Triton compiles for the GPU here")
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    found, expected = [], []
    for each, results in ((backend, found), ("reference", expected)):
        tensors = [x.expand(2, -1, -1, -1).requires_grad_() for x in qkv(length, length)]
        out = attnc.attention(*tensors, mask=MASKS[name], backend=each, enable_gqa=True)
        results += [out, *torch.autograd.grad(out.square().sum(), tensors)]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-4)


@pytest.mark.skipif("cpu" not in available_backends(), reason="needs a C++ compiler")
@pytest.mark.parametrize("n_queries", [300, 2])
@pytest.mark.parametrize(
    ("held", "left"),
    [
        ([0], lambda q, kv: IDS[q] == IDS[kv]),
        ([1], lambda q, kv: q >= kv),
        ([0, 1], lambda q, kv: kv >= 0),
    ],
)
def test_cpu_tiles_leave_out_the_terms_that_a_table_says(
    held: list[int], left: Any, n_queries: int
) -> None:
    """Only the others hide pairs of the tiles that are visited, whatever the mask says."""
    program = program_of(MASKS["documents"], None)
    [kernel] = load([spec_of(program, short_queries=n_queries < 16)])
    q, k, v = qkv(n_queries, 300)
    table = cpu_kernels.table_of(kernel, program, q, k)
    assert kernel.knows_terms
    assert table is not None
    is_visited = torch.from_numpy(table.to_dense()[0, 0] != Kind.EMPTY)
    visible = is_visited.repeat_interleave(table.block_m, 0).repeat_interleave(table.block_n, 1)
    bits = sum(RunTable.bit_of(term) for term in held)
    kinds = np.where(table.kinds == Kind.FULL, Kind.FULL, Kind.PARTIAL | bits).astype(np.int8)
    assert (kinds != table.kinds).any()

    found = run(kernel, program, q, k, v, table=replace(table, kinds=kinds)).out

    def shown(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return visible[q_idx, kv_idx] & left(q_idx, kv_idx)

    expected = attnc.attention(q, k, v, mask=shown, backend="reference", enable_gqa=True)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


def test_the_plan_says_which_tiles_check_less() -> None:
    """Terms of tables; the whole mask where tiles are given."""
    program = build_program(MASKS["documents"], None)
    spec = replace(spec_of(program, dtype=torch.bfloat16, head_dim=64), target=GPU_TARGETS["sm_90"])

    plan, given_tiles = make_plan(spec), make_plan(replace(spec, from_table=True))

    assert plan.masks is not None
    assert len(plan.masks.terms) == 2
    assert "PARTIAL tiles check those of 2 terms of the mask that may not hold there" in [
        decision.what for decision in plan.decisions
    ]
    assert given_tiles.masks is not None
    assert not given_tiles.masks.terms
