"""``Analysis.cost``: exact counts of tiles, operations and bytes; seconds from measured rates."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attnc
from attnc.analysis import analyze
from attnc.cost import Problem, cost_of, rates, rates_of
from attnc.cost.calibrate import _non_negative_fit
from attnc.cost.pairs import pairs_of
from attnc.cost.work import Sizes, work_of
from attnc.errors import AnalysisArgumentError
from attnc.plan import make_plan
from attnc.program import build_program
from attnc.runtime.isa import best_isa
from attnc.stages import Inspection
from attnc.target import GPU_TARGETS, CpuTarget

LENGTH = 400
DOCUMENTS = torch.sort(torch.randint(0, 6, (LENGTH,), generator=torch.Generator().manual_seed(3)))[
    0
]
WIDTHS = torch.tensor([5, 80, 300])


def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


def window(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return (q_idx >= kv_idx) & (q_idx - kv_idx < 100)


def documents(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return DOCUMENTS[q_idx] == DOCUMENTS[kv_idx]


def width_of_head(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return (q_idx - kv_idx).abs() < WIDTHS[h]


def sparse(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return ((q_idx * 7 + kv_idx * 13) % 97 == 0) & (b == 0)


MASKS = [causal, window, documents, width_of_head, sparse]


def problem_of(mask: Any, shape: tuple[int, int, int, int], **changes: Any) -> Problem:
    n_batch, n_heads, n_queries, n_keys = shape
    fields: dict[str, Any] = {
        "program": build_program(mask, None),
        "n_batch": n_batch,
        "n_heads": n_heads,
        "kv_heads": n_heads,
        "n_queries": n_queries,
        "n_keys": n_keys,
        "head_dim": 64,
        "value_dim": 32,
        "dtype": "float32",
        "target": CpuTarget(best_isa()),
        "measures": False,
    }
    return Problem(**{**fields, **changes})


def visible_of(mask: Any, shape: tuple[int, int, int, int]) -> Any:
    """Every pair of every batch and head."""
    axes = [
        torch.arange(n).view([-1 if d == axis else 1 for d in range(4)])
        for axis, n in enumerate(shape)
    ]
    return torch.as_tensor(mask(*axes)).expand(shape).numpy()


def sizes_of_tiles(length: int, block: int) -> list[slice]:
    return [slice(first, min(first + block, length)) for first in range(0, length, block)]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(MASKS),
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, LENGTH), st.integers(1, LENGTH)),
    st.sampled_from([CpuTarget(best_isa()), *GPU_TARGETS.values()]),
    st.booleans(),
)
def test_tiles_and_operations_are_counted_exactly(
    mask: Any, shape: tuple[int, int, int, int], target: Any, backward: bool
) -> None:
    """Against every pair, for every batch and head, in the kernel's own tiles."""
    cost = cost_of(problem_of(mask, shape, target=target, backward=backward))

    visible = visible_of(mask, shape)
    counts, pairs = {"full": 0, "partial": 0, "empty": 0}, 0
    for queries in sizes_of_tiles(shape[2], cost.block_m):
        for keys in sizes_of_tiles(shape[3], cost.block_n):
            tiles = visible[:, :, queries, keys].reshape(shape[0] * shape[1], -1)
            full, seen = tiles.all(1), tiles.any(1)
            counts["full"] += full.sum()
            counts["partial"] += (seen & ~full).sum()
            counts["empty"] += (~seen).sum()
            pairs += seen.sum() * tiles.shape[1]
    assert counts == {"full": cost.n_full, "partial": cost.n_partial, "empty": cost.n_empty}
    is_gpu = not isinstance(target, CpuTarget)
    widths = 64 + 32
    if backward:
        widths = 4 * 64 + 3 * 32 if is_gpu else 3 * 64 + 2 * 32
    assert cost.flops == pytest.approx(2.0 * widths * pairs)
    assert cost.dense_flops == 2.0 * widths * visible.size
    assert cost.skipped == pytest.approx(counts["empty"] / sum(counts.values()))


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(MASKS),
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, LENGTH), st.integers(1, LENGTH)),
)
def test_computed_columns_are_those_that_rows_see(
    mask: Any, shape: tuple[int, int, int, int]
) -> None:
    """Of a PARTIAL tile: from the first to the last vector of columns that four rows see."""
    problem = problem_of(mask, shape)
    plan = make_plan(problem.spec())
    table = analyze(mask, *shape, (plan.tiles.block_m, plan.tiles.block_n)).table
    repeats = shape[0] * shape[1] // (table.n_batch * table.n_heads)
    assert problem.program.mask is not None
    pairs = pairs_of(table, problem.program.mask, problem.program.tensors, plan, repeats)

    lanes = CpuTarget(best_isa()).vector_bytes // 4
    visible = visible_of(mask, shape)
    live = partial = n_partial = 0
    for queries in sizes_of_tiles(shape[2], plan.tiles.block_m):
        for keys in sizes_of_tiles(shape[3], plan.tiles.block_n):
            for tile in visible[:, :, queries, keys].reshape(
                -1, len(range(*queries.indices(shape[2]))), len(range(*keys.indices(shape[3])))
            ):
                if tile.all() or not tile.any():
                    continue
                n_partial += 1
                partial += tile.size
                for first in range(0, len(tile), 4):
                    columns = np.flatnonzero(tile[first : first + 4].any(0))
                    if len(columns):
                        live += 4 * lanes * (columns[-1] // lanes - columns[0] // lanes + 1)
    assert pairs.partial == partial
    if n_partial <= 256:  # else a sample of them
        assert pairs.live == pytest.approx(min(live, partial))
    assert max(pairs.live, pairs.spanned) <= pairs.partial * (1 + 1e-9)


def test_bytes_follow_the_schedule() -> None:
    """Queries and results once, keys and values at each visit of a tile."""
    found = analyze(causal, 1, 1, 128, 128, 64).cost(64, value_dim=32, target="sm_80")
    whole = analyze(attnc.noop_mask, 1, 1, 128, 128, 64).cost(64, value_dim=32, target="sm_80")

    by_tiles = found.n_visited * found.block_n
    queries = 128 * (64 + 32) * 4
    assert found.n_bytes == queries + by_tiles * (64 + 32) * 4
    assert whole.n_bytes >= found.n_bytes
    assert found.intensity == found.flops / found.n_bytes


def test_a_bound_is_the_larger_of_operations_and_bytes() -> None:
    """Long sequences are bound by operations, a single query by the bandwidth."""
    peaks = GPU_TARGETS["sm_90"].peaks
    assert peaks is not None
    long = analyze(causal, 1, 8, 8192, 8192).cost(64, dtype="bfloat16", target="sm_90")
    single = analyze(attnc.noop_mask, 1, 8, 1, 8192).cost(64, dtype="bfloat16", target="sm_90")

    assert long.is_bound
    assert long.seconds == long.flops / peaks.flops["bfloat16"]
    moved = (2 * 8 * 64 + 2 * 8 * 8192 * 64) * 2
    assert single.seconds == moved / peaks.bytes_per_second
    assert long.speedup == pytest.approx(long.dense_flops / long.flops)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.integers(0, 2**32 - 1))
def test_a_fit_returns_the_rates_that_times_are_made_of(true: list[float], seed: int) -> None:
    """Exactly, where every kind of work is measured; a known rate stays as it is."""
    rows = np.random.default_rng(seed).random((9, 4)) + 0.1
    rates_made = np.array(true) + 0.01
    known = np.array([rates_made[0], 0, 0, 0])

    fitted = _non_negative_fit(rows, rows @ rates_made, known)

    assert fitted == pytest.approx(rates_made, rel=1e-6)


def test_a_fit_has_no_negative_rate() -> None:
    """What would be negative is 0, and the others still come close."""
    rows = np.array([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]])

    fitted = _non_negative_fit(rows, np.array([0.9, 2.1, 3.2]), np.zeros(2))

    assert (fitted >= 0).all()
    assert rows @ fitted == pytest.approx([0.9, 2.1, 3.2], rel=0.2)


def test_measured_rates_are_kept(tmp_path: Any) -> None:
    """In the cache folder: another process reads them; a damaged file is measured again."""
    measured = rates_of(best_isa(), "float32", backward=False)
    path = rates._path()
    key = rates._key(best_isa(), "float32", False)

    rates._known.clear()
    assert rates.known_rates(best_isa(), "float32", backward=False) == measured
    assert key in json.loads(path.read_text())
    before = path.read_text()
    try:
        path.write_text("{")
        rates._known.clear()
        assert rates.known_rates(best_isa(), "float32", backward=False) is None
    finally:
        path.write_text(before)
    assert 1 < measured.gflops < 10_000


def test_expected_seconds_are_those_of_the_machine() -> None:
    """Within a factor of two even on a busy machine; ``benchmarks.cost_model`` says how close."""
    q, k, v = (torch.randn(1, 2, 768, 64) for _ in range(3))
    found = analyze(causal, 1, 2, 768, 768)
    cost = found.cost(64, n_threads=1)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        attnc.attention(q, k, v, mask=causal)
        times = []
        for _ in range(10):
            start = time.thread_time()
            attnc.attention(q, k, v, mask=causal)
            times.append(time.thread_time() - start)
    finally:
        torch.set_num_threads(n_threads)

    assert cost.seconds is not None
    assert 0.5 < cost.seconds / min(times) < 2
    assert cost.speedup is not None
    assert 1.3 < cost.speedup < 2.1


def test_less_work_is_expected_to_take_less_time() -> None:
    """Fewer tiles, more threads, no score_mod, the forward pass alone."""

    def capped(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return torch.tanh(score)

    whole = analyze(causal, 1, 8, 4096, 4096)
    part = analyze(window, 1, 8, 4096, 4096)
    seconds = [
        found.seconds
        for found in (
            part.cost(n_threads=2),
            part.cost(n_threads=1),
            whole.cost(n_threads=1),
            whole.cost(n_threads=1, score=capped),
        )
    ]

    assert seconds == sorted(seconds, key=lambda s: s or 0.0)
    assert len(set(seconds)) == 4


@pytest.mark.slow
def test_backward_is_expected_to_take_longer() -> None:
    """About two and a half times the products."""
    found = analyze(causal, 1, 2, 1024, 1024)
    forward, backward = (found.cost(n_threads=1, backward=b) for b in (False, True))

    assert forward.seconds is not None
    assert backward.seconds is not None
    assert 1.5 < backward.seconds / forward.seconds < 5


def test_heads_that_share_keys_are_counted() -> None:
    """Keys and values are packed once per key head."""
    problems = [
        problem_of(causal, (1, 8, 256, 256), kv_heads=kv_heads, value_dim=64) for kv_heads in (8, 2)
    ]
    plans = [make_plan(problem.spec()) for problem in problems]
    tables = [analyze(causal, 1, 8, 256, 256, 64).table for _ in problems]
    works = [
        work_of(plan, table, pairs_of(table, problem.program.mask, (), plan, 8), problem.sizes)
        for plan, table, problem in zip(plans, tables, problems, strict=True)
        if problem.program.mask is not None
    ]

    assert works[0].packed == 4 * works[1].packed
    assert works[0].products == works[1].products
    sizes = Sizes(1, 8, 2, 256, 256, 64, 64, 4)
    assert sizes.moved(backward=False) == 4 * 64 * 256 * (8 + 4)
    assert sizes.written(backward=False) == 4 * 64 * 256 * 8
    assert sizes.written(backward=True) == 4 * 64 * 256 * (8 + 4)


def test_a_block_mask_is_costed_as_it_lists() -> None:
    """Its tiles, cut to those of the kernel."""
    blocks = attnc.create_block_mask(documents, None, None, LENGTH, LENGTH)
    kernel = attnc.kernel(lambda score, b, h, q_idx, kv_idx: score, mask=blocks)
    costs = Inspection.of(kernel, shape=(1, 2, LENGTH, LENGTH, 64)).costs(measure=False)

    table = blocks.table.refine(64, 64)
    assert costs["forward"].n_full == 2 * table.n_full
    assert costs["forward"].n_partial == 2 * table.n_partial
    assert costs["forward"].seconds is None or costs["forward"].seconds > 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"head_dim": 0}, "head_dim is 0; it must be positive"),
        ({"kv_heads": 3}, "kv_heads is 3; it must divide the 4 query heads"),
        ({"dtype": "float8"}, "dtype is 'float8'; use one of float32"),
        ({"target": "sm_91"}, "target is 'sm_91'; use cpu, sm_80"),
    ],
)
def test_impossible_calls_are_refused(options: Any, told: str) -> None:
    """With the value that was given, and those that there are."""
    with pytest.raises(AnalysisArgumentError) as raised:
        analyze(causal, 1, 4, 64, 64).cost(**options)

    assert told in str(raised.value)


def test_the_stage_tells_costs_of_both_passes() -> None:
    """Counts of the kernel's tiles, bounds of its loops, and where times come from."""
    text = Inspection.of(causal, shape=(1, 2, 1024, 1024, 64), target="sm_90").blocks()

    forward, backward = (
        line.split() for line in text.splitlines() if line.startswith(("forward ", "backward "))
    )
    cost = analyze(causal, 1, 2, 1024, 1024).cost(64, dtype="bfloat16", target="sm_90")
    assert forward[1] == str(cost.n_visited)
    assert forward[-1] == f"{cost.speedup:.2f}x"
    assert forward[3:5] == ["302", "M"]
    assert backward[3:5] == ["1.06", "G"]
    assert "full_stop  = q_block" in text
    assert "Times are bounds, not measurements: published peaks of the H100 SXM" in text


def test_the_stage_measures_only_when_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Explaining a kernel compiles none."""
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(rates, "_known", {})

    text = Inspection.of(window).blocks()

    assert "No times: the rates of this machine" in text
    assert not list(tmp_path.glob("*/kernel.so"))


def test_errors_are_summed_up_by_pass_and_dtype() -> None:
    """Median and worst of what each group was off, and how many are within the goal."""
    from benchmarks.cost_model import summaries_of

    rows = [
        {"backward": backward, "dtype": "float32", "error": error}
        for backward, error in ((False, -0.1), (False, 0.3), (False, 0.02), (True, 0.2))
    ]

    whole, forward, backward = summaries_of(rows)
    assert (whole["n"], whole["within_goal"], whole["worst"]) == (4, 3, 0.3)
    assert (forward["calls"], forward["median"]) == ("forward, float32", 0.1)
    assert (backward["n"], backward["worst"]) == (1, 0.2)


@pytest.mark.slow
def test_the_benchmark_of_the_cost_model_runs(tmp_path: Any) -> None:
    """On a small call: a row with both times, and a table."""
    from benchmarks.cost_model import main

    arguments = "--lengths 256 --backward-lengths 256 --dims 64 --dtypes float32 --cases causal"
    main([*arguments.split(), "--rounds", "5", "--output", str(tmp_path)])

    rows = json.loads((tmp_path / "cost_model.json").read_text())["rows"]
    assert [row["backward"] for row in rows] == [False, True]
    for row in rows:
        assert row["error"] == pytest.approx(row["predicted_ms"] / row["measured_ms"] - 1, abs=1e-2)
    assert "causal, fp32, D=64, S=256, backward" in (tmp_path / "cost_model.md").read_text()
