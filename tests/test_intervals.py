"""The analysis of predicates on boxes is sound, and exact where the design says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from attnc.evaluate import evaluate
from attnc.intervals import (
    Boxes,
    Facts,
    Products,
    Side,
    Truth,
    congruence,
    float_ranges,
    may_wrap,
    never_wraps,
    truth_of,
)
from attnc.intervals.congruence import Congruence
from attnc.intervals.pyramid import TensorRanges
from attnc.intervals.ranges import Range
from attnc.ir import (
    B_IDX,
    H_IDX,
    KV_IDX,
    Q_IDX,
    Binary,
    BinaryOp,
    Cast,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    Gather,
    Reduce,
    ReduceOp,
    RowIndex,
    Select,
    Unary,
    UnaryOp,
)

I32, I64, F32, BOOL = DType.INT32, DType.INT64, DType.FLOAT32, DType.BOOL
_N = 96
_GENERATOR = torch.Generator().manual_seed(0)
_TENSORS = (
    torch.arange(_N) // 13,
    torch.randint(-3, 40, (2, _N), generator=_GENERATOR),
    torch.randn(_N, generator=_GENERATOR).masked_fill(torch.arange(_N) == 17, torch.nan),
    torch.rand(3, _N, generator=_GENERATOR) < 0.9,
    torch.randint(0, 9, (_N, _N), generator=_GENERATOR, dtype=torch.uint8),
    torch.tensor(5).expand(_N),
)


def number(value: int, dtype: DType = I32) -> Const:
    return Const(value, dtype)


_CONSTANTS = st.one_of(
    st.integers(-8, 130), st.sampled_from([0x5555, 0x0F0F, 2**16, 2**31 - 1, -(2**31), 46341])
)


def _integers(
    inner: st.SearchStrategy[Expr], truths: st.SearchStrategy[Expr]
) -> st.SearchStrategy[Expr]:
    binary = st.builds(
        Binary,
        st.sampled_from(
            [op for op in BinaryOp if op is not BinaryOp.DIV]
            + [BinaryOp.ADD, BinaryOp.SUB, BinaryOp.SUB, BinaryOp.FLOORDIV, BinaryOp.AND]
        ),
        inner,
        inner,
    )
    unary = st.builds(Unary, st.sampled_from([UnaryOp.NEG, UnaryOp.NOT, UnaryOp.ABS]), inner)
    gathers = st.one_of(
        st.builds(lambda i: Cast(Gather(0, (i,), I64), I32), inner),
        st.builds(lambda i: Cast(Gather(1, (B_IDX, i), I64), I32), inner),
        st.builds(lambda i, j: Gather(4, (i, j), I32), inner, inner),
        st.builds(lambda i: Cast(Gather(5, (i,), I64), I32), inner),
    )
    selects = st.builds(Select, truths, inner, inner)
    rounded = st.builds(
        lambda x, y: Cast(Binary(BinaryOp.MUL, Cast(x, F32), Gather(2, (y,), F32)), I32),
        inner,
        inner,
    )
    wide = st.builds(
        lambda op, x, y: Cast(Binary(op, Cast(x, I64), Cast(y, I64)), I32),
        st.sampled_from([BinaryOp.ADD, BinaryOp.MUL, BinaryOp.SHL, BinaryOp.MOD]),
        inner,
        inner,
    )
    total = st.builds(
        lambda op, x: Reduce(op, 0, 3, Binary(BinaryOp.ADD, x, RowIndex(0))),
        st.sampled_from(list(ReduceOp)),
        inner,
    )
    return st.one_of(binary, binary, unary, gathers, selects, rounded, wide, total)


def _truths(
    integers: st.SearchStrategy[Expr], inner: st.SearchStrategy[Expr]
) -> st.SearchStrategy[Expr]:
    operators = st.sampled_from(list(CompareOp))
    return st.one_of(
        st.builds(Compare, operators, integers, integers),
        st.builds(Compare, operators, integers, integers),
        st.builds(
            lambda op, x, y, f: Compare(
                op, Binary(f, Cast(x, F32), Gather(2, (y,), F32)), Const(1.5, F32)
            ),
            operators,
            integers,
            integers,
            st.sampled_from([BinaryOp.ADD, BinaryOp.DIV, BinaryOp.MIN, BinaryOp.POW]),
        ),
        st.builds(
            lambda op, f, x: Compare(op, Unary(f, Cast(x, F32)), Const(2.0, F32)),
            operators,
            st.sampled_from([op for op in UnaryOp if op not in (UnaryOp.NOT, UnaryOp.ISNAN)]),
            integers,
        ),
        st.builds(Binary, st.sampled_from([BinaryOp.AND, BinaryOp.OR, BinaryOp.XOR]), inner, inner),
        st.builds(lambda x: Unary(UnaryOp.NOT, x), inner),
        st.builds(lambda x: Unary(UnaryOp.ISNAN, Gather(2, (x,), F32)), integers),
        st.builds(lambda x: Gather(3, (H_IDX, x), BOOL), integers),
        st.builds(lambda x: Cast(x, BOOL), integers),
    )


def _grown(depth: int) -> tuple[st.SearchStrategy[Expr], st.SearchStrategy[Expr]]:
    leaves = st.one_of(
        st.sampled_from([Q_IDX, KV_IDX, Q_IDX, KV_IDX, H_IDX]), st.builds(number, _CONSTANTS)
    )
    integers: st.SearchStrategy[Expr] = leaves
    truths: st.SearchStrategy[Expr] = st.builds(
        Compare, st.sampled_from(list(CompareOp)), leaves, leaves
    )
    for _ in range(depth):
        integers, truths = (
            st.one_of(leaves, _integers(integers, truths)),
            _truths(integers, truths),
        )
    return integers, truths


_MASKS = _grown(3)[1]


@st.composite
def ends(draw: st.DrawFn, size: int) -> tuple[int, int]:
    first = draw(st.integers(0, size - 1))
    return first, min(first + draw(st.sampled_from([0, 1, 3, 7, 15, 31])), size - 1)


def boxes_of(*pairs: tuple[int, int]) -> Boxes:
    """One box from (least, greatest) of b, h, q_idx and kv_idx."""
    return Boxes(*((np.array([lo]), np.array([hi])) for lo, hi in pairs))


def grid(lo: int, hi: int, axis: int) -> torch.Tensor:
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    return torch.arange(lo, hi + 1, dtype=torch.int32).reshape(shape)


def values_on(mask: Expr, *pairs: tuple[int, int]) -> torch.Tensor:
    b, h, q_idx, kv_idx = (grid(*pair, axis) for axis, pair in enumerate(pairs))
    return evaluate(mask, b=b, h=h, q_idx=q_idx, kv_idx=kv_idx, tensors=_TENSORS)


# The sum over r of (q + r) & 2 is 4 for every q, no multiple of 8.
_UNLIKE_TERMS = Compare(
    CompareOp.EQ,
    Reduce(
        ReduceOp.SUM,
        0,
        4,
        Binary(BinaryOp.AND, Binary(BinaryOp.ADD, Q_IDX, RowIndex(0)), number(2)),
    ),
    number(4),
)


@settings(max_examples=max(600, 3 * settings.default.max_examples), deadline=None)
@example(_UNLIKE_TERMS, (0, 0), (0, 0), (1, 1), (0, 0))
@given(_MASKS, ends(2), ends(3), ends(_N), ends(_N))
def test_truth_holds_at_every_point(
    mask: Expr, b: tuple[int, int], h: tuple[int, int], q: tuple[int, int], kv: tuple[int, int]
) -> None:
    """What the analysis calls NEVER or ALWAYS is so at every point of the box."""
    truth = truth_of(mask, boxes_of(b, h, q, kv), Facts(_TENSORS))[0]

    values = values_on(mask, b, h, q, kv)

    event(f"truth is {Truth(int(truth)).name}")
    assert truth != Truth.NEVER or not values.any()
    assert truth != Truth.ALWAYS or values.all()


@settings(max_examples=100, deadline=None)
@given(_MASKS)
def test_many_boxes_are_as_one_at_a_time(mask: Expr) -> None:
    """Vectorisation changes nothing: each box gets the truth it has alone."""
    generator = np.random.default_rng(0)
    lows = generator.integers(0, [[2], [3], [_N], [_N]], (4, 9))
    highs = np.minimum(lows + generator.integers(0, 9, (4, 9)), [[1], [2], [_N - 1], [_N - 1]])
    facts = Facts(_TENSORS)

    together = truth_of(mask, Boxes(*zip(lows, highs, strict=True)), facts)

    for i, truth in enumerate(together):
        alone = truth_of(mask, boxes_of(*zip(lows[:, i], highs[:, i], strict=True)), facts)
        # Bounds may only depend on the box, up to shifts and divisors that vary between boxes.
        assert truth == alone[0] or Truth.MAYBE in (truth, alone[0])


@settings(max_examples=100, deadline=None)
@given(_MASKS, st.booleans(), st.integers(0, 2**16))
def test_rows_and_columns_given_once_change_nothing(mask: Expr, equal: bool, seed: int) -> None:
    """Boxes given as numbered rows and columns have the truths that they have one by one."""
    generator = np.random.default_rng(seed)
    facts = Facts(_TENSORS)

    def side() -> Side:
        lows = generator.integers(0, [[2], [3], [_N]], (3, 7))
        highs = np.minimum(lows + generator.integers(0, 9, (3, 7)), [[1], [2], [_N - 1]])
        b, h, tokens = zip(lows, highs, strict=True)
        return Side(Boxes(b, h, tokens, tokens))

    rows = side()
    # A product of a row and a column is one of the same batch and head.
    columns = rows if equal else Side(Boxes(rows.boxes.b, rows.boxes.h, *side().boxes.pairs()[2:]))
    row = generator.integers(0, 7, 30)
    column = row if not equal else np.where(generator.random(30) < 0.5, row, (row + 1) % 7)
    same_group = (rows.boxes.b[0][row] == rows.boxes.b[0][column]) & (
        rows.boxes.h[0][row] == rows.boxes.h[0][column]
    )
    same_group &= (rows.boxes.b[1][row] == rows.boxes.b[1][column]) & (
        rows.boxes.h[1][row] == rows.boxes.h[1][column]
    )
    row, column = row[same_group], column[same_group]

    numbered = truth_of(mask, Products(rows, columns, row, column), facts)

    b, h, q_idx, _ = ((lo[row], hi[row]) for lo, hi in rows.boxes.pairs())
    kv_idx = tuple(end[column] for end in columns.boxes.kv_idx)
    alone = truth_of(mask, Boxes(b, h, q_idx, (kv_idx[0], kv_idx[1])), facts)
    unequal = (numbered != alone) & (numbered != Truth.MAYBE) & (alone != Truth.MAYBE)
    assert not unequal.any()


_OPERATORS = [
    *(BinaryOp.ADD, BinaryOp.SUB, BinaryOp.MUL, BinaryOp.SHL, BinaryOp.MIN, BinaryOp.MAX),
    *(BinaryOp.FLOORDIV, BinaryOp.MOD),
]
_CONGRUENCES = st.builds(
    lambda stride, offset: Congruence(stride, offset % stride if stride else offset),
    st.integers(0, 24),
    st.integers(-30, 30),
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(_OPERATORS),
    _CONGRUENCES,
    st.one_of(st.builds(congruence.exactly, st.integers(1, 12)), _CONGRUENCES),
    st.data(),
)
def test_congruences_hold_of_results(
    op: BinaryOp, x: Congruence, y: Congruence, data: st.DataObject
) -> None:
    """What holds of operands and their operator holds of what it gives, for any members."""
    functions = {
        BinaryOp.ADD: lambda a, c: a + c,
        BinaryOp.SUB: lambda a, c: a - c,
        BinaryOp.MUL: lambda a, c: a * c,
        BinaryOp.SHL: lambda a, c: a << c if 0 <= c < 31 else 0,
        BinaryOp.MIN: min,
        BinaryOp.MAX: max,
        BinaryOp.FLOORDIV: lambda a, c: a // c if c else 0,
        BinaryOp.MOD: lambda a, c: a % c if c else 0,
    }
    a, c = (known.stride * data.draw(st.integers(-9, 9)) + known.offset for known in (x, y))

    result = congruence.binary(op, x, y)

    event(f"{op.name} says {'nothing' if result == congruence.ANY else 'something'}")
    assert congruence.may_be_equal(result, congruence.exactly(functions[op](a, c)))
    for unary, value in ((UnaryOp.NEG, -a), (UnaryOp.NOT, ~a), (UnaryOp.ABS, abs(a))):
        assert congruence.may_be_equal(congruence.unary(unary, x), congruence.exactly(value))
    wrapped = (a + 2**31) % 2**32 - 2**31
    assert congruence.may_be_equal(x.wrapping(), congruence.exactly(wrapped))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([UnaryOp.SIN, UnaryOp.COS]),
    st.floats(-50, 50, width=32),
    st.floats(0, 8, width=32),
    st.sampled_from([np.float32, np.float64]),
)
def test_bounds_of_waves_hold(op: UnaryOp, first: float, width: float, dtype: type) -> None:
    """Sine and cosine of numbers in a range lie within the bounds, which short ranges tighten."""
    lo, hi = dtype(first), dtype(first + width)
    bounds = float_ranges.unary(
        op,
        Range(np.array([lo]), np.array([hi]), np.zeros(1, bool)),
        DType.FLOAT32 if dtype is np.float32 else DType.FLOAT64,
    )

    points = torch.from_numpy(np.linspace(lo, hi, 257).astype(dtype).clip(lo, hi))
    values = (torch.sin if op is UnaryOp.SIN else torch.cos)(points)

    assert bounds.lo[0] <= values.min()
    assert values.max() <= bounds.hi[0]
    assert width > 0.5 or bounds.hi[0] - bounds.lo[0] < width + 1e-3


D = Binary(BinaryOp.SUB, Q_IDX, KV_IDX)
_HALVES = [Binary(BinaryOp.FLOORDIV, x, number(32)) for x in (Q_IDX, KV_IDX)]
_DOC = [Gather(0, (x,), I64) for x in (Q_IDX, KV_IDX)]
_SQUARES = Binary(
    BinaryOp.ADD,
    Binary(BinaryOp.MUL, D, D),
    Binary(BinaryOp.MUL, Q_IDX, Q_IDX),
)
_THIRDS = Binary(
    BinaryOp.ADD, Binary(BinaryOp.MUL, Q_IDX, number(6)), Binary(BinaryOp.MUL, KV_IDX, number(3))
)
_SPREAD = Binary(
    BinaryOp.AND, Binary(BinaryOp.OR, Q_IDX, Binary(BinaryOp.SHL, Q_IDX, number(1))), number(5)
)


@pytest.mark.parametrize(
    ("mask", "q", "kv", "truth"),
    [
        (Compare(CompareOp.LE, Unary(UnaryOp.ABS, D), number(40)), (0, 15), (56, 63), Truth.NEVER),
        (Compare(CompareOp.LE, Unary(UnaryOp.ABS, D), number(40)), (0, 15), (8, 40), Truth.ALWAYS),
        (Compare(CompareOp.EQ, *_HALVES), (32, 63), (32, 47), Truth.ALWAYS),
        (Compare(CompareOp.EQ, *_HALVES), (32, 63), (64, 95), Truth.NEVER),
        (Compare(CompareOp.EQ, *_DOC), (13, 25), (14, 20), Truth.ALWAYS),
        (Compare(CompareOp.EQ, *_DOC), (13, 25), (26, 90), Truth.NEVER),
        (Compare(CompareOp.GE, _SQUARES, number(0)), (0, 9), (0, 9), Truth.ALWAYS),
        (
            Compare(CompareOp.LT, Binary(BinaryOp.SUB, Q_IDX, D), number(8)),
            (0, 90),
            (0, 7),
            Truth.ALWAYS,
        ),
        (Compare(CompareOp.EQ, _SPREAD, number(2)), (0, 90), (0, 7), Truth.NEVER),
        (
            Compare(CompareOp.EQ, Binary(BinaryOp.MOD, D, number(64)), number(3)),
            (8, 15),
            (0, 3),
            Truth.NEVER,
        ),
        (Gather(3, (H_IDX, KV_IDX), BOOL), (0, 0), (0, 95), Truth.MAYBE),
        (
            Compare(CompareOp.EQ, Binary(BinaryOp.MOD, _THIRDS, number(3)), number(0)),
            (0, 95),
            (0, 95),
            Truth.ALWAYS,
        ),
        (
            Compare(CompareOp.EQ, Binary(BinaryOp.MOD, _THIRDS, number(9)), number(4)),
            (0, 95),
            (0, 95),
            Truth.NEVER,
        ),
        (
            Compare(
                CompareOp.EQ,
                Gather(0, (Cast(Gather(0, (Q_IDX,), I64), I32),), I64),
                Const(0, I64),
            ),
            (0, 95),
            (0, 95),
            Truth.ALWAYS,
        ),
    ],
)
def test_the_domains_are_exact_where_needed(
    mask: Expr, q: tuple[int, int], kv: tuple[int, int], truth: Truth
) -> None:
    """Windows, chunks, documents, repeated terms, bits, periods and multiples are decided."""
    assert truth_of(mask, boxes_of((0, 0), (0, 0), q, kv), Facts(_TENSORS))[0] == truth


def test_wrapping_is_seen() -> None:
    """q + (2**31 - 1) wraps for q > 0, so it is not above q, and the analysis says so."""
    total = Binary(BinaryOp.ADD, Q_IDX, number(2**31 - 1))
    mask = Compare(CompareOp.GT, total, Q_IDX)
    box = boxes_of((0, 0), (0, 0), (1, 9), (0, 0))

    assert truth_of(mask, box, Facts())[0] != Truth.ALWAYS
    assert may_wrap([mask], box, Facts())[0]
    assert not never_wraps([mask], Facts(), n_batch=1, n_heads=1, n_queries=2, n_keys=9)
    assert never_wraps([mask], Facts(), n_batch=1, n_heads=1, n_queries=1, n_keys=9)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 300), st.booleans(), st.integers(0, 2**16))
def test_range_extremes_along_a_line_are_exact(size: int, is_sorted: bool, seed: int) -> None:
    """Least and greatest elements of any range of one dimension are those of the slice."""
    generator = np.random.default_rng(seed)
    values = generator.integers(-50, 50, (2, size))
    values = np.sort(values, 1) if is_sorted else values
    rows = generator.integers(0, 2, 20)
    lows = generator.integers(0, size, 20)
    highs = np.minimum(lows + generator.integers(0, size, 20), size - 1)

    least, greatest = TensorRanges.of(torch.from_numpy(values), I64).bounds(
        [rows, lows], [rows, highs]
    )

    for i in range(20):
        part = values[rows[i], lows[i] : highs[i] + 1]
        assert (least[i], greatest[i]) == (part.min(), part.max())


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**16))
def test_range_extremes_of_a_rectangle_hold(n_rows: int, n_columns: int, seed: int) -> None:
    """Bounds over a rectangle hold its elements; aligned power-of-two rectangles are exact."""
    generator = np.random.default_rng(seed)
    values = generator.integers(-50, 50, (n_rows, n_columns))
    ranges = TensorRanges.of(torch.from_numpy(values), I64)
    low = generator.integers(0, [[n_rows], [n_columns]], (2, 20))
    high = np.minimum(low + generator.integers(0, 20, (2, 20)), [[n_rows - 1], [n_columns - 1]])

    least, greatest = ranges.bounds(list(low), list(high))
    aligned = low // 4 * 4
    ends = np.minimum(aligned + 3, [[n_rows - 1], [n_columns - 1]])
    exact = ranges.bounds(list(aligned), list(ends))

    for i in range(20):
        part = values[low[0, i] : high[0, i] + 1, low[1, i] : high[1, i] + 1]
        assert np.broadcast_to(least, 20)[i] <= part.min()
        assert np.broadcast_to(greatest, 20)[i] >= part.max()
        tile = values[aligned[0, i] : ends[0, i] + 1, aligned[1, i] : ends[1, i] + 1]
        assert ((exact[0][i], exact[1][i]) == (tile.min(), tile.max())) or min(tile.shape) < 4
