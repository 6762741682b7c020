"""The meaning of the IR: each operation against Python's numbers and plain definitions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnc.evaluate import TORCH_DTYPES, evaluate
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
    Param,
    Reduce,
    ReduceOp,
    RowIndex,
    Score,
    Select,
    Unary,
    UnaryOp,
)

I32, I64, F32, F64, BOOL = DType.INT32, DType.INT64, DType.FLOAT32, DType.FLOAT64, DType.BOOL
_BITS = {I32: 32, I64: 64}


def _at(expr: Expr, **values: Any) -> torch.Tensor:
    return evaluate(expr, **{"b": 0, "h": 0, "q_idx": 0, "kv_idx": 0, **values})


def _wrapped(x: int, bits: int) -> int:
    return (x + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


def _python(op: BinaryOp, x: int, y: int, bits: int) -> int:
    """What the docstring of ``evaluate`` says, in integers without end."""
    match op:
        case BinaryOp.FLOORDIV:
            return x // y if y else 0
        case BinaryOp.MOD:
            return x % y if y else 0
        case BinaryOp.SHL:
            return x << y if 0 <= y < bits else 0
        case BinaryOp.SHR:
            return x >> y if 0 <= y < bits else -(x < 0)
        case BinaryOp.POW:
            if y >= 0:
                return pow(x, y, 1 << bits)
            return 0 if abs(x) != 1 else x ** (-y)
        case BinaryOp.MIN:
            return min(x, y)
        case BinaryOp.MAX:
            return max(x, y)
        case _:
            result: int = eval(f"x {op.value} y", {"x": x, "y": y})
            return result


_INTEGER_OPS = [op for op in BinaryOp if op is not BinaryOp.DIV]


def _integers(bits: int) -> st.SearchStrategy[int]:
    least = -(1 << (bits - 1))
    edges = st.sampled_from([0, 1, -1, 2, -2, 31, 32, 63, 64, least, least + 1, -least - 1])
    return st.one_of(edges, st.integers(-40, 40), st.integers(least, -least - 1))


@pytest.mark.parametrize("op", _INTEGER_OPS)
@pytest.mark.parametrize("dtype", [I32, I64])
def test_integers_are_python_integers_that_wrap(op: BinaryOp, dtype: DType) -> None:
    """Every operator, at extreme operands too, on long and short vectors and on constants."""
    bits = _BITS[dtype]
    slots = [Gather(slot, (Q_IDX,), dtype) for slot in (0, 1)]
    numbers = _integers(bits)

    @given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=20))
    def holds(pairs: list[tuple[int, int]]) -> None:
        left, right = zip(*pairs, strict=True)
        tensors = [torch.tensor(side, dtype=TORCH_DTYPES[dtype]) for side in (left, right)]
        expected = [_wrapped(_python(op, x, y, bits), bits) for x, y in pairs]
        positions = torch.arange(len(pairs))

        values = _at(Binary(op, *slots), q_idx=positions, tensors=tensors)
        assert values.dtype == TORCH_DTYPES[dtype]
        assert values.tolist() == expected

        for (_, y), x, wanted in zip(pairs, tensors[0], expected, strict=True):
            expr = Binary(op, slots[0], Const(y, dtype))
            assert _at(expr, tensors=[x[None]]).item() == wanted

    holds()


@pytest.mark.parametrize("op", [UnaryOp.NEG, UnaryOp.ABS, UnaryOp.NOT])
def test_unary_operations_wrap(op: UnaryOp) -> None:
    """The least integer is its own negative and its own absolute value."""
    values = torch.tensor([-(2**31), -5, 0, 7], dtype=torch.int32)
    expected = {
        UnaryOp.NEG: [-(2**31), 5, 0, -7],
        UnaryOp.ABS: [-(2**31), 5, 0, 7],
        UnaryOp.NOT: [2**31 - 1, 4, -1, -8],
    }

    assert _at(Unary(op, Q_IDX), q_idx=values).tolist() == expected[op]


def test_float32_rounds_after_each_operation() -> None:
    """2**24 + 1 + 1 is 2**24: nothing is kept in a wider type."""
    score = Score(F32)
    once = Binary(BinaryOp.ADD, score, Const(1.0, F32))

    assert _at(Binary(BinaryOp.ADD, once, Const(1.0, F32)), score=2.0**24).item() == 2.0**24
    assert _at(Binary(BinaryOp.MUL, score, Const(0.1, F32)), score=3.0).item() == float(
        torch.tensor(3.0) * torch.tensor(0.1)
    )
    assert _at(Binary(BinaryOp.ADD, Score(F64), Const(1.0, F64)), score=2.0**24) == 2.0**24 + 1


@given(st.floats(width=32), st.floats(width=32))
def test_float_division_and_extremes_are_those_of_torch(x: float, y: float) -> None:
    """// rounds down, % has the sign of the divisor, NaN wins in min and max."""
    left, right = torch.tensor(x), torch.tensor(y)
    operands = (Score(F32), Param(0, F32))
    expected = {
        BinaryOp.FLOORDIV: left // right,
        BinaryOp.MOD: left % right,
        BinaryOp.MIN: torch.minimum(left, right),
        BinaryOp.MAX: torch.maximum(left, right),
        BinaryOp.DIV: left / right,
    }

    for op, value in expected.items():
        result = _at(Binary(op, *operands), score=left, params=[y])
        torch.testing.assert_close(result, value, rtol=0, atol=0, equal_nan=True)
    if math.isnan(x) or math.isnan(y):
        assert expected[BinaryOp.MIN].isnan()
        assert expected[BinaryOp.MAX].isnan()


@given(st.floats(width=32, allow_infinity=False, allow_nan=False))
def test_squares_are_products(x: float) -> None:
    """x ** 2.0 is x * x, whether the exponent is a constant or not."""
    product = torch.tensor(x) * torch.tensor(x)

    for exponent in (Const(2.0, F32), Param(0, F32)):
        power = Binary(BinaryOp.POW, Score(F32), exponent)
        assert torch.equal(_at(power, score=x, params=[2.0]), product)


@pytest.mark.parametrize("dtype", [I32, I64])
@pytest.mark.parametrize("source", [F32, F64])
def test_floats_become_integers_towards_zero_and_saturate(dtype: DType, source: DType) -> None:
    """NaN becomes 0, and what is too large the nearest integer there is."""
    limit = 1 << (_BITS[dtype] - 1)

    @given(st.one_of(st.floats(width=32), st.sampled_from([float(limit), -float(limit)])))
    def holds(x: float) -> None:
        expected = 0
        if not math.isnan(x):
            expected = int(min(max(x, -limit), limit - 1))
        assert _at(Cast(Score(source), dtype), score=x).item() == expected

    holds()


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        (2**32 + 5, I64, I32, 5),
        (2**31, I64, I32, -(2**31)),
        (-1, I32, I64, -1),
        (2**24 + 1, I32, F32, 2.0**24),
        (7, I32, BOOL, True),
        (0, I32, BOOL, False),
        (math.nan, F32, BOOL, True),
        (-0.0, F32, BOOL, False),
        (True, BOOL, F32, 1.0),
        (0.1, F64, F32, 0.10000000149011612),
    ],
)
def test_casts(value: Any, source: DType, target: DType, expected: Any) -> None:
    """int64 to int32 wraps, numbers become bool by != 0."""
    result = _at(Cast(Const(value, source), target))

    assert result.dtype == TORCH_DTYPES[target]
    assert result.item() == expected


def test_gather_counts_negative_indices_from_the_end_then_clamps() -> None:
    """Masked lanes never load out of bounds."""
    expr = Gather(0, (Q_IDX,), I32)
    table = torch.tensor([10, 11, 12])

    values = _at(expr, q_idx=torch.tensor([-9, -4, -3, -1, 0, 2, 3, 900]), tensors=[table])

    assert values.tolist() == [10, 10, 10, 12, 10, 12, 12, 12]


def test_gather_of_nothing_is_zero() -> None:
    """A tensor with a dimension of size 0 gives 0 of the right type and shape."""
    expr = Gather(0, (H_IDX, Q_IDX), F32)

    values = _at(expr, q_idx=torch.arange(3)[:, None], tensors=[torch.ones(2, 0)])

    assert torch.equal(values, torch.zeros(3, 1))


@pytest.mark.parametrize(
    ("storage", "load"),
    [
        ("bfloat16", F32),
        ("float16", F32),
        ("float32", F32),
        ("float64", F64),
        ("bool", BOOL),
        ("uint8", I32),
        ("int8", I32),
        ("int16", I32),
        ("uint16", I32),
        ("int32", I32),
        ("uint32", I64),
        ("int64", I64),
    ],
)
def test_gather_loads_every_storage_type(storage: str, load: DType) -> None:
    """The value is converted to the load type; strides do not matter."""
    table = torch.tensor([[0, 1], [1, 1], [1, 0]]).to(getattr(torch, storage))
    expr = Gather(0, (KV_IDX, Q_IDX), load)
    q_idx, kv_idx = torch.arange(3)[:, None], torch.arange(2)[None]

    values = _at(expr, q_idx=q_idx, kv_idx=kv_idx, tensors=[table.T])

    assert torch.equal(values, table.to(TORCH_DTYPES[load]))
    assert values.dtype == TORCH_DTYPES[load]


def test_gather_without_indices_reads_a_number() -> None:
    """A 0-dim captured tensor is a value of its own."""
    assert _at(Gather(0, (), F32), tensors=[torch.tensor(2.5, dtype=torch.float16)]).item() == 2.5


@pytest.mark.parametrize(
    ("op", "expected", "empty"),
    [(ReduceOp.SUM, 13, 0), (ReduceOp.MAX, 9, -(2**31)), (ReduceOp.MIN, -3, 2**31 - 1)],
)
def test_reduce_runs_over_rows(op: ReduceOp, expected: int, empty: int) -> None:
    """From 0 to extent - 1; over nothing it is the neutral element."""
    body = Gather(0, (Q_IDX, RowIndex(0)), I32)
    table = torch.tensor([[0, 0, 0], [7, 9, -3]])

    assert _at(Reduce(op, 0, 3, body), q_idx=1, tensors=[table]).item() == expected
    assert _at(Reduce(op, 0, 0, body), q_idx=1, tensors=[table]).item() == empty


def test_reduce_adds_in_order() -> None:
    """Float sums are those of the loop, not of a tree."""
    table = torch.tensor([1.0, 2.0**24, 1.0, -(2.0**24), 1.0])

    total = _at(Reduce(ReduceOp.SUM, 0, 5, Gather(0, (RowIndex(0),), F32)), tensors=[table])

    assert total.item() == 1.0


def test_nested_sums_bind_their_own_variable() -> None:
    """The inner body may read both variables; what reads neither is computed once outside."""
    outer, inner = RowIndex(0), RowIndex(1)
    body = Binary(BinaryOp.MUL, outer, Binary(BinaryOp.ADD, inner, Q_IDX))
    total = Binary(BinaryOp.ADD, outer, Reduce(ReduceOp.SUM, 1, 2, body))

    value = _at(Reduce(ReduceOp.SUM, 0, 3, total), q_idx=5)

    assert value.item() == sum(i + sum(i * (j + 5) for j in range(2)) for i in range(3))


def test_results_are_not_broadcast() -> None:
    """A value of one coordinate has the shape of that coordinate."""
    q_idx, kv_idx = torch.arange(5)[:, None], torch.arange(7)[None]
    row = Binary(BinaryOp.ADD, Q_IDX, B_IDX)

    assert _at(row, q_idx=q_idx, kv_idx=kv_idx).shape == (5, 1)
    assert _at(KV_IDX, q_idx=q_idx, kv_idx=kv_idx).shape == (1, 7)
    assert _at(Const(3, I32), q_idx=q_idx, kv_idx=kv_idx).shape == ()
    both = Compare(CompareOp.GE, row, KV_IDX)
    assert torch.equal(_at(both, q_idx=q_idx, kv_idx=kv_idx), q_idx >= kv_idx)


def test_choice_takes_the_branch_of_its_condition() -> None:
    """NaN of the branch not taken stays out."""
    expr = Select(Compare(CompareOp.GT, Q_IDX, Const(0, I32)), Score(F32), Const(math.nan, F32))

    values = _at(expr, q_idx=torch.tensor([0, 1]), score=2.5)

    assert values.isnan().tolist() == [True, False]
    assert values[1] == 2.5


def test_depth_and_sharing_do_not_matter() -> None:
    """20,000 levels, and 60 doublings of one node, in moments."""
    deep: Expr = Q_IDX
    for _ in range(20_000):
        deep = Unary(UnaryOp.NOT, Unary(UnaryOp.NEG, deep))
    shared: Expr = Q_IDX
    for _ in range(60):
        shared = Binary(BinaryOp.ADD, shared, shared)

    assert _at(deep, q_idx=3).item() == 3 - 20_000  # ~-x = x - 1
    assert _at(shared, q_idx=3).item() == 0  # 3 * 2**60 wraps
