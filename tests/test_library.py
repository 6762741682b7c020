"""Each entry of the library against the definition of its source, written out pair by pair."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cpu_kernels import load, program_of, run, run_backward, spec_of

import attnc
from attnc import library
from attnc.plan import Wanted
from attnc.runtime.gradients import differentiable_slots
from attnc.runtime.reference import reference_attention
from attnc.testing import Limits, assert_close_to_reference, check
from attnc.testing.gradients import assert_gradients_close, expected_gradients

ENTRIES = tuple(library.ENTRIES.values())
N = 37  # no multiple of anything


def dense(sees: Callable[[int, int], bool], n_queries: int = N, n_keys: int = N) -> torch.Tensor:
    """(n_queries, n_keys) bool, pair by pair."""
    return torch.tensor([[bool(sees(q, kv)) for kv in range(n_keys)] for q in range(n_queries)])


def visible(mask: Any, n_queries: int = N, n_keys: int = N, n_heads: int = 1) -> torch.Tensor:
    return attnc.create_mask(mask, 1, n_heads, n_queries, n_keys)[0].squeeze(0)


IDS = [0, 0, 0, 0, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 5, 5, 5, 5, 5, 5, 5, 5, 4, 4, 4]
IDS += [7] * (N - len(IDS))


def documents_of(n: int) -> torch.Tensor:
    return torch.tensor(IDS[:n])


def in_chunks(q: int, kv: int) -> bool:
    starts = range(0, N, 8)
    return any(q in range(s, s + 8) and kv in range(s, s + 8) for s in starts)


def of_power(q: int, kv: int) -> bool:
    blocks = q // 4 - kv // 4
    return kv <= q and (kv in range(max(0, q - 6), q + 1) or blocks in (0, 1, 2, 4, 8, 16, 32))


def diffused(q: int, kv: int) -> bool:
    """The three parts of the mask as the paper names them."""
    (q_half, q_place), (kv_half, kv_place) = divmod(q, 15), divmod(kv, 15)
    block_diagonal = q_half == kv_half == 0 and q_place // 4 == kv_place // 4
    offset_causal = q_half == 0 and kv_half == 1 and q_place // 4 > kv_place // 4
    block_causal = q_half == kv_half == 1 and q_place // 4 >= kv_place // 4
    return block_diagonal or offset_causal or block_causal


SEQUENCES = {
    "causal": (library.causal(), lambda q, kv: kv <= q),
    "causal, later": (library.causal(5), lambda q, kv: kv - 5 <= q),
    "sliding_window": (library.sliding_window(6), lambda q, kv: kv in range(q - 6, q + 1)),
    "both ways": (library.sliding_window(3, 9), lambda q, kv: kv in range(q - 3, q + 10)),
    "only itself": (library.sliding_window(0), lambda q, kv: kv == q),
    "dilated_window": (
        library.dilated_window(4, 2, dilation=3),
        lambda q, kv: kv in range(q - 12, q + 7, 3),
    ),
    "global_window": (
        library.global_window(3, 4, 5),
        lambda q, kv: min(q, kv) < 3 or kv in range(q - 4, q + 6),
    ),
    "sink_window": (
        library.sink_window(2, 5),
        lambda q, kv: kv in range(q + 1) and (kv in (0, 1) or kv >= q - 5),
    ),
    "prefix_lm": (library.prefix_lm(11), lambda q, kv: kv < max(11, q + 1)),
    "strided": (
        library.strided(7),
        lambda q, kv: kv <= q and (kv > q - 7 or kv in range(q, -1, -7)),
    ),
    "fixed": (
        library.fixed(8, 2),
        lambda q, kv: kv <= q and (kv // 8 == q // 8 or kv % 8 in (6, 7)),
    ),
    "power_of_two": (library.power_of_two(4, 6), of_power),
    "documents": (library.documents(documents_of(N)), lambda q, kv: IDS[q] == IDS[kv]),
    "shared_prefix": (
        library.shared_prefix(documents_of(N), 3),
        lambda q, kv: IDS[kv] in (3, IDS[q]),
    ),
    "chunked": (library.chunked(8), in_chunks),
    "chunked, two before": (
        library.chunked(8, 2),
        lambda q, kv: kv in range(8 * (q // 8 - 2), 8 * (q // 8) + 8),
    ),
    "block_causal": (library.block_causal(8), lambda q, kv: kv < 8 * (q // 8) + 8),
    "block_diffusion": (library.block_diffusion(15, 4), diffused),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_mask_of_a_sequence_is_its_definition(name: str) -> None:
    """Exactly, at every pair."""
    mask, sees = SEQUENCES[name]
    n = 30 if name == "block_diffusion" else N

    assert torch.equal(visible(mask, n, n), dense(sees, n, n))


def test_every_row_and_head_has_its_own_parameter() -> None:
    lengths = torch.tensor([0, 7, 30])
    left, sinks = torch.tensor([0, 5, 40]), torch.tensor([1, 0, 3])

    prefix = attnc.create_mask(library.prefix_lm(lengths), 3, 1, N, N)[:, 0]
    window = visible(library.windows_per_head(left, sinks), n_heads=3)

    for row in range(3):
        length = int(lengths[row])
        assert torch.equal(prefix[row], visible(library.prefix_lm(length)))
        expected = library.sink_window(int(sinks[row]), int(left[row]))
        assert torch.equal(window[row], visible(expected))
    assert torch.equal(
        visible(library.windows_per_head(left), n_heads=3)[1], visible(library.sliding_window(5))
    )


def test_documents_of_a_batch_are_those_of_its_rows() -> None:
    ids = torch.stack([documents_of(N), documents_of(N).flip(0)])

    batch = attnc.create_mask(library.documents(ids), 2, 1, N, N)[:, 0]

    assert torch.equal(batch[1], visible(library.documents(ids[1])))


@pytest.mark.parametrize("seed", range(8))
def test_node_of_a_tree_sees_context_and_ancestors(seed: int) -> None:
    """Random forests, against a walk up from each node."""
    generator = torch.Generator().manual_seed(seed)
    n_nodes, n_context = 20, seed
    parents = [int(torch.randint(-1, node, (), generator=generator)) for node in range(n_nodes)]

    def sees(q: int, kv: int) -> bool:
        node = q
        while node >= 0:
            if n_context + node == kv:
                return True
            node = parents[node]
        return kv < n_context

    seen = visible(library.tree(parents, n_context), n_nodes, n_context + n_nodes)

    assert torch.equal(seen, dense(sees, n_nodes, n_context + n_nodes))


def neighbors(
    place: int, length: int, size: int, dilation: int, stride: int, is_causal: bool
) -> set[int]:
    """Places that one axis lets ``place`` see, from lists."""
    group = list(range(place % dilation, length, dilation))
    own = group.index(place)
    shared = [i for i in range(len(group)) if i // stride == own // stride]
    if is_causal:
        first = own // stride * stride
        last = min(first + stride - 1, len(group) - 1)
        window = range(max(0, last - size + 1), last + 1)
        return {group[i] for i in window if i <= own}
    leader = min(shared[0] + stride // 2, len(group) - 1)
    start = leader - size // 2
    while start < 0:
        start += 1
    while start + size > len(group):
        start -= 1
    return {group[i] for i in range(start, start + size)}


NEIGHBORHOODS: list[tuple[Any, ...]] = [
    ((29,), 5, 1, 1, False),
    ((29,), 6, 2, 3, False),
    ((29,), 6, 3, 1, True),
    ((29,), 6, 2, 4, True),
    ((6, 7), 3, 1, 1, False),
    ((8, 12), (3, 2), 2, 1, False),
    ((6, 9), (4, 5), (1, 1), (2, 3), (True, False)),
    ((3, 5, 4), (3, 3, 2), 1, (1, 2, 1), (True, False, False)),
]


@pytest.mark.parametrize(("grid", "size", "dilation", "stride", "is_causal"), NEIGHBORHOODS)
def test_neighborhood_is_its_lists_of_neighbors(
    grid: Any, size: Any, dilation: Any, stride: Any, is_causal: Any
) -> None:
    """Every axis, dilation, stride and border, against lists of cells."""

    def per_axis(value: Any) -> Any:
        return value if isinstance(value, tuple) else (value,) * len(grid)

    cells = list(itertools.product(*(range(length) for length in grid)))
    axes = list(zip(grid, *(per_axis(x) for x in (size, dilation, stride, is_causal)), strict=True))

    def sees(q: int, kv: int) -> bool:
        pairs = zip(cells[q], cells[kv], axes, strict=True)
        return all(there in neighbors(here, *axis) for here, there, axis in pairs)

    mask = library.neighborhood(grid, size, dilation=dilation, stride=stride, is_causal=is_causal)

    assert torch.equal(visible(mask, len(cells), len(cells)), dense(sees, len(cells), len(cells)))


@pytest.mark.parametrize(
    ("grid", "size", "shift"), [((8, 8), 4, 2), ((12, 8), (4, 2), (1, 1)), ((4, 6, 6), 2, 1)]
)
def test_shifted_windows_are_rolled_and_partitioned(grid: Any, size: Any, shift: Any) -> None:
    """As published: roll the map, cut it into windows, and keep apart what the roll brought."""
    sizes = size if isinstance(size, tuple) else (size,) * len(grid)
    shifts = shift if isinstance(shift, tuple) else (shift,) * len(grid)
    region = torch.zeros(grid, dtype=torch.int64)
    parts = [
        (slice(0, -m), slice(-m, -s), slice(-s, None)) for m, s in zip(sizes, shifts, strict=True)
    ]
    for number, part in enumerate(itertools.product(*parts)):
        region[part] = number
    cell = torch.arange(math.prod(grid)).reshape(grid)
    cell = cell.roll([-s for s in shifts], list(range(len(grid))))
    expected = torch.zeros(cell.numel(), cell.numel(), dtype=torch.bool)
    for corner in itertools.product(
        *(range(0, length, m) for length, m in zip(grid, sizes, strict=True))
    ):
        window = tuple(slice(c, c + m) for c, m in zip(corner, sizes, strict=True))
        tokens, regions = cell[window].flatten(), region[window].flatten()
        expected[tokens[:, None], tokens] = regions[:, None] == regions

    assert torch.equal(
        visible(library.windows(grid, size, shift=shift), cell.numel(), cell.numel()), expected
    )


def test_sliding_tiles_move_by_whole_tiles() -> None:
    grid, tile, n_tiles = (6, 8), (2, 2), (1, 3)
    cells = list(itertools.product(range(6), range(8)))

    def sees(q: int, kv: int) -> bool:
        return all(
            cells[kv][axis] // tile[axis]
            in neighbors(
                cells[q][axis] // tile[axis],
                *(grid[axis] // tile[axis], n_tiles[axis], 1, 1, False),
            )
            for axis in range(2)
        )

    seen = visible(library.sliding_tiles(grid, tile, n_tiles), 48, 48)

    assert torch.equal(seen, dense(sees, 48, 48))


def test_axial_keeps_all_other_coordinates() -> None:
    cells = list(itertools.product(range(3), range(4), range(2)))

    def sees(q: int, kv: int) -> bool:
        return cells[q][0] == cells[kv][0] and cells[q][2] == cells[kv][2]

    assert torch.equal(visible(library.axial((3, 4, 2), 1), 24, 24), dense(sees, 24, 24))


def scored(mod: Any, n_heads: int, score: float = 0.0, n: int = N) -> torch.Tensor:
    """(n_heads, n, n) float64: what a score_mod makes of one score everywhere."""
    q_idx, kv_idx = torch.arange(n)[:, None], torch.arange(n)
    rows = [
        mod(torch.tensor(score), torch.tensor(0), torch.tensor(head), q_idx, kv_idx).expand(n, n)
        for head in range(n_heads)
    ]
    return torch.stack(rows).double()


def by_pair(value: Callable[[int, int, int], float], n_heads: int, n: int = N) -> torch.Tensor:
    return torch.tensor(
        [[[value(h, q, kv) for kv in range(n)] for q in range(n)] for h in range(n_heads)],
        dtype=torch.float64,
    )


def assert_same_scores(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=2e-6, atol=2e-6)


def test_slopes_of_alibi_are_the_published_ones() -> None:
    """Powers of 2 ** (-8 / n); for 12 heads those of 8 and every other one of 16."""
    assert library.alibi_slopes(8).tolist() == [2.0**-p for p in range(1, 9)]
    more = [2 ** (-0.5 * p) for p in (1, 3, 5, 7)]
    assert library.alibi_slopes(12).tolist() == pytest.approx([2.0**-p for p in range(1, 9)] + more)


def test_biases_by_distance_are_their_formulas() -> None:
    slopes, other = torch.tensor([0.5, 0.125]), torch.tensor([3.0, 0.2])

    def expected(formula: Callable[[float, float, int], float]) -> torch.Tensor:
        return by_pair(lambda h, q, kv: formula(slopes[h].item(), other[h].item(), q - kv), 2)

    assert_same_scores(scored(library.alibi(slopes), 2), expected(lambda a, b, d: -a * abs(d)))
    assert_same_scores(
        scored(library.periodic_bias(slopes, 5), 2), expected(lambda a, b, d: -a * (abs(d) // 5))
    )
    assert_same_scores(
        scored(library.exponential_decay(slopes), 2),
        expected(lambda a, b, d: math.log(a ** abs(d))),
    )
    assert_same_scores(
        scored(library.logarithmic_decay(slopes, other), 2),
        expected(lambda a, b, d: -a * math.log(1 + b * abs(d))),
    )
    torch.testing.assert_close(
        scored(library.gaussian_decay(slopes), 2).exp(),
        expected(lambda a, b, d: math.exp(-d * d / (2 * a * a))),
        rtol=1e-4,  # of float32 exponents up to 10,000
        atol=0,
    )


def test_scores_are_capped_and_scaled_by_their_formulas() -> None:
    for score in (-100.0, -1.5, 0.0, 3.0, 1e4):
        capped = scored(library.softcap(20.0), 1, score)
        assert_same_scores(capped, by_pair(lambda h, q, kv: 20 * math.tanh(score / 20), 1))  # noqa: B023
        grown = scored(library.log_n_scaling(8), 1, score)
        torch.testing.assert_close(
            grown,
            by_pair(lambda h, q, kv: score * max(1.0, math.log(q + 1, 8)), 1),  # noqa: B023
            rtol=1e-6,
            atol=0,
        )


@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_are_those_of_t5(bidirectional: bool) -> None:
    """As transformers computes them, beyond the largest distance too."""
    attention = pytest.importorskip("transformers.models.t5.modeling_t5").T5Attention
    n, n_buckets = 300, 32
    table = torch.randn(n_buckets, 2)
    distance = torch.arange(n) - torch.arange(n)[:, None]
    buckets = attention._relative_position_bucket(distance, bidirectional, n_buckets, 128)

    actual = scored(library.t5_bias(table, bidirectional=bidirectional), 2, n=n)

    assert torch.equal(actual, table[buckets].permute(2, 0, 1).double())


def test_relative_tables_are_indexed_by_clipped_distance() -> None:
    line, plane = torch.randn(2, 9), torch.randn(2, 5, 7)
    cells = list(itertools.product(range(4), range(9)))

    def clipped(distance: int, reach: int) -> int:
        return reach + max(-reach, min(reach, distance))

    assert_same_scores(
        scored(library.relative_bias(line), 2),
        by_pair(lambda h, q, kv: line[h, clipped(q - kv, 4)].item(), 2),
    )

    def of_cells(h: int, q: int, kv: int) -> float:
        (y, x), (other_y, other_x) = cells[q], cells[kv]
        return plane[h, clipped(y - other_y, 2), clipped(x - other_x, 3)].item()

    assert_same_scores(
        scored(library.relative_bias_2d(plane, (4, 9)), 2, n=36), by_pair(of_cells, 2, 36)
    )


def test_examples_run_forward_and_backward() -> None:
    """All of them as CPU kernels of one translation unit, against dense float64 and its autograd."""
    torch.manual_seed(0)
    kernels = [entry.kernel() for entry in ENTRIES]
    programs = [program_of(kernel.mask, kernel.score) for kernel in kernels]
    captured = [
        tuple(sorted(differentiable_slots(p.score))) if p.score is not None else ()
        for p in programs
    ]
    forwards = load([spec_of(program) for program in programs])
    backwards = load(
        [
            spec_of(program, gradients=Wanted(True, True, True, slots))
            for program, slots in zip(programs, captured, strict=True)
        ]
    )

    for entry, kernel, program, slots, forward, backward in zip(
        ENTRIES, kernels, programs, captured, forwards, backwards, strict=True
    ):
        n_batch, n_heads, n_queries, n_keys = entry.shape
        q, k, v, grad = (
            torch.randn(n_batch, n_heads, n, 16) for n in (n_queries, n_keys, n_keys, n_queries)
        )
        result = run(forward, program, q, k, v)
        tables = [program.tensors[slot].requires_grad_() for slot in slots]
        wanted = expected_gradients((q, k, v), kernel.mask, kernel.score, tables, grad, None)
        with torch.no_grad():
            expected = reference_attention(q, k, v, mask=kernel.mask, score=kernel.score)
        found = run_backward(backward, program, q, k, v, result, grad, None, slots)
        assert_close_to_reference(result.out, result.lse, expected, torch.float32)
        names = [f"{name} of {entry.name}" for name in ("q", "k", "v", *map(str, slots))]
        assert_gradients_close(names, found, wanted, torch.float32, 16, is_single=True)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_entries_keep_the_laws_of_functions(entry: library.Entry) -> None:
    """At every length and place where its tensors can be read: the compiled form is the function,
    tiles and loop bounds are exact, scores are numbers. No kernel is built."""
    n_batch, n_heads, n_queries, n_keys = entry.shape
    limits = Limits(n_batch, n_heads, min(n_queries, n_keys, 150))

    report = check(entry.kernel(), backends=[], limits=limits, examples=5)

    examined = {each.law: each.n_examples for each in report.laws}
    assert min(examined["total"], examined["compiled-mask"] + examined["compiled-score"]) > 0


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_kernel_of_an_entry_survives_copies_and_pickle(entry: library.Entry) -> None:
    """What comes back computes the same; its repr tells how it was called."""
    kernel = entry.kernel()
    again = pickle.loads(pickle.dumps(kernel))

    assert repr(copy.deepcopy(kernel)) == repr(again) == repr(kernel)
    n_batch, n_heads, n_queries, n_keys = entry.shape
    if kernel.kind == "mask_mod":
        shape = (n_batch, n_heads, n_queries, n_keys)
        assert torch.equal(attnc.create_mask(again, *shape), attnc.create_mask(kernel, *shape))
    else:
        assert torch.equal(scored(again, n_heads, 0.5), scored(kernel, n_heads, 0.5))


def test_lines_of_the_library_are_named() -> None:
    """Where a mask of the library is explained, by the line that says it."""
    mask = library.documents(documents_of(32).repeat_interleave(8)) & library.causal()

    told = str(mask.analyze(256, 256, BLOCK_SIZE=64).why(1, 0))

    assert "packing.py" in told
    assert "return ids[q_idx] == ids[kv_idx]" in told


def test_every_entry_is_public_and_documented() -> None:
    """By its name, with a sentence, a source and the family of its page."""
    for entry in ENTRIES:
        assert getattr(library, entry.name) is entry.factory
        assert entry.name in library.__all__
        assert entry.summary.endswith((".", "``."))
        assert entry.source
        assert entry.family
