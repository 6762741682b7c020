"""Loop bounds in closed form are sound for every parameter, and exact for the named masks."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiles_of_bounds import check_tiles

from attnc.bounds import print_bound, solve
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
    Param,
    Select,
    Unary,
    UnaryOp,
)

I32, I64, F32 = DType.INT32, DType.INT64, DType.FLOAT32
PREFIX = torch.tensor([70, 0, 200])
CAUSAL_ROWS = torch.tensor([True, False])
CHUNK = torch.tensor([24, -7], dtype=torch.int32)
REACH = torch.tensor([40.5, float("inf"), float("nan")])
TENSORS = (PREFIX, CAUSAL_ROWS, CHUNK, REACH)


def compare(op: str, x: Expr, y: Expr) -> Compare:
    return Compare(CompareOp(op), x, y)


def floordiv(x: Expr, c: int) -> Binary:
    return Binary(BinaryOp.FLOORDIV, x, Const(c, I32))


def minus(x: Expr, y: Expr) -> Binary:
    return Binary(BinaryOp.SUB, x, y)


def plus(x: Expr, y: Expr) -> Binary:
    return Binary(BinaryOp.ADD, x, y)


def every(*parts: Expr) -> Expr:
    result = parts[0]
    for part in parts[1:]:
        result = Binary(BinaryOp.AND, result, part)
    return result


def some(*parts: Expr) -> Expr:
    result = parts[0]
    for part in parts[1:]:
        result = Binary(BinaryOp.OR, result, part)
    return result


def no(x: Expr) -> Unary:
    return Unary(UnaryOp.NOT, x)


def mod(x: Expr, c: int) -> Binary:
    return Binary(BinaryOp.MOD, x, Const(c, I32))


def squared(x: Expr) -> Binary:
    return Binary(BinaryOp.MUL, x, x)


P = [Param(i, I32) for i in range(3)]
D = minus(Q_IDX, KV_IDX)
CAUSAL = compare(">=", Q_IDX, KV_IDX)
WINDOW = every(CAUSAL, compare("<", D, P[0]))
PREFIX_OF_B = compare("<", Cast(KV_IDX, I64), Gather(0, (B_IDX,), I64))

# Exact in EMPTY and FULL, but for a ragged last key block.
INTERVALS: dict[str, Expr] = {
    "no mask": TRUE,
    "nothing": FALSE,
    "causal": CAUSAL,
    "causal, written backwards": no(compare("<", Q_IDX, KV_IDX)),
    "causal, as a difference": compare("<=", minus(KV_IDX, Q_IDX), Const(0, I32)),
    "causal, either or equal": some(compare(">", Q_IDX, KV_IDX), compare("==", KV_IDX, Q_IDX)),
    "causal with an offset": compare(">=", plus(Q_IDX, P[0]), KV_IDX),
    "causal, offset on the keys": compare(">", Q_IDX, minus(KV_IDX, P[0])),
    "anti-causal": compare("<=", Q_IDX, KV_IDX),
    "sliding window": WINDOW,
    "window on both sides": compare("<=", Unary(UnaryOp.ABS, D), P[0]),
    "prefix": some(CAUSAL, compare("<", KV_IDX, P[0])),
    "prefix of a batch": some(CAUSAL, PREFIX_OF_B),
    "chunks": compare("==", floordiv(Q_IDX, 48), floordiv(KV_IDX, 48)),
    "chunks of a power of two": every(
        compare("==", *(Binary(BinaryOp.SHR, x, Const(6, I32)) for x in (Q_IDX, KV_IDX)))
    ),
    "causal chunks": every(compare("==", floordiv(Q_IDX, 48), floordiv(KV_IDX, 48)), CAUSAL),
    "causal blocks": compare(">=", floordiv(Q_IDX, 24), floordiv(KV_IDX, 24)),
    "keys below": compare("<", KV_IDX, P[0]),
    "keys from": compare(">=", KV_IDX, P[0]),
    "causal from": every(CAUSAL, compare(">=", KV_IDX, P[0])),
    "both directions joined": some(CAUSAL, no(CAUSAL)),
    "distance in periods": every(CAUSAL, compare("<", floordiv(D, 16), P[0])),
    "mode of a head": some(CAUSAL, no(Gather(1, (H_IDX,), DType.BOOL))),
}
# Exact in EMPTY; a tile that two intervals fill together may be PARTIAL.
UNIONS: dict[str, Expr] = {
    "global and window": some(WINDOW, compare("<", KV_IDX, P[1])),
    "global rows and window": some(WINDOW, compare("<", Q_IDX, P[1])),
    "outside a window": no(WINDOW),
    "other keys": compare("!=", KV_IDX, Q_IDX),
}
ATOMS: list[Expr] = [
    *INTERVALS.values(),
    *UNIONS.values(),
    compare("<", Q_IDX, P[2]),
    compare("==", KV_IDX, P[1]),
    compare("<", floordiv(minus(KV_IDX, Q_IDX), -7), P[2]),
    compare(">=", Binary(BinaryOp.MAX, KV_IDX, Q_IDX), P[1]),
    compare("<=", Binary(BinaryOp.MIN, minus(Q_IDX, KV_IDX), P[2]), P[1]),
    compare("<", Binary(BinaryOp.MUL, KV_IDX, Const(3, I32)), plus(Q_IDX, P[2])),
    compare(">", KV_IDX, Unary(UnaryOp.ABS, minus(Q_IDX, P[1]))),
    every(WINDOW, compare("<", Q_IDX, P[1])),
    every(WINDOW, compare(">=", minus(Q_IDX, P[2]), Const(0, I32))),
    compare("==", mod(D, 4), Const(1, I32)),
    compare("==", mod(minus(KV_IDX, P[1]), 6), mod(Q_IDX, 3)),
    compare("<", mod(KV_IDX, 8), P[2]),
    compare("<=", mod(Q_IDX, 40), KV_IDX),
    compare(">", mod(plus(Q_IDX, P[0]), 24), minus(KV_IDX, P[1])),
    compare("<", mod(floordiv(Q_IDX, 32), 2), Const(1, I32)),
    compare("<", squared(D), P[0]),
    compare(">=", plus(squared(minus(floordiv(Q_IDX, 8), floordiv(KV_IDX, 8))), mod(D, 8)), P[1]),
    compare("<", Select(compare("<", Q_IDX, P[1]), plus(KV_IDX, P[2]), floordiv(KV_IDX, 3)), Q_IDX),
    compare(">=", Select(compare(">", KV_IDX, P[0]), Q_IDX, P[1]), KV_IDX),
    compare(
        "==", *(Binary(BinaryOp.FLOORDIV, x, Gather(2, (H_IDX,), I32)) for x in (Q_IDX, KV_IDX))
    ),
    compare("<", Cast(D, F32), Gather(3, (B_IDX,), F32)),
    compare("<", Binary(BinaryOp.MIN, Binary(BinaryOp.MAX, KV_IDX, P[0]), P[1]), Q_IDX),
]


parameters = st.lists(
    st.one_of(st.integers(-40, 260), st.sampled_from([0, 1, -1, 16, 64])), min_size=3, max_size=3
)
lengths = st.tuples(*[st.one_of(st.sampled_from([0, 1, 96, 128]), st.integers(0, 200))] * 2)
blocks = st.tuples(*[st.sampled_from([16, 32, 48, 64])] * 2)


@pytest.mark.parametrize("name", [*INTERVALS, *UNIONS])
def test_named_masks_have_exact_bounds(name: str) -> None:
    """The named masks have a closed form that tells EMPTY and FULL tiles exactly."""
    mask = {**INTERVALS, **UNIONS}[name]
    forms = {(m, n): solve(mask, m, n) for m, n in [(16, 16), (64, 32), (32, 48)]}

    @settings(max_examples=25, deadline=None)
    @given(st.sampled_from(list(forms)), parameters, lengths)
    def law(block: tuple[int, int], params: list[int], sizes: tuple[int, int]) -> None:
        form = forms[block]
        assert form is not None
        check_tiles(
            form, mask, sizes, params, TENSORS, exact_empty=True, exact_full=name in INTERVALS
        )

    law()


@given(parameters, lengths)
def test_one_of_two_conditions_that_repeat_is_kept(
    params: list[int], sizes: tuple[int, int]
) -> None:
    """Both cover the same keys, so each may stand for the other; the keys stay visible."""
    remainders = (compare("!=", mod(KV_IDX, c), mod(Q_IDX, c)) for c in (4, 8))
    mask = every(CAUSAL, some(*remainders))
    form = solve(mask, 64, 64)
    assert form is not None

    check_tiles(form, mask, sizes, params, TENSORS, exact_empty=False, exact_full=False)


def combined(max_leaves: int) -> st.SearchStrategy[Expr]:
    return st.recursive(
        st.sampled_from(ATOMS),
        lambda inner: st.one_of(
            st.builds(Binary, st.sampled_from([BinaryOp.AND, BinaryOp.OR]), inner, inner),
            st.builds(no, inner),
        ),
        max_leaves=max_leaves,
    )


@pytest.mark.parametrize("n_examples", [150, pytest.param(2500, marks=pytest.mark.slow)])
def test_bounds_are_sound_for_combined_masks(n_examples: int) -> None:
    """Whatever has a closed form skips no visible pair and calls no hidden pair FULL."""

    @settings(max_examples=n_examples, deadline=None)
    @given(combined(4), blocks, parameters, lengths)
    def law(mask: Expr, block: tuple[int, int], params: list[int], sizes: tuple[int, int]) -> None:
        form = solve(mask, *block)
        if form is not None:
            check_tiles(form, mask, sizes, params, TENSORS, exact_empty=False, exact_full=False)

    law()


@pytest.mark.parametrize(
    "mask",
    [
        compare("==", Gather(0, (Q_IDX,), I64), Gather(0, (KV_IDX,), I64)),
        compare("==", Binary(BinaryOp.MOD, D, Const(65, I32)), Const(0, I32)),
        compare("<", Binary(BinaryOp.MUL, D, Q_IDX), P[0]),
    ],
)
def test_masks_that_are_no_intervals_have_no_closed_form(mask: Expr) -> None:
    """Documents, dilation beyond a tile and products need the table."""
    assert solve(mask, 64, 64) is None


def test_masks_of_many_choices_are_given_up_on() -> None:
    """Work is bounded: a comparison of a sum of choices has a case for each combination of them,
    too many here although each is an interval."""
    distance = KV_IDX
    for number in range(10):
        choice = Select(compare("<", KV_IDX, Const(number, I32)), KV_IDX, Q_IDX)
        distance = plus(distance, choice)

    assert solve(compare("<", distance, P[0]), 64, 64) is None


def test_intervals_print_as_people_write_them() -> None:
    """Queries that an interval is for, and what is only some of the keys in it, are said."""
    dilated = every(WINDOW, compare("==", Binary(BinaryOp.MOD, D, Const(4, I32)), Const(0, I32)))
    early = every(WINDOW, compare("<", Q_IDX, P[1]))
    low = "Max(0, q_idx - 4*floor(p0/4 + 3/4) + 4)"
    forms = [solve(mask, 64, 64) for mask in (dilated, early, some(CAUSAL, early))]

    assert [[str(i) for i in form.tokens] for form in forms if form is not None] == [
        [f"{low} <= kv_idx < Min(n_keys, q_idx + 1), of which some, repeating after 4"],
        ["Max(0, -p0 + q_idx + 1) <= kv_idx < Min(n_keys, q_idx + 1) where q_idx <= p1 - 1"],
        ["0 <= kv_idx < Min(n_keys, q_idx + 1)"],
    ]


def test_causal_prints_short() -> None:
    """With equal tiles a causal row is full before its own block and partial there."""
    form = solve(CAUSAL, 64, 64)
    assert form is not None
    (run,) = form.runs

    assert [print_bound(e, "cpp") for e in (run.start, run.full_start)] == ["0", "0"]
    assert [print_bound(e, "triton") for e in (run.full_stop, run.stop)] == [
        "q_block",
        "q_block + 1",
    ]
    assert [print_bound(e, "math") for e in (form.tokens[0].start, form.tokens[0].stop)] == [
        "0",
        "Min(n_keys, q_idx + 1)",
    ]


def floor_div(a: int, b: int) -> int:
    return a // b


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(ATOMS), blocks, parameters, lengths, st.integers(0, 3))
def test_printed_bounds_have_the_value_of_the_expression(
    mask: Expr, block: tuple[int, int], params: list[int], sizes: tuple[int, int], q_block: int
) -> None:
    """The source text of a run, computed with integers, gives what ``evaluate`` gives."""
    from sympy import Integer

    form = solve(mask, *block)
    if form is None or form.uniforms:
        return
    names = {f"p{i}": value for i, value in enumerate(params)}
    names |= {"q_block": q_block, "n_queries": sizes[0], "n_keys": sizes[1]}
    helpers = {"floor_div": floor_div, "imax": max, "imin": min}
    for run in form.runs:
        for bound in (run.start, run.full_start, run.full_stop, run.stop):
            value = eval(print_bound(bound, "cpp"), {**helpers, **names})
            assert value == int(
                bound.xreplace({s: Integer(names[s.name]) for s in bound.free_symbols})
            )


def test_sympy_is_imported_only_to_solve() -> None:
    """Importing the module does not import sympy, which takes longer than a whole kernel call."""
    code = (
        "import sys; from attnc import ir; import attnc.bounds as b; assert 'sympy' not in "
        "sys.modules; b.solve(ir.TRUE, 64, 64); assert 'sympy' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
