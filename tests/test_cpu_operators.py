"""Each operator of the IR in a CPU kernel gives what the evaluator gives, on awkward operands."""

from __future__ import annotations

import ctypes
import functools
import math
import operator
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cpu_kernels import load, program_of, run, spec_of

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
from attnc.plan import make_plan
from attnc.program import Program
from attnc.render.cpp import render
from attnc.runtime.build import COMMON_FLAGS, compile_library, find_compiler
from attnc.runtime.isa import ISA_FLAGS, best_isa, runnable_isas
from attnc.target import CpuIsa

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


def stated_errors() -> dict[str, float]:
    """The table of docs/semantics.md: the largest error of each function, in ulp."""
    text = (Path(__file__).parents[1] / "docs" / "semantics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", text, re.MULTILINE)
    return {name: float(ulp) for name, ulp in rows}


UNARY = sorted(stated_errors().keys() - {"pow"})
FAST_ISAS = [isa for isa in runnable_isas() if isa in ("avx512", "avx2")]


def every_function(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    values = [getattr(torch, name)(score) for name in UNARY]
    return functools.reduce(operator.add, [*values, score**score])


@functools.cache
def loops_of(isa: CpuIsa, folder: Path) -> Path:
    """Source with a loop over each function, such as ``exp_loop(x, y, n)``."""
    plan = make_plan(spec_of(program_of(None, every_function), isa=isa))
    loops = [
        f"void {name}_loop(const float* __restrict x, float* __restrict y, int64_t n) {{\n"
        f"  for (int64_t j = 0; j < n; ++j) y[j] = op::{name}(x[j]);\n}}"
        for name in UNARY
    ]
    # As in a decay by distance, one base for all, one exponent for all, and neither.
    for name, a, b in (("pow", "x[j]", "z[j]"), ("base", "a", "z[j]"), ("exponent", "x[j]", "b")):
        loops.append(
            f"void {name}_loop(const float* __restrict x, const float* __restrict z, "
            f"float* __restrict y, int64_t n) {{\n  const float a = x[0], b = z[0];\n"
            f"  for (int64_t j = 0; j < n; ++j) y[j] = op::pow({a}, {b});\n}}"
        )
    source = folder / f"{isa}.cpp"
    source.write_text(render(plan) + 'extern "C" {\n' + "\n".join(loops) + "\n}\n")
    return source


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loops")


def library_of(isa: CpuIsa, folder: Path) -> ctypes.CDLL:
    library = folder / f"{isa}.so"
    if not library.exists():
        flags = ("-O3", *COMMON_FLAGS, *ISA_FLAGS[isa])
        compile_library(find_compiler(), loops_of(isa, folder), library, flags)
    return ctypes.CDLL(str(library))


def called(library: ctypes.CDLL, name: str, *inputs: np.ndarray) -> np.ndarray:
    result = np.empty_like(inputs[0])
    addresses = [ctypes.c_void_p(array.ctypes.data) for array in (*inputs, result)]
    library[f"{name}_loop"](*addresses, ctypes.c_int64(len(result)))
    return result


def errors_in_ulp(actual: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Distance from ``exact`` (float64) in steps of float32 there; inf counts as 2^128."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float32)
        limit = np.clip(exact, -(2.0**128), 2.0**128)
        ulp = np.ldexp(1.0, np.maximum(np.frexp(limit)[1] - 24, -149))
        error = np.abs(np.clip(actual.astype(np.float64), -(2.0**128), 2.0**128) - limit) / ulp
    same = (actual == rounded) & (np.signbit(actual) == np.signbit(rounded))
    error = np.where(same & ~np.isfinite(rounded), 0, error)
    # A zero that is one exactly has the right sign.
    error = np.where((exact == 0) & ~same, np.inf, error)
    return np.where(np.isnan(actual) | np.isnan(exact), 0, error) + np.where(
        np.isnan(actual) != np.isnan(exact), np.inf, 0
    )


SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 2.0**-126, 3.4028235e38]
SPECIAL += [-3.4028235e38, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5, 1.5, 4.0, 8.0, 88.72284]
SPECIAL += [16777215.0, -16777215.0, 8388607.5, -8388607.5, 0.99999994, 1.0000001, -149.0, -87.5]


@pytest.mark.parametrize("isa", FAST_ISAS)
@pytest.mark.parametrize("name", UNARY)
def test_functions_err_by_no_more_than_stated(name: str, isa: CpuIsa, folder: Path) -> None:
    """Over all of float32, every 1999th number, and in the awkward ones, against float64."""
    every = np.arange(0, 2**32, 1999, dtype=np.uint32).view(np.float32)
    x = np.concatenate([every, np.float32(SPECIAL)])

    actual = called(library_of(isa, folder), name, x)

    exact = getattr(torch, name)(torch.from_numpy(x).double()).numpy()
    error = errors_in_ulp(actual, exact)
    worst = np.argmax(error)
    assert error[worst] <= stated_errors()[name], f"{name}({x[worst]!r}) is {actual[worst]!r}"


@pytest.mark.parametrize("isa", FAST_ISAS)
def test_powers_err_by_no_more_than_stated(isa: CpuIsa, folder: Path) -> None:
    """For any two numbers, for results in range, near a base of 1, and for whole exponents."""
    random = np.random.default_rng(0)
    n = 200_000
    any_two = random.integers(0, 2**32, (2, n), dtype=np.uint32).view(np.float32)
    base = np.exp2(random.uniform(-126, 127, n))
    in_range = np.stack([base, random.uniform(-149, 128, n) / np.log2(base)]).astype(np.float32)
    near_1 = np.stack([random.uniform(0.99, 1.01, n), random.uniform(-9e3, 9e3, n)])
    whole = np.stack([random.uniform(-4, 4, n), random.integers(-30, 30, n)])
    special = np.stack(np.meshgrid(SPECIAL, SPECIAL)).reshape(2, -1)
    parts = [part.astype(np.float32) for part in (any_two, in_range, near_1, whole, special)]
    x, z = np.ascontiguousarray(np.concatenate(parts, axis=1))

    actual = called(library_of(isa, folder), "pow", x, z)

    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.float64), z.astype(np.float64))
    error = errors_in_ulp(actual, exact)
    worst = np.argmax(error)
    assert error[worst] <= stated_errors()["pow"], (
        f"{x[worst]!r} ** {z[worst]!r}: {actual[worst]!r}"
    )


@pytest.mark.parametrize("isa", FAST_ISAS)
def test_loops_over_functions_are_vector_code(isa: CpuIsa, folder: Path) -> None:
    """Each loop works in whole vector registers and calls nothing."""
    assembly = folder / f"{isa}.s"
    flags = ("-O3", "-S", *COMMON_FLAGS, *ISA_FLAGS[isa])
    compile_library(find_compiler(), loops_of(isa, folder), assembly, flags)
    text = assembly.read_text()
    for name in (*UNARY, "pow", "base", "exponent"):
        body = text.split(f"\n{name}_loop:")[1].split(f"{name}_loop, .-")[0]
        assert not re.search(r"\bcall", body), f"{name} calls"
        assert re.search("%zmm" if isa == "avx512" else "%ymm", body), name


@pytest.mark.parametrize("isa", FAST_ISAS)
def test_functions_are_exact_where_bucketing_needs_it(isa: CpuIsa, folder: Path) -> None:
    """Logarithms of powers of 2, and the ends of tanh and erf."""
    library = library_of(isa, folder)
    exponents = np.arange(-149, 128)
    powers = np.ldexp(np.float32(1), exponents)
    ends = np.float32([20, 100, math.inf])

    np.testing.assert_array_equal(called(library, "log2", powers), exponents)
    np.testing.assert_array_equal(
        called(library, "log", powers), np.log(powers.astype(np.float64)).astype(np.float32)
    )
    for name in ("tanh", "erf"):
        np.testing.assert_array_equal(called(library, name, ends), 1)
        np.testing.assert_array_equal(called(library, name, -ends), -1)
        every = np.arange(0, 2**32, 9973, dtype=np.uint32).view(np.float32)
        values = called(library, name, every)
        assert not (np.abs(values) > 1).any()
        np.testing.assert_array_equal(called(library, name, -every), -values)
