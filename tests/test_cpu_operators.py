"""Each operator of the IR in a CPU kernel gives what the evaluator gives, on awkward operands."""

from __future__ import annotations

import math

import pytest
import torch
from cpu_kernels import load, run, spec_of

from attnc.evaluate import TORCH_DTYPES, evaluate
from attnc.ir import (
    B_IDX,
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
    SlotType,
    Unary,
    UnaryOp,
)
from attnc.lift import Lifted
from attnc.program import Program
from attnc.runtime.isa import best_isa

INTEGERS = [0, 1, -1, 2, 3, -3, 7, 31, 32, 63, 64, -64, 100, 65537, 2**31 - 1, -(2**31)]
FLOATS = [0.0, -0.0, 0.5, 1.0, -1.0, 1.5, 2.5, -2.5, 1e-3, 3.7, -3.7, 10.0, -20.0, 88.0, 89.5]
FLOATS += [-87.5, -103.0, -110.0, 1e-40, 1e10, -1e10, 3e38, math.inf, -math.inf, math.nan]
VALUES = {
    DType.BOOL: torch.tensor([True, False]),
    DType.INT32: torch.tensor(INTEGERS, dtype=torch.int32),
    DType.INT64: torch.tensor([*INTEGERS, 2**40 + 5, 2**63 - 1, -(2**63)]),
    DType.FLOAT32: torch.tensor(FLOATS, dtype=torch.float32),
    DType.FLOAT64: torch.tensor(FLOATS, dtype=torch.float64),
}
SLOTS = tuple(VALUES)
TENSORS = tuple(VALUES.values())
TYPES = tuple(SlotType(dtype.value, 1) for dtype in SLOTS)
INT_OPS = [op for op in BinaryOp if op is not BinaryOp.DIV]
FLOAT_OPS = [BinaryOp.ADD, BinaryOp.SUB, BinaryOp.MUL, BinaryOp.DIV, BinaryOp.FLOORDIV]
FLOAT_OPS += [BinaryOp.MOD, BinaryOp.POW, BinaryOp.MIN, BinaryOp.MAX]
BOOL_OPS = [BinaryOp.AND, BinaryOp.OR, BinaryOp.XOR]
FLOAT_UNARY = [op for op in UnaryOp if op is not UnaryOp.NOT]


def left(dtype: DType) -> Expr:
    """Operand number ``q_idx``; reading kv_idx, which is 0, makes it an element of a tile."""
    return Gather(SLOTS.index(dtype), (Binary(BinaryOp.ADD, Q_IDX, KV_IDX),), dtype)


def right(dtype: DType) -> Expr:
    """Operand number ``b``."""
    return Gather(SLOTS.index(dtype), (Binary(BinaryOp.ADD, B_IDX, KV_IDX),), dtype)


def expressions() -> list[Expr]:
    ints = (DType.INT32, DType.INT64)
    floats = (DType.FLOAT32, DType.FLOAT64)
    found: list[Expr] = []
    for dtypes, ops in ((ints, INT_OPS), (floats, FLOAT_OPS), ((DType.BOOL,), BOOL_OPS)):
        found += [Binary(op, left(t), right(t)) for t in dtypes for op in ops]
    for dtypes, unary in (
        (ints, (UnaryOp.NEG, UnaryOp.NOT, UnaryOp.ABS)),
        (floats, FLOAT_UNARY),
        ((DType.BOOL,), (UnaryOp.NOT,)),
    ):
        found += [Unary(op, left(t)) for t in dtypes for op in unary]
    found += [Compare(op, left(t), right(t)) for t in SLOTS[1:] for op in CompareOp]
    found += [Cast(left(t), to) for t in SLOTS for to in SLOTS if t is not to]
    for t in ints:
        for n in (3, 8, -3, 1, -1, 0, 100):
            for op in (BinaryOp.FLOORDIV, BinaryOp.MOD):
                found.append(Binary(op, left(t), Const(n, t)))
    found += [Binary(BinaryOp.POW, left(t), Const(2.0, t)) for t in floats]
    for t in floats:
        row = Gather(SLOTS.index(t), (Binary(BinaryOp.MOD, RowIndex(0), Const(6, DType.INT32)),), t)
        product = Binary(BinaryOp.MUL, row, left(t))
        found += [Reduce(op, 0, 5, product) for op in ReduceOp]
    found.append(
        Select(
            Compare(CompareOp.LT, left(DType.INT32), right(DType.INT32)),
            *[Cast(operand(DType.INT32), DType.FLOAT32) for operand in (left, right)],
        )
    )
    return found


def as_scores(expr: Expr) -> list[Expr]:
    """``expr`` in float64 without loss: int64 as three pieces of 22 bits."""
    if expr.dtype is not DType.INT64:
        return [Cast(expr, DType.FLOAT64) if expr.dtype is not DType.FLOAT64 else expr]
    pieces = []
    for shift in (0, 22, 44):
        shifted = Binary(BinaryOp.SHR, expr, Const(shift, DType.INT64))
        piece = Binary(BinaryOp.AND, shifted, Const(2**22 - 1, DType.INT64))
        pieces.append(Cast(piece, DType.FLOAT64))
    return pieces


def is_inexact_in_torch(expr: Binary, b: torch.Tensor, q_idx: torch.Tensor) -> torch.Tensor:
    """Where torch.fmod goes by an approximate quotient: huge ones, and subnormal divisors."""
    if expr.dtype.is_int:
        return torch.zeros((), dtype=torch.bool)
    coordinates = {"b": b, "h": 0, "q_idx": q_idx, "kv_idx": 0, "tensors": TENSORS}
    lhs, rhs = (evaluate(operand, **coordinates) for operand in (expr.lhs, expr.rhs))
    return ((lhs / rhs).abs() > 2.0**20) | (rhs.abs() < 2.0**-126)


@pytest.mark.parametrize(
    "isa", [best_isa(), *(pytest.param(isa, marks=pytest.mark.slow) for isa in ("avx2", "generic"))]
)
def test_operators_equal_the_evaluator(isa: str) -> None:
    """With a single key the row maximum is the score itself, for every pair of operands."""
    pairs = [(expr, score) for expr in expressions() for score in as_scores(expr)]
    programs = [
        Program(None, None, None, score, Lifted((None, score), (), ()), TYPES, TENSORS, {})
        for _, score in pairs
    ]
    n = max(len(values) for values in TENSORS)
    q, k, v = (torch.zeros(n, 1, rows, 1, dtype=torch.float64) for rows in (n, 1, 1))
    kernels = load([spec_of(p, dtype=torch.float64, head_dim=1, isa=isa) for p in programs])
    b, q_idx = torch.arange(n)[:, None], torch.arange(n)[None, :]

    for (expr, score), program, kernel in zip(pairs, programs, kernels, strict=True):
        actual = run(kernel, program, q, k, v).max_scores[:, 0]

        expected = evaluate(score, b=b, h=0, q_idx=q_idx, kv_idx=0, tensors=TENSORS)
        unit = 2.0**-23 if DType.FLOAT32 in (expr.dtype, *[c.dtype for c in expr.children]) else 0
        expected = expected.expand(n, n)
        if isinstance(expr, Binary) and expr.op in (BinaryOp.MOD, BinaryOp.FLOORDIV):
            expected = torch.where(is_inexact_in_torch(expr, b, q_idx), actual, expected)
        tolerance = 8 * max(unit, 2.0**-52) if expr.dtype.is_float else 0
        torch.testing.assert_close(
            actual,
            expected,
            rtol=tolerance,
            atol=2.0**-149 if tolerance else 0,
            equal_nan=True,
            msg=lambda text, expr=expr: f"{expr}: {text}",
        )


def test_tables_cover_every_operator() -> None:
    """Nothing that the IR can say is left out above."""
    used = {node.op for node in expressions() if hasattr(node, "op")}
    assert used == {*UnaryOp, *BinaryOp, *CompareOp, *ReduceOp}
    assert {TORCH_DTYPES[dtype] for dtype in SLOTS} == {x.dtype for x in TENSORS}
