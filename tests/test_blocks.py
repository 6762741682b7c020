"""Classification of tiles is exact, bounded in memory, and rarely looks at elements."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from attnc import analyze, create_mask
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
from attnc.program import build_program
from attnc.run_table import Kind
from benchmarks.mask_catalogue import Entry, all_masks

I32, I64, F32 = DType.INT32, DType.INT64, DType.FLOAT32
_LONGEST = 200
_GENERATOR = torch.Generator().manual_seed(1)
_ORDER = torch.randperm(_LONGEST, generator=_GENERATOR)
TENSORS = (
    torch.sort(torch.randint(0, 9, (_LONGEST,), generator=_GENERATOR))[0],
    torch.randint(0, 150, (3,), generator=_GENERATOR),
    torch.rand(2, _LONGEST, generator=_GENERATOR) < 0.97,
    torch.randn(_LONGEST, generator=_GENERATOR),
    torch.rand(_LONGEST, _LONGEST, generator=_GENERATOR) < 0.01,
    torch.arange(9) * 20,
    torch.argsort(_ORDER),
    _ORDER,
)


def const(value: int) -> Const:
    return Const(value, I32)


def compare(op: str, x: Expr, y: Expr) -> Compare:
    return Compare(CompareOp(op), x, y)


def both(x: Expr, y: Expr) -> Binary:
    return Binary(BinaryOp.AND, x, y)


def quotient(x: Expr, divisor: int) -> Binary:
    return Binary(BinaryOp.FLOORDIV, x, Const(divisor, x.dtype))


def remainder(x: Expr, divisor: int) -> Binary:
    return Binary(BinaryOp.MOD, x, Const(divisor, x.dtype))


def difference(of: Callable[[Expr], Expr]) -> Binary:
    return Binary(BinaryOp.SUB, of(Q_IDX), of(KV_IDX))


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
    # Two axes of a grid of rows of 23, with windows in both.
    both(
        compare("<=", Unary(UnaryOp.ABS, difference(lambda x: quotient(x, 23))), const(1)),
        compare("<=", Unary(UnaryOp.ABS, difference(lambda x: remainder(x, 23))), const(2)),
    ),
    compare("==", difference(lambda x: quotient(remainder(x, 56), 7)), const(0)),
    compare("==", remainder(D, 50), const(7)),
    compare("==", Binary(BinaryOp.AND, Q_IDX, const(20)), Binary(BinaryOp.AND, KV_IDX, const(20))),
    compare("<", Binary(BinaryOp.XOR, Q_IDX, KV_IDX), const(16)),
    # The first token of the document of a query; an order given by a table, read twice.
    compare(">=", Cast(KV_IDX, I64), Gather(5, (Gather(0, (Q_IDX,), I64),), I64)),
    compare(
        "==", *(quotient(Gather(6, (Gather(7, (x,), I64),), I64), 31) for x in (Q_IDX, KV_IDX))
    ),
    compare(
        ">",
        Unary(UnaryOp.COS, Binary(BinaryOp.MUL, Cast(D, F32), Const(0.05, F32))),
        Const(0.9, F32),
    ),
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


@settings(max_examples=max(200, 2 * settings.default.max_examples), deadline=None)
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
    event("evaluated" if result.n_evaluated else "decided by intervals")
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


def test_a_million_tokens_of_documents_take_little_memory() -> None:
    """Causal attention in a thousand documents: 50 MB at most, no tile evaluated."""
    length = 1 << 20
    generator = torch.Generator().manual_seed(3)
    documents = torch.sort(torch.randint(0, 1000, (length,), generator=generator))[0].int()
    mask = both(CAUSAL, compare("==", Gather(0, (Q_IDX,), I32), Gather(0, (KV_IDX,), I32)))
    sizes = {"n_batch": 8, "n_heads": 32, "n_queries": length, "n_keys": length}
    tracemalloc.start()

    result = classify(mask, (documents,), **sizes, block_m=128, block_n=128)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.n_evaluated == 0
    assert peak < 50e6


@pytest.mark.parametrize("block", [(128, 128), (64, 48)])
def test_published_static_masks_are_decided_without_elements(block: tuple[int, int]) -> None:
    """At the lengths they run at, no tile of at least nine in ten is evaluated by element."""
    entries = [entry for entry in all_masks() if entry.static]

    evaluated = [
        entry.name
        for entry in entries
        if analyze(entry.mask, 2, 4, entry.n_queries, entry.n_keys, block).n_evaluated
    ]

    assert len(evaluated) <= len(entries) // 10, evaluated


@pytest.mark.slow
@pytest.mark.parametrize("entry", all_masks(), ids=lambda entry: entry.name)
def test_classes_of_published_masks_are_those_of_all_their_pairs(entry: Entry) -> None:
    """At the lengths they run at, each tile has the kind that its 128 x 128 pairs say."""
    shape = (2, 4, entry.n_queries, entry.n_keys)
    program = build_program(entry.mask, None)
    assert program.mask is not None
    sizes = {"n_batch": 2, "n_heads": 4, "n_queries": shape[2], "n_keys": shape[3]}

    table = classify(program.mask, program.tensors, **sizes, block_m=128, block_n=128).table

    for b in range(table.n_batch):
        for h in range(table.n_heads):
            visible = evaluate(
                program.mask,
                b=torch.tensor(b, dtype=torch.int32),
                h=torch.tensor(h, dtype=torch.int32),
                q_idx=torch.arange(shape[2], dtype=torch.int32)[:, None],
                kv_idx=torch.arange(shape[3], dtype=torch.int32),
                tensors=program.tensors,
            ).expand(shape[2:])
            assert np.array_equal(table.to_dense()[b, h], kinds_of(visible, 128))


def kinds_of(visible: torch.Tensor, block: int) -> NDArray[np.int8]:
    """Kinds of the square tiles of (n_queries, n_keys) bool."""
    sizes = [-(-n // block) * block for n in visible.shape]
    found = []
    for filler in (False, True):
        padded = torch.full(sizes, filler)
        padded[: visible.shape[0], : visible.shape[1]] = visible
        found.append(padded.reshape(sizes[0] // block, block, sizes[1] // block, block))
    some, every = found[0].any(3).any(1), found[1].all(3).all(1)
    return (some.to(torch.int8) * Kind.PARTIAL + every.to(torch.int8)).numpy()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 5, 40]),
    st.booleans(),
    st.booleans(),
    st.tuples(*[st.sampled_from([1, 31, 64, 130])] * 2),
    st.sampled_from([16, 32]),
)
def test_equal_values_of_rows_and_columns_need_no_elements(
    seed: int,
    n_values: int,
    is_causal: bool,
    is_per_batch: bool,
    lengths: tuple[int, int],
    block: int,
) -> None:
    """Two groups of tokens in any order, of any batch: their sets of values decide a tile."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (2, max(lengths)) if is_per_batch else (max(lengths),)
    groups = torch.randint(-n_values, n_values, sizes, generator=generator)
    regions = torch.randint(0, n_values, sizes, generator=generator)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        places = ((b, q), (b, kv)) if is_per_batch else ((q,), (kv,))
        found, others = ((values[places[0]] == values[places[1]]) for values in (groups, regions))
        seen = found & others
        return seen & (q >= kv) if is_causal else seen

    found = analyze(mask, 2, 1, *lengths, block)

    visible = create_mask(mask, 2 if is_per_batch else 1, 1, *lengths)
    expected = np.stack([kinds_of(head[0], block) for head in visible])[:, None]
    assert np.array_equal(found.table.to_dense(), expected)
    if not is_causal:
        assert found.n_evaluated == 0


def test_windows_that_lie_between_others_need_no_elements() -> None:
    """Shifted windows of Swin: numbers of windows in a tile lie around those of other tiles."""

    def region(i: Any) -> Any:
        row, column = (i // 56 + 53) % 56, (i % 56 + 53) % 56
        seam = (row >= 53).int() * 2 + (column >= 53).int()
        return (row // 7) * 64 + (column // 7) * 8 + seam

    found = analyze(lambda b, h, q, kv: region(q) == region(kv), 1, 1, 3136, 3136, 64)

    assert (found.n_full, found.n_partial, found.n_empty) == (0, 361, 2040)
    assert found.n_evaluated == 0
