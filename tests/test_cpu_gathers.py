"""What CPU kernels read from captured tensors per pair, and add to their gradients, is what the
evaluator says, whatever the index map, the tensor's strides and its dtype."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

import pytest
import torch
from cpu_kernels import load, program_of, run, run_backward, spec_of
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from attnc.evaluate import evaluate
from attnc.gathers import run_of
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
    Score,
    SlotType,
)
from attnc.lift import Lifted
from attnc.plan import Wanted, make_plan
from attnc.program import Program
from attnc.render.cpp import render
from attnc.runtime.dispatch import needs_wide_index
from attnc.runtime.isa import runnable_isas

N_BATCH, N_HEADS, N_QUERIES, N_KEYS = 2, 2, 70, 140
LOAD_DTYPES = {"int64": DType.INT64, "bool": DType.BOOL, "int32": DType.INT32, "uint8": DType.INT32}
FLOATS = ("float32", "bfloat16", "float16")
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
# Backward kernels know no tiles of AMX.
ISAS = [isa for isa in runnable_isas() if isa != "amx"]


def binary(op: BinaryOp, lhs: Expr, rhs: Expr | int) -> Expr:
    return Binary(op, lhs, Const(rhs, lhs.dtype) if isinstance(rhs, int) else rhs)


add, sub, mul = (functools.partial(binary, op) for op in (BinaryOp.ADD, BinaryOp.SUB, BinaryOp.MUL))
PAIR = (Q_IDX, KV_IDX)
WIDE_KEY = Cast(KV_IDX, DType.INT64)
MAPS: dict[str, Expr] = {
    "b": B_IDX,
    "h": H_IDX,
    "q": Q_IDX,
    "q * 3 - 60": sub(mul(Q_IDX, 3), 60),
    "kv": KV_IDX,
    "kv + 3": add(KV_IDX, 3),
    "139 - kv": sub(Const(139, DType.INT32), KV_IDX),
    "kv * 2 - q": sub(mul(KV_IDX, 2), Q_IDX),
    "q + kv": add(Q_IDX, KV_IDX),
    "kv - q": sub(KV_IDX, Q_IDX),
    "kv * q": mul(KV_IDX, Q_IDX),
    "kv + 2**31 - 50": add(KV_IDX, 2**31 - 50),
    "kv * 2**31": mul(KV_IDX, -(2**31)),
    "kv * 65537**2": mul(mul(KV_IDX, 65537), 65537),
    "narrow[q, kv]": Gather(1, PAIR, DType.INT32),
    "wide[q, kv]": Gather(2, PAIR, DType.INT64),
    "wide[kv, q] // 2": binary(BinaryOp.FLOORDIV, Gather(2, PAIR[::-1], DType.INT64), 2),
    "far[h] + kv": add(Gather(3, (H_IDX,), DType.INT64), WIDE_KEY),
    "kv.long() * 2": mul(WIDE_KEY, 2),
    "(kv + 1).long()": Cast(add(KV_IDX, 1), DType.INT64),
}
RUNS = {"kv": 1, "kv + 3": 1, "139 - kv": -1, "kv * 2 - q": 2, "q + kv": 1, "kv - q": 1}
RUNS |= {"kv + 2**31 - 50": 1, "far[h] + kv": 1, "kv.long() * 2": 2, "(kv + 1).long()": 1}
MASKS: dict[str, Expr | None] = {
    "none": None,
    "causal": Compare(CompareOp.LE, KV_IDX, add(Q_IDX, 30)),
    "read": Compare(CompareOp.LT, Gather(2, PAIR, DType.INT64), Const(20, DType.INT64)),
}
LAYOUTS = ("contiguous", "transposed", "expanded", "sliced")


@dataclass(frozen=True)
class Read:
    """One captured tensor that is read, and how."""

    storage: str
    maps: tuple[str, ...]
    sizes: tuple[int, ...]
    layout: str = "contiguous"
    mask: str = "none"
    wide_index: bool = False

    def program(self) -> Program:
        dtype = LOAD_DTYPES.get(self.storage, DType.FLOAT32)
        value: Expr = Gather(0, tuple(MAPS[name] for name in self.maps), dtype)
        if dtype is not DType.FLOAT32:
            value = Cast(value, DType.FLOAT32)
        score = add(Score(DType.FLOAT32), Binary(BinaryOp.MUL, value, Const(0.125, DType.FLOAT32)))
        mask = MASKS[self.mask]
        tensors = (self.tensor(), *index_tensors())
        types = tuple(SlotType(str(x.dtype).removeprefix("torch."), x.dim()) for x in tensors)
        return Program(None, None, mask, score, Lifted((mask, score), (), ()), types, tensors, {})

    def tensor(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(7)
        match self.layout:
            case "transposed":
                shape = self.sizes[::-1]
            case "expanded":
                shape = (1, *self.sizes[1:])
            case "sliced":
                shape = tuple(2 * size for size in self.sizes)
            case _:
                shape = self.sizes
        dtype = getattr(torch, self.storage)
        values = torch.randint(0, 9, shape, generator=generator)
        if dtype.is_floating_point:
            values = torch.rand(shape, generator=generator) * 16 - 8
        values = values > 4 if dtype is torch.bool else values.to(dtype)
        match self.layout:
            case "transposed":
                return values.permute(*reversed(range(len(shape))))
            case "expanded":
                return values.expand(self.sizes)
            case "sliced":
                return values[tuple(slice(1, None, 2) for _ in shape)]
            case _:
                return values


@functools.cache
def index_tensors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    narrow, wide = (torch.randint(-50, 50, (N_KEYS, N_KEYS), generator=generator) for _ in range(2))
    wide[::7, ::5] = 2**40 + 3
    wide[::6, 1::5] = -(2**40)
    return narrow.int(), wide, torch.tensor([-3, 2**33])


def reads() -> st.SearchStrategy[Read]:
    def of_rank(rank: int) -> st.SearchStrategy[Read]:
        maps = st.tuples(
            *[st.sampled_from(list(MAPS))] * (rank - 1), st.sampled_from(list(MAPS)[4:])
        )
        return st.builds(
            Read,
            st.sampled_from([*FLOATS, *LOAD_DTYPES, "float32"]),
            maps,
            st.tuples(*[st.sampled_from((1, 2, 7, 64, 140, 300))] * rank),
            st.sampled_from(LAYOUTS),
            st.sampled_from(list(MASKS)),
            st.booleans(),
        )

    return st.integers(1, 3).flatmap(of_rank)


USUAL = [
    Read("float32", ("h", "q", "kv"), (2, 70, 140)),
    Read("float32", ("h", "q", "kv"), (2, 70, 139), mask="causal"),
    Read("bfloat16", ("h", "kv", "q"), (2, 140, 70), "transposed", "read"),
    Read("float32", ("narrow[q, kv]", "h"), (20, 2), wide_index=True),
    Read("float16", ("q", "139 - kv"), (64, 140), "expanded"),
    Read("float32", ("q", "kv + 2**31 - 50"), (70, 300)),
    Read("float32", ("wide[q, kv]", "wide[kv, q] // 2"), (7, 140), "sliced", "causal"),
]


@settings(max_examples=2, phases=PHASES)
@given(st.lists(reads(), min_size=8, max_size=8), st.sampled_from(ISAS))
@example(USUAL, ISAS[0])
def test_reads_and_their_gradients_equal_the_evaluator(unit: list[Read], isa: str) -> None:
    """Indices wrap once and are clamped; what several pairs read gets the sum of their gradients,
    the same bits in every run."""
    assert_unit_equals_the_evaluator(unit, isa)


@pytest.mark.slow
@settings(max_examples=8, phases=PHASES)
@given(st.lists(reads(), min_size=16, max_size=16), st.sampled_from(ISAS))
def test_many_reads_and_their_gradients_equal_the_evaluator(unit: list[Read], isa: str) -> None:
    """The same for 320 of them."""
    assert_unit_equals_the_evaluator(unit, isa)


def assert_unit_equals_the_evaluator(unit: list[Read], isa: str) -> None:
    programs = [read.program() for read in unit]
    wanted = [Wanted(True, True, True, (0,) if r.storage in FLOATS else ()) for r in unit]
    specs = [
        spec_of(program, value_dim=N_KEYS, isa=isa, wide_index=read.wide_index, gradients=gradients)
        for read, program, both in zip(unit, programs, wanted, strict=True)
        for gradients in (None, both)
    ]
    kernels = load(specs)
    shape = (N_BATCH, N_HEADS)
    q, k = torch.zeros(*shape, N_QUERIES, 16), torch.zeros(*shape, N_KEYS, 16)
    # Outputs are then the weights of all pairs.
    v = torch.eye(N_KEYS).expand(*shape, -1, -1)
    generator = torch.Generator().manual_seed(0)
    grad_out = torch.randn(*shape, N_QUERIES, N_KEYS, generator=generator)
    for number, (read, program) in enumerate(zip(unit, programs, strict=True)):
        forward, backward = kernels[2 * number : 2 * number + 2]

        result = run(forward, program, q, k, v)
        captured = wanted[number].captured
        once, again = (
            run_backward(backward, program, q, k, v, result, grad_out, None, captured)[3:]
            for _ in range(2)
        )

        weights = expected_weights(program)
        torch.testing.assert_close(
            result.out.double(), weights, rtol=1e-5, atol=1e-7, msg=lambda m, r=read: f"{r}: {m}"
        )
        for found, same in zip(once, again, strict=True):
            assert torch.equal(found, same), f"{read}: other bits in the second run"
            expected, size = expected_gradient(read, weights, grad_out.double())
            excess = (found.double() - expected).abs() - 1e-5 * size
            assert excess.max() <= 1e-30, f"{read}: gradient is off by {excess.max():.3g}"


def coordinates() -> dict[str, torch.Tensor]:
    sizes = (N_BATCH, N_HEADS, N_QUERIES, N_KEYS)
    grids = torch.meshgrid(*[torch.arange(n, dtype=torch.int32) for n in sizes], indexing="ij")
    return dict(zip(("b", "h", "q_idx", "kv_idx"), grids, strict=True))


def expected_weights(program: Program) -> torch.Tensor:
    where = {**coordinates(), "tensors": program.tensors}
    assert program.score is not None
    score = evaluate(program.score, score=torch.zeros(()), **where).double()
    if program.mask is not None:
        score = score.masked_fill(~evaluate(program.mask, **where), -torch.inf)
    return score.softmax(dim=3).nan_to_num(0.0)


def expected_gradient(
    read: Read, weights: torch.Tensor, grad_out: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the tensor, and the largest sum of absolute values that went into an element."""
    tensors = (read.tensor(), *index_tensors())
    place = torch.zeros(weights.shape, dtype=torch.int64)
    for name, size in zip(read.maps, read.sizes, strict=True):
        index = evaluate(MAPS[name], **coordinates(), tensors=tensors).to(torch.int64)
        index = torch.where(index < 0, index + size, index).clamp(0, size - 1)
        place = place * size + index
    centred = grad_out - (weights * grad_out).sum(dim=3, keepdim=True)
    parts = (0.125 * weights * centred).flatten()
    total = torch.zeros(read.tensor().numel(), dtype=torch.float64)
    sizes = total.index_add(0, place.flatten(), parts.abs())
    return total.index_add(0, place.flatten(), parts).reshape(read.sizes), sizes.max()


@pytest.mark.parametrize("name", MAPS)
def test_runs_are_sums_of_multiples_of_the_key(name: str) -> None:
    """Those whose slope the table states; no other map is taken for a run."""
    slope = RUNS.get(name)
    assert run_of((Q_IDX, MAPS[name])) == (None if slope is None else (0, slope))


def test_run_of_a_slope_beyond_32_bits_is_none() -> None:
    """Its ends would overflow where they are compared with the size."""
    wide = mul(WIDE_KEY, 2**31)
    assert run_of((wide,)) is None
    assert run_of((mul(WIDE_KEY, 2**31 - 1),)) == (2**31 - 1,)


BIAS = torch.zeros(2, 8, 8)
TABLE, ROWS = torch.zeros(8, 2), torch.zeros(8, 8, dtype=torch.int64)


def source_of(score: object, **options: object) -> tuple[str, list[str]]:
    plan = make_plan(spec_of(program_of(None, score), **options))
    return render(plan), [decision.what for decision in plan.decisions]


def test_plan_says_how_elements_are_read_and_summed() -> None:
    """A run is read and added row by row, other maps at offsets found before, with the reason."""
    wanted = Wanted(True, True, True, (0,))
    source, decisions = source_of(lambda s, b, h, q, kv: s + BIAS[h, q, kv], gradients=wanted)
    assert "gradient of captured tensor 0: whole rows of a tile are added" in decisions
    assert any("row at a time" in what for what in decisions)
    assert "add_run<" in source.split("namespace attnc {")[1]

    source, decisions = source_of(
        lambda s, b, h, q, kv: s + TABLE[ROWS[q, kv], h], gradients=Wanted(True, True, True, (0,))
    )
    assert any("at offsets found before" in what for what in decisions)
    kernel = source.split("namespace attnc {")[1]
    assert "add_run<" not in kernel
    assert re.search(r"op::place32\(", kernel)


def test_offsets_are_64_bits_wide_only_where_a_tensor_needs_it() -> None:
    """In all arithmetic per element."""
    kernel = source_of(lambda s, b, h, q, kv: s + TABLE[ROWS[q, kv], h], wide_index=True)[0]
    assert "place32" not in kernel.split("namespace attnc {")[1]


def test_width_of_offsets_counts_gradients_and_ignores_queries_on_cpus() -> None:
    """An expanded tensor spans little, but its gradient is contiguous."""
    expanded = torch.zeros(1).expand(2**16, 2**16)
    small = torch.zeros(4)
    assert needs_wide_index("cpu", [small, expanded])
    assert not needs_wide_index("cpu", [small], expanded)
    assert needs_wide_index("triton", [small], expanded)
