"""Classification of tiles is exact, bounded in memory, and rarely looks at elements."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from attnc.blocks import classify
from attnc.evaluate import evaluate
from attnc.ir import (
    B_IDX,
    FALSE,
    H_IDX,
    KV_IDX,
    Q_IDX,
    TRUE,
    Binary,
    BinaryOp,
    Cast,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    Gather,
    Unary,
    UnaryOp,
)
from attnc.run_table import Kind

I32, I64, F32 = DType.INT32, DType.INT64, DType.FLOAT32
_LONGEST = 200
_GENERATOR = torch.Generator().manual_seed(1)
TENSORS = (
    torch.sort(torch.randint(0, 9, (_LONGEST,), generator=_GENERATOR))[0],
    torch.randint(0, 150, (3,), generator=_GENERATOR),
    torch.rand(2, _LONGEST, generator=_GENERATOR) < 0.97,
    torch.randn(_LONGEST, generator=_GENERATOR),
    torch.rand(_LONGEST, _LONGEST, generator=_GENERATOR) < 0.01,
)


def const(value: int) -> Const:
    return Const(value, I32)


def compare(op: str, x: Expr, y: Expr) -> Compare:
    return Compare(CompareOp(op), x, y)


def both(x: Expr, y: Expr) -> Binary:
    return Binary(BinaryOp.AND, x, y)


D = Binary(BinaryOp.SUB, Q_IDX, KV_IDX)
CAUSAL = compare(">=", Q_IDX, KV_IDX)
DOCUMENT = compare("==", Gather(0, (Q_IDX,), I64), Gather(0, (KV_IDX,), I64))
ATOMS: list[Expr] = [
    TRUE,
    FALSE,
    CAUSAL,
    DOCUMENT,
    compare("<", D, const(40)),
    compare("<=", Unary(UnaryOp.ABS, D), const(17)),
    compare("<", Cast(KV_IDX, I64), Gather(1, (H_IDX,), I64)),
    compare("==", *(Binary(BinaryOp.FLOORDIV, x, const(48)) for x in (Q_IDX, KV_IDX))),
    compare("==", Binary(BinaryOp.MOD, D, const(3)), const(0)),
    compare("==", Binary(BinaryOp.MOD, KV_IDX, const(130)), const(129)),
    Gather(2, (B_IDX, KV_IDX), DType.BOOL),
    Gather(4, (Q_IDX, KV_IDX), DType.BOOL),
    compare(">", Gather(3, (Q_IDX,), F32), Gather(3, (KV_IDX,), F32)),
    compare("==", B_IDX, const(1)),
    compare("<", Binary(BinaryOp.MUL, D, D), const(500)),
]


def masks() -> st.SearchStrategy[Expr]:
    return st.recursive(
        st.sampled_from(ATOMS),
        lambda inner: st.one_of(
            st.builds(
                Binary, st.sampled_from([BinaryOp.AND, BinaryOp.OR, BinaryOp.XOR]), inner, inner
            ),
            st.builds(lambda x: Unary(UnaryOp.NOT, x), inner),
        ),
        max_leaves=4,
    )


lengths = st.one_of(st.sampled_from([0, 1, 127, 128, 129]), st.integers(0, _LONGEST))
block_sizes = st.sampled_from([16, 32, 48, 64, 128])


def dense_kinds(
    mask: Expr, n_batch: int, n_heads: int, n_queries: int, n_keys: int, block_m: int, block_n: int
) -> NDArray[np.int8]:
    """Kinds of all tiles from all elements: (n_batch, n_heads, n_q_blocks, n_kv_blocks)."""
    visible = evaluate(
        mask,
        b=torch.arange(n_batch).view(-1, 1, 1, 1),
        h=torch.arange(n_heads).view(-1, 1, 1),
        q_idx=torch.arange(n_queries).view(-1, 1),
        kv_idx=torch.arange(n_keys),
        tensors=TENSORS,
    ).expand(n_batch, n_heads, n_queries, n_keys)
    shape = (n_batch, n_heads, -(-n_queries // block_m), -(-n_keys // block_n))
    kinds = np.zeros(shape, np.int8)
    for i in range(shape[2]):
        for j in range(shape[3]):
            tile = visible[
                :, :, i * block_m : (i + 1) * block_m, j * block_n : (j + 1) * block_n
            ].flatten(2)
            kinds[:, :, i, j] = tile.any(2).numpy() * Kind.PARTIAL
            kinds[:, :, i, j][tile.all(2).numpy()] = Kind.FULL
    return kinds


@settings(max_examples=200, deadline=None)
@given(masks(), lengths, lengths, block_sizes, block_sizes)
def test_classes_are_those_of_the_elements(
    mask: Expr, n_queries: int, n_keys: int, block_m: int, block_n: int
) -> None:
    """EMPTY, PARTIAL and FULL are exactly what the elements of each tile say."""
    n_batch, n_heads = 2, 3

    result = classify(
        mask,
        TENSORS,
        n_batch=n_batch,
        n_heads=n_heads,
        n_queries=n_queries,
        n_keys=n_keys,
        block_m=block_m,
        block_n=block_n,
    )

    expected = dense_kinds(mask, n_batch, n_heads, n_queries, n_keys, block_m, block_n)
    table = result.table
    assert np.array_equal(np.broadcast_to(table.to_dense(), expected.shape), expected)
    assert 0 <= result.n_evaluated <= table.n_tiles


@pytest.mark.parametrize(
    ("mask", "shape"),
    [
        (CAUSAL, (1, 1)),
        (Gather(2, (B_IDX, KV_IDX), DType.BOOL), (2, 1)),
        (compare("<", Cast(KV_IDX, I64), Gather(1, (H_IDX,), I64)), (1, 3)),
    ],
)
def test_rows_exist_only_for_what_the_mask_reads(mask: Expr, shape: tuple[int, int]) -> None:
    """Batches and heads that the mask does not tell apart share one set of rows."""
    table = classify(
        mask, TENSORS, n_batch=2, n_heads=3, n_queries=99, n_keys=99, block_m=32, block_n=32
    ).table

    assert (table.n_batch, table.n_heads) == shape


@pytest.mark.parametrize(
    "mask",
    [
        CAUSAL,
        both(CAUSAL, DOCUMENT),
        both(CAUSAL, compare("<", D, const(1000))),
        compare("==", *(Binary(BinaryOp.FLOORDIV, x, const(1000)) for x in (Q_IDX, KV_IDX))),
    ],
)
def test_common_masks_need_no_elements_and_little_memory(mask: Expr) -> None:
    """At 65,536 tokens no tile is evaluated, and memory is far below one byte per tile."""
    generator = torch.Generator().manual_seed(2)
    documents = torch.sort(torch.randint(0, 1000, (65536,), generator=generator))[0]
    tracemalloc.start()

    result = classify(
        mask,
        (documents,),
        n_batch=1,
        n_heads=1,
        n_queries=65536,
        n_keys=65536,
        block_m=16,
        block_n=16,
    )

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.n_evaluated == 0
    assert peak < result.table.n_tiles / 2
