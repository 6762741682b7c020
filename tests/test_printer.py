"""The text form of expressions: readable, minimal, and read back to the same object."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.ir import (
    B_IDX,
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
    Level,
    Param,
    Reduce,
    ReduceOp,
    Ref,
    RowIndex,
    Score,
    Select,
    Unary,
    UnaryOp,
)
from attnc.parser import parse_expr
from attnc.printer import format_expr, format_program
from attnc.trace import SlotTable, trace_mask, trace_score

_FLOAT_OPS = [op for op in UnaryOp if op not in (UnaryOp.NOT, UnaryOp.ISNAN)]
_BIT_OPS = {BinaryOp.AND, BinaryOp.OR, BinaryOp.XOR, BinaryOp.SHL, BinaryOp.SHR}
_NAMED = {
    DType.BOOL: [Ref("near", DType.BOOL, Level.ROW), Gather(0, (Q_IDX, KV_IDX), DType.BOOL)],
    DType.INT32: [Q_IDX, KV_IDX, B_IDX, H_IDX, Param(0, DType.INT32), RowIndex(1)],
    DType.INT64: [Gather(1, (), DType.INT64), Param(1, DType.INT64)],
    DType.FLOAT32: [Score(DType.FLOAT32), Gather(2, (H_IDX,), DType.FLOAT32)],
    DType.FLOAT64: [Param(2, DType.FLOAT64), Ref("x1", DType.FLOAT64, Level.ELEMENT)],
}


def _constants(dtype: DType) -> st.SearchStrategy[Expr]:
    if dtype is DType.BOOL:
        return st.booleans().map(lambda value: Const(value, dtype))
    if dtype.is_float:
        return st.floats(allow_nan=True).map(lambda value: Const(value, dtype))
    bits = 31 if dtype is DType.INT32 else 63
    return st.integers(-(2**bits), 2**bits - 1).map(lambda value: Const(value, dtype))


@st.composite
def expressions(draw: st.DrawFn, dtype: DType | None = None, depth: int = 4) -> Expr:
    """Any well-typed expression."""
    dtype = dtype or draw(st.sampled_from(DType))
    if depth == 0 or draw(st.integers(0, 5)) == 0:
        return draw(st.one_of(_constants(dtype), st.sampled_from(_NAMED[dtype])))

    def operand(kind: DType) -> Expr:
        return draw(expressions(kind, depth - 1))

    match draw(st.sampled_from(["unary", "binary", "binary", "compare", "select", "cast", "row"])):
        case "compare" if dtype is DType.BOOL:
            kind = draw(st.sampled_from(DType))
            return Compare(draw(st.sampled_from(CompareOp)), operand(kind), operand(kind))
        case "unary" | "compare" if dtype is DType.BOOL:
            return Unary(draw(st.sampled_from([UnaryOp.NOT])), operand(dtype))
        case "unary" | "compare":
            ops = _FLOAT_OPS if dtype.is_float else [UnaryOp.NEG, UnaryOp.NOT, UnaryOp.ABS]
            return Unary(draw(st.sampled_from(ops)), operand(dtype))
        case "select":
            return Select(operand(DType.BOOL), operand(dtype), operand(dtype))
        case "cast":
            return Cast(operand(draw(st.sampled_from(DType))), dtype)
        case "row":
            op = draw(st.sampled_from(ReduceOp))
            return Reduce(op, draw(st.integers(0, 3)), draw(st.integers(0, 9)), operand(dtype))
        case _:
            ops = _BIT_OPS - {BinaryOp.SHL, BinaryOp.SHR} if dtype is DType.BOOL else set(BinaryOp)
            allowed = sorted(ops - _BIT_OPS if dtype.is_float else ops, key=lambda op: op.name)
            return Binary(draw(st.sampled_from(allowed)), operand(dtype), operand(dtype))


@given(expressions())
def test_programs_are_read_back(expr: Expr) -> None:
    """parse_expr is the inverse of format_program, in every dtype."""
    assert parse_expr(format_program(expr)) is expr


@given(expressions(DType.BOOL))
def test_both_forms_are_the_same_expression(expr: Expr) -> None:
    """The one-line form, after the declarations of the program, is read back too."""
    declarations = [line for line in format_program(expr).splitlines() if _is_declaration(line)]
    assert parse_expr("\n".join([*declarations, format_expr(expr)])) is expr


def _is_declaration(line: str) -> bool:
    name, colon, dtype = line.partition(": ")
    return bool(colon) and name.isidentifier() and not dtype.startswith("(")


@pytest.mark.parametrize(
    ("mod", "text"),
    [
        (lambda b, h, q, kv: (q >= kv) & (q - kv < 8), "(q_idx >= kv_idx) & (q_idx - kv_idx < 8)"),
        (lambda b, h, q, kv: q - (kv - h) < 2, "q_idx - (kv_idx - h) < 2"),
        (lambda b, h, q, kv: q - kv - h < 2, "q_idx - kv_idx - h < 2"),
        (lambda b, h, q, kv: (q + kv) * h < 2, "(q_idx + kv_idx) * h < 2"),
        (lambda b, h, q, kv: q + kv * h < 2, "q_idx + kv_idx * h < 2"),
        (lambda b, h, q, kv: -(q**2) < (-q) ** 2, "-q_idx**2 < (-q_idx)**2"),
        (lambda b, h, q, kv: q ** (-kv) ** h < 1, "q_idx**(-kv_idx)**h < 1"),
        (lambda b, h, q, kv: ~(q > kv) | (q > 1) ^ (kv > 1) & (h > 1),
         "~(q_idx > kv_idx) | (q_idx > 1) ^ (kv_idx > 1) & (h > 1)"),
        (lambda b, h, q, kv: (q > kv) == (kv > h), "(q_idx > kv_idx) == (kv_idx > h)"),
        (lambda b, h, q, kv: q - -3 > -kv, "q_idx - -3 > -kv_idx"),
        (lambda b, h, q, kv: q.long() * 5 > 5, "int64(q_idx) * 5 > 5"),
        (lambda b, h, q, kv: q.clamp(1, 3).minimum(kv) > 0, "min(min(max(q_idx, 1), 3), kv_idx) > 0"),
    ],
)  # fmt: skip
def test_parentheses_are_few(mod: Any, text: str) -> None:
    """Only those that Python's precedence needs."""
    assert format_expr(trace_mask(mod, SlotTable()).expr) == text


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (Const(5, DType.INT32), "5"),
        (Const(5, DType.INT64), "int64(5)"),
        (Cast(Const(5, DType.INT32), DType.INT64), "int64(int32(5))"),
        (Cast(TRUE, DType.INT32), "int32(True)"),
        (Const(-0.0, DType.FLOAT32), "-0.0"),
        (Const(math.nan, DType.FLOAT64), "float64(nan)"),
        (Unary(UnaryOp.NEG, Const(5, DType.INT32)), "neg(5)"),
        (Binary(BinaryOp.POW, Const(-2, DType.INT32), Q_IDX), "(-2)**q_idx"),
        (Binary(BinaryOp.ADD, Const(1, DType.INT64), Const(2, DType.INT64)), "int64(1) + 2"),
    ],
)
def test_literals_tell_their_dtype_where_needed(expr: Expr, text: str) -> None:
    """A literal whose dtype nothing beside it tells is written with it."""
    assert format_expr(expr) == text
    assert parse_expr(text) is expr


def test_programs_write_shared_nodes_once() -> None:
    """Sixty doublings are sixty lines, not 2**60 operands."""
    expr: Expr = Q_IDX
    for _ in range(60):
        expr = Binary(BinaryOp.ADD, expr, expr)
    program = format_program(expr)
    assert program.splitlines()[:2] == ["x0 = q_idx + q_idx", "x1 = x0 + x0"]
    assert len(program.splitlines()) == 60
    assert parse_expr(program) is expr
    assert len(format_expr(expr, max_length=80)) == 80


@pytest.mark.parametrize("is_left", [True, False])
def test_deep_expressions_are_printed_and_read(is_left: bool) -> None:
    """Five thousand levels meet no recursion limit, on either side."""
    expr: Expr = Q_IDX
    for _ in range(5000):
        expr = Binary(BinaryOp.SUB, *((expr, KV_IDX) if is_left else (KV_IDX, expr)))
    assert parse_expr(format_program(expr)) is expr
    assert format_expr(expr, max_length=10**6).count(" - ") == 5000


def test_programs_declare_dtypes_and_lines() -> None:
    """What is read at run time is declared; lines of the source are comments."""
    expr = Binary(BinaryOp.MUL, Gather(0, (H_IDX,), DType.FLOAT64), Param(3, DType.FLOAT64))
    assert format_program(expr) == "p3: float64\nt0: float64\nt0[h] * p3"

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        distance = q - kv
        return s + distance * distance

    traced = trace_score(score, SlotTable(), with_locations=True)
    line = score.__code__.co_firstlineno
    assert format_program(traced.expr, traced.locations) == (
        f"x0 = q_idx - kv_idx  # {__file__}:{line + 1}\n"
        f"score + float32(x0 * x0)  # {__file__}:{line + 2}"
    )
    assert format_expr(traced.expr.children[0], traced.locations) == "score"
