"""Parts of a run that check less than the mask: there the mask is what they check."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import Any

import pytest
import torch
from cpu_kernels import spec_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from triton_kernels import assert_equals_oracle, qkv

from attnc.bounds import ClosedForm, solve
from attnc.evaluate import evaluate
from attnc.ir import Expr
from attnc.plan import make_plan
from attnc.plan.edges import Edges, edges_of
from attnc.printer import format_expr
from attnc.program import Program, build_program
from attnc.runtime.triton import is_interpreting
from attnc.target import GPU_TARGETS

BLOCK_M, BLOCK_N = 8, 4
CONDITIONS = {
    "causal": lambda n: lambda b, h, q, kv: q >= kv,
    "later": lambda n: lambda b, h, q, kv: kv > q + n,
    "window": lambda n: lambda b, h, q, kv: q - kv < n,
    "band": lambda n: lambda b, h, q, kv: (q - kv).abs() <= n,
    "before": lambda n: lambda b, h, q, kv: kv < 2 * n,
    "sink": lambda n: lambda b, h, q, kv: kv >= n // 2,
    "every": lambda n: lambda b, h, q, kv: (q - kv) % 3 == 0,
    "rows": lambda n: lambda b, h, q, kv: (q // 8 - kv // 8).abs() <= n // 8,
    "columns": lambda n: lambda b, h, q, kv: (q % 8 - kv % 8).abs() <= 2,
}


def mask_of(names: tuple[str, ...], size: int, sink: int) -> Any:
    conditions = [CONDITIONS[name](size) for name in names]

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        seen = reduce(lambda x, y: x & y, [c(b, h, q_idx, kv_idx) for c in conditions])
        return seen | ((q_idx >= kv_idx) & (kv_idx < sink)) if sink else seen

    return mask


def _end(bound: Any, q_block: int, lengths: tuple[int, int], params: Any, without: int) -> int:
    if bound is None:
        return without
    values = {"q_block": q_block, "n_queries": lengths[0], "n_keys": lengths[1]}
    values |= {f"p{number}": value for number, value in enumerate(params)}
    return int(bound.subs({s: values[s.name] for s in bound.free_symbols}))


def assert_parts_suffice(
    program: Program, closed: ClosedForm, edges: Edges, lengths: tuple[int, int]
) -> None:
    mask, params = program.lifted.exprs[0], program.lifted.values
    assert mask is not None

    def tile(expr: Expr | None, q_block: int, kv_block: int) -> torch.Tensor | None:
        if expr is None:
            return None
        rows = torch.arange(q_block * BLOCK_M, min((q_block + 1) * BLOCK_M, lengths[0]))
        columns = torch.arange(kv_block * BLOCK_N, (kv_block + 1) * BLOCK_N)
        grid = {"b": 0, "h": 0, "q_idx": rows[:, None], "kv_idx": columns}
        values = evaluate(expr, tensors=program.tensors, params=params, **grid)
        return values.expand(len(rows), BLOCK_N)

    n_whole = lengths[1] // BLOCK_N
    for q_block in range(-(-lengths[0] // BLOCK_M)):
        ends = [
            [_end(x, q_block, lengths, params, 0) for x in (run.start, run.stop)]
            for run in closed.runs
        ]
        cursor = max([0, *(stop for _, stop in ends[:-1])])
        start = max(ends[-1][0], cursor)
        stop = max(min(ends[-1][1], -(-lengths[1] // BLOCK_N)), start)
        low_stop = _end(edges.low_stop, q_block, lengths, params, start)
        high_start = _end(edges.high_start, q_block, lengths, params, stop)
        for kv_block in range(start, min(stop, n_whole)):
            has_lower, has_upper = kv_block >= low_stop, kv_block < high_start
            if has_lower and has_upper:
                checked = tile(edges.middle, q_block, kv_block)
                if checked is None:
                    checked = torch.ones(1, BLOCK_N, dtype=torch.bool)
            elif has_lower:
                checked = tile(edges.high, q_block, kv_block)
            else:
                checked = tile(edges.low, q_block, kv_block) if has_upper else None
            if checked is None:
                continue  # the whole mask
            expected = tile(mask, q_block, kv_block)
            assert expected is not None
            assert torch.equal(checked.expand(expected.shape), expected)


@settings(max_examples=20)
@example(("causal", "window"), 3, 0, (40, 40))
@example(("causal", "window"), 20, 6, (61, 61))
@example(("rows", "columns"), 16, 0, (64, 64))
@given(
    st.lists(st.sampled_from(sorted(CONDITIONS)), min_size=1, max_size=3, unique=True).map(tuple),
    st.integers(2, 40),
    st.sampled_from([0, 0, 5]),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_parts_check_enough(
    names: tuple[str, ...], size: int, sink: int, lengths: tuple[int, int]
) -> None:
    """In every tile of a part, what is left of the mask equals the mask."""
    program = build_program(mask_of(names, size, sink), None)
    mask = program.lifted.exprs[0]
    if mask is None:
        return
    closed = solve(mask, BLOCK_M, BLOCK_N)
    edges = None if closed is None else edges_of(mask, closed)
    if closed is not None and edges is not None:
        assert_parts_suffice(program, closed, edges, lengths)


WINDOWS = torch.tensor([9, 30], dtype=torch.int32)


@pytest.mark.parametrize(
    ("mask", "parts"),
    [
        (lambda b, h, q, kv: q >= kv, None),
        (
            lambda b, h, q, kv: (q >= kv) & (q - kv < 20),
            ("q_idx - kv_idx < p0", None, "q_idx >= kv_idx"),
        ),
        (
            lambda b, h, q, kv: (q - kv).abs() < 20,
            ("q_idx - kv_idx < p0", None, "q_idx - kv_idx > -p0"),
        ),
        (
            lambda b, h, q, kv: (q >= kv) & (q - kv < WINDOWS[h]),
            ("q_idx - kv_idx < t0[h]", None, "q_idx >= kv_idx"),
        ),
        (
            lambda b, h, q, kv: (q >= kv) & ((q - kv < 20) | (kv < 5)),
            ("q_idx - kv_idx < p0", None, "q_idx >= kv_idx"),
        ),
        (lambda b, h, q, kv: (q >= kv) & ((q - kv) % 3 == 0), (None, "(q_idx - kv_idx) % 3 == 0", None)),
    ],
    ids=["causal", "window", "band", "window_per_head", "sinks", "dilated"],
)  # fmt: skip
def test_conditions_that_hold_vanish(mask: Any, parts: Any) -> None:
    """Before the FULL tiles only lower limits are left, behind them only upper ones."""
    program = build_program(mask, None)
    lifted = program.lifted.exprs[0]
    assert lifted is not None
    closed = solve(lifted, BLOCK_M, BLOCK_N)
    assert closed is not None

    edges = edges_of(lifted, closed)

    if parts is None:
        assert edges is None
        return
    assert edges is not None
    found = (edges.low, edges.middle, edges.high)
    assert tuple(None if part is None else format_expr(part) for part in found) == parts


def test_the_plan_says_what_loops_check() -> None:
    """Each part of a run that checks less than the mask is a decision, with its reason."""
    program = build_program(lambda b, h, q, kv: (q >= kv) & (q - kv < 500), None)

    spec = spec_of(program, dtype=torch.bfloat16, head_dim=64)
    cpu, gpu = make_plan(spec), make_plan(replace(spec, target=GPU_TARGETS["sm_90"]))

    assert [d.what for d in gpu.decisions if "check" in d.what] == [
        "of a run of kv_idx, PARTIAL tiles before the FULL ones check `q_idx - kv_idx < p0`",
        "of a run of kv_idx, PARTIAL tiles after the FULL ones check `q_idx >= kv_idx`",
    ]
    assert [d.what for d in cpu.decisions if "check" in d.what] == [
        "of tiles of keys, only those before the FULL ones check `q_idx - kv_idx < p0`",
        "of tiles of keys, only those after them check `q_idx >= kv_idx`",
    ]


@pytest.mark.parametrize("names", [("causal", "window"), ("rows", "columns"), ("causal", "every")])
@pytest.mark.parametrize(("size", "sink"), [(2, 0), (40, 0), (130, 70)])
def test_kernels_with_parts_equal_the_oracle(
    names: tuple[str, ...], size: int, sink: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Narrow and wide windows, with sinks and without, in Triton's interpreter."""
    if not is_interpreting():
        pytest.skip("Triton compiles for the GPU here")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert_equals_oracle(*qkv(300, 300), mask=mask_of(names, size, sink))
