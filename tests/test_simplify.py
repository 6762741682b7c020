"""Laws of the simplifier: equal values, and one match and one near miss for each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc.evaluate import evaluate
from attnc.ir import (
    B_IDX,
    FALSE,
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
    Index,
    Param,
    Reduce,
    ReduceOp,
    RowIndex,
    Score,
    Select,
    Unary,
    UnaryOp,
    walk,
)
from attnc.simplify import simplify

I32, I64, F32, F64, BOOL = DType.INT32, DType.INT64, DType.FLOAT32, DType.FLOAT64, DType.BOOL
S = Score(F32)
X = Gather(0, (Q_IDX,), I32)  # integers of any value, unlike the coordinates
Y = Gather(0, (KV_IDX,), I32)
C = Gather(1, (Q_IDX,), BOOL)
D = Gather(1, (KV_IDX,), BOOL)


def _int(value: int, dtype: DType = I32) -> Const:
    return Const(value, dtype)


def _real(value: float) -> Const:
    return Const(value, F32)


def _bin(op: str, x: Expr, y: Expr) -> Expr:
    return Binary(BinaryOp(op), x, y)


def _cmp(op: str, x: Expr, y: Expr) -> Expr:
    return Compare(CompareOp(op), x, y)


def _not(x: Expr) -> Expr:
    return Unary(UnaryOp.NOT, x)


def _neg(x: Expr) -> Expr:
    return Unary(UnaryOp.NEG, x)


_P = _cmp("<", X, Y)
_CAUSAL = _cmp(">=", Q_IDX, KV_IDX)

_SAME = _cmp("==", Q_IDX, KV_IDX)
_ROW, _COLUMN = _bin("//", Q_IDX, _int(16)), _bin("%", KV_IDX, _int(8))
_CELL = _bin("+", _bin("*", _ROW, _int(8)), _COLUMN)
_PLACE = _bin("%", Cast(_bin("+", Cast(X, F32), _real(0.5)), I32), _int(16))


def _equal(op: str, x: Expr, y: Expr, n: int) -> Expr:
    return _cmp("==", _bin(op, x, _int(n)), _bin(op, y, _int(n)))


_MATCHES: list[tuple[Expr, Expr]] = [
    # conditions
    (_bin("&", C, TRUE), C),
    (_bin("&", TRUE, C), C),
    (_bin("&", C, FALSE), FALSE),
    (_bin("|", C, TRUE), TRUE),
    (_bin("|", FALSE, C), C),
    (_bin("^", C, TRUE), _not(C)),
    (_bin("^", C, FALSE), C),
    (_bin("^", C, C), FALSE),
    (_bin("&", C, C), C),
    (_bin("|", C, C), C),
    (_bin("&", C, _not(C)), FALSE),
    (_bin("&", _P, _cmp(">=", X, Y)), FALSE),
    (_bin("|", _not(C), C), TRUE),
    (_bin("&", C, _bin("|", D, C)), C),
    (_bin("|", _bin("&", C, D), C), C),
    (_bin("&", _bin("&", C, D), C), _bin("&", C, D)),
    (_not(_not(C)), C),
    (_not(_P), _cmp(">=", X, Y)),
    (_not(_cmp("==", S, _real(1.0))), _cmp("!=", S, _real(1.0))),
    (_not(_bin("&", C, _P)), _bin("|", _not(C), _cmp(">=", X, Y))),
    (_not(_bin("|", C, D)), _bin("&", _not(C), _not(D))),
    # comparisons
    (_cmp("<", _int(5), X), _cmp(">", X, _int(5))),
    (_cmp("<=", KV_IDX, Q_IDX), _CAUSAL),
    (_cmp("==", Y, X), _cmp("==", X, Y)),
    (_cmp("<=", X, X), TRUE),
    (_cmp("<", S, S), FALSE),
    (_cmp("==", C, TRUE), C),
    (_cmp("!=", C, TRUE), _not(C)),
    (_cmp(">", Cast(C, I32), _int(0)), C),
    (_cmp("==", Select(C, _int(3), _int(4)), _int(4)), _not(C)),
    (_cmp("<", Cast(X, I64), _int(5, I64)), _cmp("<", X, _int(5))),
    (_cmp("<", Cast(X, I64), Cast(Y, I64)), _P),
    (_cmp("<", _bin("-", Q_IDX, KV_IDX), _int(0)), _cmp("<", Q_IDX, KV_IDX)),
    (_cmp(">=", Q_IDX, _int(0)), TRUE),
    (_cmp("==", KV_IDX, _int(-1)), FALSE),
    # choice
    (Select(TRUE, X, Y), X),
    (Select(C, X, X), X),
    (Select(_not(C), X, Y), Select(C, Y, X)),
    (Select(C, Select(C, X, Y), _int(1)), Select(C, X, _int(1))),
    (Select(C, _int(1), Select(C, X, Y)), Select(C, _int(1), Y)),
    (Select(C, TRUE, D), _bin("|", C, D)),
    (Select(C, FALSE, D), _bin("&", _not(C), D)),
    (Select(C, D, TRUE), _bin("|", _not(C), D)),
    (Select(C, D, FALSE), _bin("&", C, D)),
    # casts
    (Cast(X, I32), X),
    (Cast(Cast(X, I64), I32), X),
    (Cast(Cast(X, I64), F32), Cast(X, F32)),
    (Cast(Cast(C, F32), BOOL), C),
    (Cast(X, BOOL), _cmp("!=", X, _int(0))),
    (Cast(Select(C, _int(1), _int(0)), F32), Select(C, _real(1.0), _real(0.0))),
    # numbers
    (_bin("*", _int(2), X), _bin("*", X, _int(2))),
    (_bin("*", S, _real(1.0)), S),
    (_bin("/", S, _real(1.0)), S),
    (_bin("**", S, _real(1.0)), S),
    (_bin("**", S, _real(2.0)), _bin("*", S, S)),
    (_bin("*", S, _real(-1.0)), _neg(S)),
    (_bin("+", S, _neg(S)), _bin("-", S, S)),
    (_bin("+", _neg(Y), X), _bin("-", X, Y)),
    (_bin("-", X, _neg(Y)), _bin("+", X, Y)),
    (_bin("*", _neg(X), _neg(Y)), _bin("*", X, Y)),
    (_bin("min", S, S), S),
    (_neg(_neg(S)), S),
    (Unary(UnaryOp.ABS, _neg(S)), Unary(UnaryOp.ABS, S)),
    (Unary(UnaryOp.ABS, Q_IDX), Q_IDX),
    (Unary(UnaryOp.FLOOR, X), X),
    # integers
    (_bin("+", X, _int(0)), X),
    (_bin("*", X, _int(0)), _int(0)),
    (_bin("//", X, _int(0)), _int(0)),
    (_bin("**", X, _int(0)), _int(1)),
    (_bin("-", _int(0), X), _neg(X)),
    (_bin("//", X, _int(1)), X),
    (_bin("//", X, _int(-1)), _neg(X)),
    (_bin("%", X, _int(1)), _int(0)),
    (_bin("&", X, _int(-1)), X),
    (_bin("|", X, _int(-1)), _int(-1)),
    (_bin("^", X, _int(-1)), _not(X)),
    (_bin("&", X, X), X),
    (_bin("-", X, X), _int(0)),
    (_neg(_bin("-", X, Y)), _bin("-", Y, X)),
    (_bin("-", _bin("+", X, _int(3)), _int(5)), _bin("-", X, _int(2))),
    (_bin("+", _bin("+", X, _int(2**31 - 1)), _int(1)), _bin("+", X, _int(-(2**31)))),
    (_bin("*", _bin("*", X, _int(3)), _int(5)), _bin("*", X, _int(15))),
    (_bin("//", _bin("//", X, _int(3)), _int(5)), _bin("//", X, _int(15))),
    (_bin("%", _bin("%", X, _int(3)), _int(3)), _bin("%", X, _int(3))),
    (_bin("min", _bin("min", X, _int(3)), _int(5)), _bin("min", X, _int(3))),
    # sums that cannot wrap around, as _ROW * 8 + _COLUMN
    (_bin("//", _CELL, _int(8)), _ROW),
    (_bin("%", _CELL, _int(8)), _COLUMN),
    (_bin("//", _CELL, _int(16)), _bin("//", _CELL, _int(16))),
    (_bin("//", _bin("-", _int(5), _bin("*", _ROW, _int(8))), _int(8)), _neg(_ROW)),
    (
        _bin("%", _bin("-", _COLUMN, _bin("*", _ROW, _int(16))), _int(8)),
        _COLUMN,
    ),
    (_bin("%", _COLUMN, _int(16)), _COLUMN),
    (_bin("//", _bin("%", X, _int(64)), _int(8)), _bin("%", _bin("//", X, _int(8)), _int(8))),
    (_bin("//", _COLUMN, _int(8)), _int(0)),
    (  # what is divided may come of floats
        _bin("//", _bin("+", _bin("*", _PLACE, _int(8)), _COLUMN), _int(8)),
        _PLACE,
    ),
    # ranges
    (_cmp("<", _COLUMN, _int(8)), TRUE),
    (_cmp("==", _COLUMN, _int(8)), FALSE),
    (_cmp(">", _bin("+", _COLUMN, _int(8)), _COLUMN), TRUE),
    (_cmp("<", Cast(X, I64), _int(2**31, I64)), TRUE),
    # quotient and remainder
    (_bin("&", _equal("//", Q_IDX, KV_IDX, 8), _equal("%", Q_IDX, KV_IDX, 8)), _SAME),
    (
        _bin("&", _bin("&", C, _equal("%", X, Y, 8)), _equal("//", X, Y, 8)),
        _bin("&", _cmp("==", X, Y), C),
    ),
    (
        _bin(
            "&",
            _equal("//", X, Y, 40),
            _equal("%", _bin("//", X, _int(8)), _bin("//", Y, _int(8)), 5),
        ),
        _equal("//", X, Y, 8),
    ),
    # floats
    (_bin("-", S, _real(0.0)), S),
    (_bin("+", S, _real(-0.0)), S),
    (_bin("/", S, _real(8.0)), _bin("*", S, _real(0.125))),
    # constants
    (_bin("+", _int(2**31 - 1), _int(1)), _int(-(2**31))),
    (_bin("//", _int(-7), _int(2)), _int(-4)),
    (_bin("*", _real(0.1), _real(3.0)), _real(0.30000001192092896)),
    (Cast(_real(-2.5), I32), _int(-2)),
    (Cast(_real(math.nan), I32), _int(0)),
    (Cast(_real(1e20), I32), _int(2**31 - 1)),
    (_cmp("<", _real(math.nan), _real(1.0)), FALSE),
]

_NEAR_MISSES: list[Expr] = [
    _bin("//", _bin("+", _bin("*", X, _int(8)), _COLUMN), _int(8)),  # may wrap around
    _bin("%", _bin("+", _bin("*", _ROW, _int(12)), _COLUMN), _int(8)),
    _bin("%", _COLUMN, _int(7)),
    _bin("//", _bin("%", X, _int(64)), _int(7)),
    _cmp("<", _COLUMN, _int(7)),
    _bin("&", _equal("//", X, Y, 8), _equal("%", X, Y, 4)),
    _bin("&", _equal("//", X, Y, 40), _equal("%", X, Y, 5)),
    _bin("&", C, D),
    _bin("^", C, D),
    _bin("&", _P, _cmp("<=", X, Y)),
    _bin("&", C, _bin("^", C, D)),
    _not(_cmp("<", S, _real(1.0))),  # NaN
    _not(C),
    _cmp("<", X, Y),
    _cmp("<=", S, S),  # NaN
    _cmp("==", S, S),
    _cmp("<", Cast(X, F32), _real(5.0)),  # rounds
    _cmp("<", _bin("-", X, Y), _int(0)),  # wraps
    _cmp(">=", X, _int(0)),
    _cmp(">", Q_IDX, _int(0)),
    Select(C, X, Y),
    Select(C, Select(D, X, Y), _int(1)),
    Cast(Cast(X, F32), I32),  # rounds
    Cast(Cast(S, I32), F32),
    _bin("*", S, _real(0.0)),  # NaN, inf
    _bin("min", _real(0.0), S),  # of 0.0 and -0.0
    _bin("+", S, _real(0.0)),  # -0.0
    _bin("-", S, _real(-0.0)),
    _bin("-", S, S),  # inf
    _bin("-", _real(0.0), S),
    _bin("+", _bin("+", S, _real(1.0)), _real(2.0)),  # rounds
    _bin("/", S, _real(3.0)),
    _bin("/", S, _real(2.0**127)),  # the inverse is subnormal
    _bin("//", S, _real(1.0)),
    _bin("**", S, _real(3.0)),
    _neg(_bin("-", S, Cast(X, F32))),  # the sign of zero
    Unary(UnaryOp.ABS, X),
    Unary(UnaryOp.EXP, _real(1.0)),  # not determined by IEEE 754
    _bin("**", _real(2.0), _real(0.3)),
    _bin("//", X, _int(2)),
    _bin("%", X, _int(2)),
    _bin("-", X, Y),
    _bin("&", X, Y),
    _bin("//", _bin("//", X, _int(-3)), _int(5)),
    _bin("//", _bin("//", X, _int(2**20)), _int(2**20)),  # the product wraps
    _bin("%", _bin("%", X, _int(5)), _int(3)),
    _bin("//", _bin("*", X, _int(3)), _int(3)),  # wraps
    _bin("max", _bin("min", X, _int(5)), _int(3)),
]


@pytest.mark.parametrize(("before", "after"), _MATCHES)
def test_law_applies(before: Expr, after: Expr) -> None:
    """Each law gives what its comment says, and values stay."""
    assert simplify(before) is after
    _assert_same_values(before, after)


@pytest.mark.parametrize("expr", _NEAR_MISSES)
def test_near_miss_stays(expr: Expr) -> None:
    """What only looks like a law stays the same object."""
    assert simplify(expr) is expr


def test_equal_masks_become_one_object() -> None:
    """Spellings of causal with padding meet in one node, hence in one kernel."""
    spelled = _not(_bin("|", _cmp(">", KV_IDX, Q_IDX), _not(_cmp(">", _int(99), KV_IDX))))

    assert simplify(spelled) is _bin("&", _CAUSAL, _cmp("<", KV_IDX, _int(99)))


@pytest.mark.parametrize(
    "join",
    [lambda x, y: _not(_bin("&", x, y)), lambda x, y: _bin("&", x, y)],
    ids=["negated", "joined"],
)
def test_deep_expressions_take_linear_time(join: Callable[[Expr, Expr], Expr]) -> None:
    """5,000 levels of conjunction, negated or not: no recursion, no blow-up."""
    expr: Expr = C
    for number in range(5_000):
        expr = join(expr, _cmp("<", X, _int(number)))
    start = time.process_time()

    result = simplify(expr)

    assert time.process_time() - start < 5
    assert sum(1 for _ in walk(result)) < 40_000


_leaves: dict[DType, list[Expr]] = {
    BOOL: [C, D, TRUE, FALSE],
    I32: [Q_IDX, KV_IDX, B_IDX, X, Y, Param(0, I32)],
    I64: [Gather(2, (KV_IDX,), I64), Cast(X, I64)],
    F32: [S, Gather(3, (X,), F32), Param(1, F32)],
    F64: [Cast(S, F64), Cast(X, F64)],
}
_CONSTANTS: dict[DType, list[int | float]] = {
    I32: [0, 1, -1, 2, 3, -7, 8, 31, 100, 2**31 - 1, -(2**31)],
    I64: [0, 1, -1, 2, 3, -7, 63, 2**31, 2**63 - 1, -(2**63)],
    F32: [0.0, -0.0, 1.0, -1.0, 2.0, 0.1, 0.5, 8.0, 1e30, 1e-40, math.inf, -math.inf, math.nan],
    F64: [0.0, -0.0, 1.0, -1.0, 2.0, 0.1, 1e300, math.inf, math.nan],
}
_LOGIC = [BinaryOp.AND, BinaryOp.OR, BinaryOp.XOR]
_BOTH = [BinaryOp.ADD, BinaryOp.SUB, BinaryOp.MUL, BinaryOp.FLOORDIV, BinaryOp.MOD, BinaryOp.MIN]
_INTEGER = [*_LOGIC, *_BOTH, BinaryOp.MAX, BinaryOp.SHL, BinaryOp.SHR, BinaryOp.POW]
# Not exp or **: torch rounds them by its own vectors and tails, so by shapes and strides.
_FLOAT = [*_BOTH, BinaryOp.MAX, BinaryOp.DIV]
_FLOAT_UNARY = [UnaryOp.NEG, UnaryOp.ABS, UnaryOp.FLOOR, UnaryOp.ROUND, UnaryOp.SQRT, UnaryOp.CEIL]


@st.composite
def _expressions(draw: st.DrawFn, dtype: DType, depth: int) -> Expr:
    """Any expression of ``dtype``, typed as the tracer types it."""
    if depth == 0 or draw(st.integers(0, 5)) == 0:
        if dtype in _CONSTANTS and draw(st.booleans()):
            return Const(draw(st.sampled_from(_CONSTANTS[dtype])), dtype)
        return draw(st.sampled_from(_leaves[dtype]))

    def operand(of: DType) -> Expr:
        return draw(_expressions(of, depth - 1))

    kind = draw(st.sampled_from(["binary", "binary", "unary", "select", "cast"]))
    other = draw(st.sampled_from(list(DType)))
    if kind == "select":
        return Select(operand(BOOL), operand(dtype), operand(dtype))
    if kind == "cast" and other is not dtype:
        return Cast(operand(other), dtype)
    if dtype is BOOL:
        if kind == "unary":
            return Unary(UnaryOp.NOT, operand(BOOL))
        if draw(st.booleans()):
            return Binary(draw(st.sampled_from(_LOGIC)), operand(BOOL), operand(BOOL))
        return Compare(draw(st.sampled_from(CompareOp)), operand(other), operand(other))
    if kind == "unary":
        ops = _FLOAT_UNARY if dtype.is_float else [UnaryOp.NEG, UnaryOp.ABS, UnaryOp.NOT]
        return Unary(draw(st.sampled_from(ops)), operand(dtype))
    op = draw(st.sampled_from(_FLOAT if dtype.is_float else _INTEGER))
    return Binary(op, operand(dtype), operand(dtype))


def _values(expr: Expr) -> torch.Tensor:
    """At all pairs of 12 queries and 13 keys, with awkward captured values and scores."""
    integers = [*_CONSTANTS[I32], 5, -2, 2**30]
    generator = torch.Generator().manual_seed(0)
    score = torch.randn(12, 13, generator=generator) * 10
    score[0, :8] = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, 1e-40, 3e38])
    value = evaluate(
        expr,
        b=1,
        h=0,
        q_idx=torch.arange(12, dtype=torch.int32)[:, None],
        kv_idx=torch.arange(13, dtype=torch.int32)[None],
        score=score,
        tensors=[
            torch.tensor(integers, dtype=torch.int32),
            torch.arange(14) % 3 == 0,
            torch.tensor([int(c) for c in _CONSTANTS[I64]]),
            torch.tensor([*_CONSTANTS[F32], 7.5]),
        ],
        params=[1024, 0.7],
    )
    return value.broadcast_to(12, 13)


def _assert_same_values(before: Expr, after: Expr) -> None:
    old, new = _values(before), _values(after)
    assert old.dtype == new.dtype
    torch.testing.assert_close(new, old, rtol=0, atol=0, equal_nan=True)
    if old.is_floating_point():
        is_number = ~old.isnan()
        assert torch.equal(old.signbit() & is_number, new.signbit() & is_number)


@settings(parent=settings(), max_examples=3 * settings().max_examples)
@given(st.sampled_from(DType).flatmap(lambda dtype: _expressions(dtype, 4)))
def test_values_stay_bit_for_bit(expr: Expr) -> None:
    """The value of simplify(e) is the value of e, signed zeros included."""
    _assert_same_values(expr, simplify(expr))


@settings(parent=settings(), max_examples=3 * settings().max_examples)
@given(st.sampled_from(DType).flatmap(lambda dtype: _expressions(dtype, 4)))
def test_result_is_final(expr: Expr) -> None:
    """Simplifying once more gives the same object: no law is left."""
    result = simplify(expr)

    assert simplify(result) is result
    assert result.dtype is expr.dtype


def test_bodies_of_sums_are_simplified() -> None:
    """Laws reach into Reduce and the indices of Gather."""
    row = RowIndex(0)
    body = Gather(0, (_bin("+", row, _int(0)),), I32)

    assert simplify(Reduce(ReduceOp.SUM, 0, 4, body)) is Reduce(
        ReduceOp.SUM, 0, 4, Gather(0, (row,), I32)
    )


def test_indices_are_left_alone() -> None:
    """A leaf is its own simplest form."""
    for leaf in (Q_IDX, S, TRUE, Param(3, I64)):
        assert simplify(leaf) is leaf
    assert isinstance(simplify(Q_IDX), Index)
