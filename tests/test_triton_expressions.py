"""Operations of the IR written in Triton mean what the evaluator says, at the edges too."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attnc.evaluate import TORCH_DTYPES, evaluate
from attnc.ir import (
    KV_IDX,
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
    Reduce,
    ReduceOp,
    RowIndex,
    Select,
    Unary,
    UnaryOp,
)
from attnc.render.triton import render_functions
from attnc.render.triton_expressions import TritonWriter
from attnc.runtime.triton import load_module

pytestmark = pytest.mark.usefixtures("interpreter")

X, Y = (lambda dtype, slot=slot: Gather(slot, (KV_IDX,), dtype) for slot in (0, 1))
INTS = (DType.INT32, DType.INT64)
FLOATS = (DType.FLOAT32, DType.FLOAT64)
EXACT = {
    UnaryOp.NEG, UnaryOp.NOT, UnaryOp.ABS, UnaryOp.FLOOR, UnaryOp.CEIL, UnaryOp.TRUNC,
    UnaryOp.ROUND, UnaryOp.SQRT, UnaryOp.ISNAN,
}  # fmt: skip
KERNEL = """
import triton
import triton.language as tl
{functions}

@triton.jit
def elementwise(out_ptr, t0_ptr, t0_size0, t0_stride0, t1_ptr, t1_size0, t1_stride0):
    BLOCK_N: tl.constexpr = 1024
    kv_idx = tl.arange(0, BLOCK_N)[None, :]
{lines}
    tl.store(out_ptr + kv_idx, {result}, mask=kv_idx < t0_size0)
"""


def triton_value(expr: Expr, x: torch.Tensor, y: torch.Tensor, folder: Path) -> torch.Tensor:
    """Value of ``expr`` over slots 0 and 1 at each kv_idx, by an interpreted kernel."""
    writer = TritonWriter(wide_index=False)
    lines: list[str] = []
    result = writer.expression(expr, "e", Level.COLUMN, lines)
    source = KERNEL.format(
        functions=render_functions(writer.functions),
        lines="\n".join(f"    {line}" for line in lines),
        result=result,
    )
    path = folder / "elementwise.py"
    path.write_text(source)
    out = torch.empty(len(x), dtype=TORCH_DTYPES[expr.dtype])
    stored = out.view(torch.uint8) if out.dtype is torch.bool else out
    x, y = (t.view(torch.uint8) if t.dtype is torch.bool else t for t in (x, y))
    with np.errstate(all="ignore"):
        function = load_module(path, folder.name).elementwise
        function[(1,)](stored, x, len(x), 1, y, len(y), 1)
    return out


def assert_same(expr: Expr, x: torch.Tensor, y: torch.Tensor, folder: Path, **close: Any) -> None:
    actual = triton_value(expr, x, y, folder)
    expected = evaluate(expr, b=0, h=0, q_idx=0, kv_idx=torch.arange(len(x)), tensors=(x, y))
    expected = expected.expand(actual.shape)
    tolerance = close or {"rtol": 0, "atol": 0}
    torch.testing.assert_close(actual, expected, equal_nan=True, **tolerance)


def pairs(values: list[Any], dtype: DType) -> tuple[torch.Tensor, torch.Tensor]:
    """Every pair of ``values``."""
    tensor = torch.tensor(values, dtype=TORCH_DTYPES[dtype])
    x, y = torch.meshgrid(tensor, tensor, indexing="ij")
    return x.reshape(-1).contiguous(), y.reshape(-1).contiguous()


def integers(dtype: DType) -> tuple[torch.Tensor, torch.Tensor]:
    info = torch.iinfo(TORCH_DTYPES[dtype])
    small = [0, 1, -1, 2, -2, 3, 7, -7, 8, 31, 32, -33, 63, 64, 100]
    return pairs([*small, info.min, info.min + 1, info.max], dtype)


def floats(dtype: DType) -> tuple[torch.Tensor, torch.Tensor]:
    values = [0.0, 0.3, -0.3, 0.5, -0.5, 1.0, -1.0, 1.5, 2.5, -2.5, 3.0, -7.0, 1e-6, 89.0, -89.0]
    return pairs([*values, 2.0**31, -(2.0**31), 1e20, math.inf, -math.inf, math.nan], dtype)


@pytest.mark.parametrize("dtype", INTS)
@pytest.mark.parametrize("op", [op for op in BinaryOp if op is not BinaryOp.DIV])
def test_integer_operators(op: BinaryOp, dtype: DType, tmp_path: Path) -> None:
    """Every operator on integers, for all pairs of edge values."""
    assert_same(Binary(op, X(dtype), Y(dtype)), *integers(dtype), tmp_path)


@pytest.mark.parametrize("divisor", [1, 2, 7, 16, -1, -3, 0])
@pytest.mark.parametrize("op", [BinaryOp.FLOORDIV, BinaryOp.MOD, BinaryOp.POW, BinaryOp.SHR])
def test_constant_right_operands(op: BinaryOp, divisor: int, tmp_path: Path) -> None:
    """The short forms for constants equal the general ones."""
    expr = Binary(op, X(DType.INT32), Const(divisor, DType.INT32))
    assert_same(expr, *integers(DType.INT32), tmp_path)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", list(BinaryOp)[:9])
def test_float_operators(op: BinaryOp, dtype: DType, tmp_path: Path) -> None:
    """Arithmetic of floats is exact, ** close; NaN wins min and max."""
    close = {"rtol": 4e-7 if dtype is DType.FLOAT32 else 1e-12, "atol": 0}
    tolerance = close if op is BinaryOp.POW else {}
    assert_same(Binary(op, X(dtype), Y(dtype)), *floats(dtype), tmp_path, **tolerance)


@pytest.mark.parametrize("exponent", [2.0, 3.0, 0.5, -0.5, -1.0, 1.0, 0.0, 1.7])
def test_constant_exponents(exponent: float, tmp_path: Path) -> None:
    """Powers that have a form of their own."""
    expr = Binary(BinaryOp.POW, X(DType.FLOAT32), Const(exponent, DType.FLOAT32))
    assert_same(expr, *floats(DType.FLOAT32), tmp_path, rtol=4e-7, atol=0)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", [op for op in UnaryOp if op is not UnaryOp.NOT])
def test_functions_of_floats(op: UnaryOp, dtype: DType, tmp_path: Path) -> None:
    """Elementary functions are close in relative terms, near 0 too; rounding is exact."""
    close = {"rtol": 1e-6 if dtype is DType.FLOAT32 else 1e-14, "atol": 0}
    tolerance = {} if op in EXACT else close
    assert_same(Unary(op, X(dtype)), *floats(dtype), tmp_path, **tolerance)


@pytest.mark.parametrize("dtype", [DType.BOOL, *INTS])
@pytest.mark.parametrize("op", [UnaryOp.NEG, UnaryOp.NOT, UnaryOp.ABS])
def test_functions_of_integers(op: UnaryOp, dtype: DType, tmp_path: Path) -> None:
    """Negation, complement and magnitude wrap; NOT of bool is logical."""
    if dtype is DType.BOOL and op is not UnaryOp.NOT:
        pytest.skip("bool has no sign")
    values = pairs([False, True], dtype) if dtype is DType.BOOL else integers(dtype)
    assert_same(Unary(op, X(dtype)), *values, tmp_path)


@pytest.mark.parametrize("op", list(CompareOp))
@pytest.mark.parametrize("dtype", [DType.BOOL, DType.INT64, DType.FLOAT32])
def test_comparisons(op: CompareOp, dtype: DType, tmp_path: Path) -> None:
    """False is less than true, and NaN is unequal to everything."""
    match dtype:
        case DType.BOOL:
            values = pairs([False, True], dtype)
        case DType.INT64:
            values = integers(dtype)
        case _:
            values = floats(dtype)
    assert_same(Compare(op, X(dtype), Y(dtype)), *values, tmp_path)


@pytest.mark.parametrize("op", [BinaryOp.AND, BinaryOp.OR, BinaryOp.XOR])
def test_logic(op: BinaryOp, tmp_path: Path) -> None:
    """Truth tables."""
    assert_same(
        Binary(op, X(DType.BOOL), Y(DType.BOOL)), *pairs([False, True], DType.BOOL), tmp_path
    )


@pytest.mark.parametrize("to", list(DType))
@pytest.mark.parametrize("source", list(DType))
def test_casts(source: DType, to: DType, tmp_path: Path) -> None:
    """Floats become integers by saturation and NaN 0; wide integers wrap."""
    match source:
        case DType.BOOL:
            values = pairs([False, True], source)
        case DType.INT32 | DType.INT64:
            values = integers(source)
        case _:
            values = floats(source)
    assert_same(Cast(X(source), to), *values, tmp_path)


@pytest.mark.parametrize("op", list(ReduceOp))
@pytest.mark.parametrize("dtype", [DType.INT32, DType.FLOAT32])
def test_reductions(op: ReduceOp, dtype: DType, tmp_path: Path) -> None:
    """A Reduce is a loop, also one inside another."""
    inner = Binary(BinaryOp.ADD, RowIndex(0), Binary(BinaryOp.MUL, RowIndex(1), KV_IDX))
    index = Binary(BinaryOp.MOD, inner, Const(17, DType.INT32))
    body = Reduce(op, 1, 3, Gather(0, (index,), dtype))
    x = torch.arange(17, dtype=TORCH_DTYPES[dtype]) * 3 - 20
    assert_same(Reduce(ReduceOp.SUM, 0, 4, body), x, x, tmp_path)


def test_constants_have_their_dtype(tmp_path: Path) -> None:
    """A choice of two constants is as exact as its dtype."""
    constants = (Const(0.1, DType.FLOAT64), Const(-1e300, DType.FLOAT64))
    expr = Select(Compare(CompareOp.GT, X(DType.INT32), Const(0, DType.INT32)), *constants)
    assert_same(expr, *integers(DType.INT32), tmp_path)


def test_deep_expressions_are_cut(tmp_path: Path) -> None:
    """An expression of hundreds of levels is written as several statements."""
    expr: Expr = X(DType.INT32)
    for level in range(400):
        expr = Binary((BinaryOp.ADD, BinaryOp.XOR)[level % 2], expr, Y(DType.INT32))
    assert_same(expr, *integers(DType.INT32), tmp_path)


def test_indices_wrap_once_and_are_clamped(tmp_path: Path) -> None:
    """A negative index counts from the end; what is then out of range is clamped."""
    table, index = torch.arange(7.0), torch.tensor([0, 6, 7, -1, -7, -8, 2**31 - 1, -(2**31)])
    expr = Gather(1, (Gather(0, (KV_IDX,), DType.INT32),), DType.FLOAT32)
    actual = triton_value(expr, index.to(torch.int32), table, tmp_path)
    assert actual.tolist() == [0, 6, 6, 6, 0, 0, 6, 0]
