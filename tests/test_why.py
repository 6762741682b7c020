"""``Analysis.why``: which terms decide a tile, with evidence that is true by brute force."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import attnc
from attnc.analysis import Analysis, Term, ValueRange, analyze
from attnc.analysis.explain import truth_of_ranges
from attnc.analysis.formula import Join, conditions_of, formula_of, smallest_cover
from attnc.errors import AnalysisArgumentError
from attnc.evaluate import evaluate
from attnc.intervals import Truth
from attnc.ir import Compare, Const, Expr
from attnc.run_table import Kind
from attnc.stages import Inspection

N_QUERIES, N_KEYS = 200, 168
DOCUMENTS = torch.sort(torch.randint(0, 7, (200,), generator=torch.Generator().manual_seed(3)))[0]
WIDTHS = torch.tensor([5, 40, 170])
KEEP = torch.rand(168, generator=torch.Generator().manual_seed(4)) < 0.7
BIAS = torch.tensor([0.5, float("nan"), -1.0, 2.0]).repeat(50)


def causal_window(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    near = q_idx - kv_idx < 300
    return (q_idx >= kv_idx) & near


def documents(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return (DOCUMENTS[q_idx] == DOCUMENTS[kv_idx]) & (q_idx >= kv_idx) | (kv_idx < 4)


CONDITIONS: list[Any] = [
    lambda b, h, q, k: q >= k,
    lambda b, h, q, k: q - k < 50,
    lambda b, h, q, k: (q - k).abs() <= WIDTHS[h],
    lambda b, h, q, k: DOCUMENTS[q] == DOCUMENTS[k],
    lambda b, h, q, k: KEEP[k],
    lambda b, h, q, k: k < 20,
    lambda b, h, q, k: q % 3 != k % 2,
    lambda b, h, q, k: BIAS[q] < BIAS[k],
    lambda b, h, q, k: (q - k) * 2 == 31,
    lambda b, h, q, k: q // 32 == k // 32,
    lambda b, h, q, k: h == 1,
    lambda b, h, q, k: q < k,
]


@dataclass(frozen=True)
class Recipe:
    """Conditions by number, joined: "&", "|", "^", "~", "?" (where) or a single one."""

    operator: str
    parts: tuple[Any, ...]

    def __call__(self, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        if not self.operator:
            return CONDITIONS[self.parts[0]](b, h, q_idx, kv_idx)
        values = [part(b, h, q_idx, kv_idx) for part in self.parts]
        match self.operator:
            case "~":
                return ~values[0]
            case "&":
                return functools.reduce(lambda x, y: x & y, values)
            case "|":
                return functools.reduce(lambda x, y: x | y, values)
            case "^":
                return values[0] ^ values[1]
            case _:
                return torch.where(*values)


def recipes() -> st.SearchStrategy[Recipe]:
    single = st.integers(0, len(CONDITIONS) - 1).map(lambda number: Recipe("", (number,)))

    def larger(inner: st.SearchStrategy[Recipe]) -> st.SearchStrategy[Recipe]:
        return st.one_of(
            st.builds(Recipe, st.sampled_from("&|"), st.lists(inner, min_size=2, max_size=4)),
            st.builds(Recipe, st.just("^"), st.tuples(inner, inner)),
            st.builds(Recipe, st.just("~"), st.tuples(inner)),
            st.builds(Recipe, st.just("?"), st.tuples(inner, inner, inner)),
        )

    return st.recursive(single, larger, max_leaves=6)


def values_of(expr: Expr, found: Analysis, h: int, queries: range, keys: range) -> Any:
    """``expr`` at every pair of a tile."""
    values = evaluate(
        expr,
        b=torch.tensor(0, dtype=torch.int32),
        h=torch.tensor(h, dtype=torch.int32),
        q_idx=torch.tensor(queries, dtype=torch.int32)[:, None],
        kv_idx=torch.tensor(keys, dtype=torch.int32),
        tensors=found._facts.tensors,
    )
    return values.expand(len(queries), len(keys)).numpy()


def terms_of(term: Term) -> Iterator[Term]:
    yield term
    for part in term.parts:
        yield from terms_of(part)


def pairs_of(values: NDArray[np.bool_], queries: range, keys: range) -> list[tuple[int, int]]:
    return [(queries[i], keys[j]) for i, j in np.argwhere(values).tolist()]


def joined(term: Term, values: list[NDArray[np.bool_]]) -> Any:
    return np.logical_and.reduce(values) if term.join is Join.ALL else np.logical_or.reduce(values)


# The first condition, said in another way.
_NOT_LATER = Recipe("~", (Recipe("", (len(CONDITIONS) - 1,)),))


@settings(max_examples=100, deadline=None)
@given(recipes(), st.integers(0, 2), st.integers(0, 6), st.integers(0, 3))
@example(Recipe("&", (Recipe("", (1,)), Recipe("~", (Recipe("", (1,)),)))), 0, 2, 1)
@example(Recipe("?", (Recipe("", (5,)), Recipe("", (0,)), _NOT_LATER)), 0, 2, 2)
def test_what_is_said_of_a_tile_is_true(
    recipe: Recipe, h: int, q_block: int, kv_block: int
) -> None:
    """Kind, truths, pairs, ranges and counts hold by brute force; the terms that are said to decide
    have together the value of the predicate, and none can be left out."""
    found = analyze(recipe, 1, 3, N_QUERIES, N_KEYS, (32, 48))
    why = found.why(q_block, kv_block, h=h)
    queries, keys = why.queries, why.keys
    inputs = (torch.tensor(0), torch.tensor(h), torch.tensor(queries)[:, None], torch.tensor(keys))
    expected = torch.as_tensor(recipe(*inputs)).expand(len(queries), len(keys)).numpy()

    assert why.n_visible == expected.sum()
    assert why.kind is (
        Kind.FULL if expected.all() else Kind.PARTIAL if expected.any() else Kind.EMPTY
    )
    assert (values_of(why.term.expr, found, h, queries, keys) == expected).all()
    for term in [*terms_of(why.term), *why.others]:
        values = values_of(term.expr, found, h, queries, keys)
        assert term.visible == next(iter(pairs_of(values, queries, keys)), None)
        assert term.hidden == next(iter(pairs_of(~values, queries, keys)), None)
        assert term.truth == int(values.all()) + int(values.any())
        if term.parts:
            parts = [values_of(part.expr, found, h, queries, keys) for part in term.parts]
            assert (joined(term, parts) == values).all()
            needs_all = term.truth is (Truth.ALWAYS if term.join is Join.ALL else Truth.NEVER)
            for number in range(len(parts)):
                fewer = parts[:number] + parts[number + 1 :]
                assert needs_all or (joined(term, fewer) != values).any()
        else:
            check_evidence(term, found, h, queries, keys)


def check_evidence(term: Term, found: Analysis, h: int, queries: range, keys: range) -> None:
    """Ranges are those of the operands, or of their difference, and tell the truth they show."""
    if not isinstance(term.expr, Compare):
        return
    lhs, rhs = (values_of(side, found, h, queries, keys) for side in (term.expr.lhs, term.expr.rhs))
    numbers = [
        values
        for side, values in ((term.expr.lhs, lhs), (term.expr.rhs, rhs))
        if not isinstance(side, Const)
    ]
    is_difference = [found.text for found in term.ranges] == [term.text.replace(" == ", " - ")]
    if is_difference or len(term.ranges) < len(numbers):
        numbers = [lhs.astype(np.int64) - rhs]
    for shown, values in zip(term.ranges, numbers, strict=True):
        real = values[~np.isnan(values)] if values.dtype.kind == "f" else values
        assert shown.may_nan == (real.size < values.size)
        assert (shown.least, shown.greatest) == (
            (real.min(), real.max()) if real.size else (None, None)
        )
    if term.follows:
        zero = ValueRange("0", 0, 0)
        constants = [
            ValueRange("", side.value, side.value) if isinstance(side, Const) else None
            for side in (term.expr.lhs, term.expr.rhs)
        ]
        shown_ranges = iter(term.ranges)
        operands = (
            (term.ranges[0], zero)
            if is_difference or len(term.ranges) + sum(c is not None for c in constants) < 2
            else tuple(constant or next(shown_ranges) for constant in constants)
        )
        assert truth_of_ranges(term.expr.op, *operands) is term.truth


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=6))
def test_a_cover_is_the_smallest(rows: list[list[bool]]) -> None:
    """No fewer rows are true somewhere in every column."""
    covers = np.array(rows)
    covers = covers[:, covers.any(0)]

    chosen = smallest_cover(covers)

    assert covers[list(chosen)].any(0).all()
    for fewer in itertools.combinations(range(len(covers)), max(len(chosen) - 1, 0)):
        assert not chosen or not covers[list(fewer)].any(0).all()


def test_a_cover_of_many_rows_has_none_too_many() -> None:
    """Where there are too many sets to try, no chosen row can be left out."""
    covers = np.random.default_rng(0).random((60, 40)) < 0.15
    covers[0] |= ~covers.any(0)

    chosen = smallest_cover(covers)

    assert covers[list(chosen)].any(0).all()
    for row in chosen:
        assert not covers[[other for other in chosen if other != row]].any(0).all()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(attnc.ir.CompareOp)), st.tuples(*[st.integers(-3, 3)] * 4))
def test_ranges_tell_no_more_than_they_hold(op: Any, ends: tuple[int, int, int, int]) -> None:
    """The truth that two ranges tell is that of every pair of their values."""
    lhs, rhs = (ValueRange("x", min(pair), max(pair)) for pair in (ends[:2], ends[2:]))
    compare = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}[op.value]
    values = {
        bool(getattr(torch, compare)(torch.tensor(x), torch.tensor(y)))
        for x in range(int(lhs.least or 0), int(lhs.greatest or 0) + 1)
        for y in range(int(rhs.least or 0), int(rhs.greatest or 0) + 1)
    }

    told = truth_of_ranges(op, lhs, rhs)

    assert told is (
        Truth.MAYBE if len(values) > 1 else Truth.ALWAYS if True in values else Truth.NEVER
    )


def test_a_hidden_tile_reads_well() -> None:
    """A tile left of the window: the condition that fails, on its line, by how much."""
    text = str(analyze(causal_window, None, None, 1024, 1024).why(5, 1))

    first, term, values, none, hidden, others, other = text.splitlines()
    assert first == "Tile (5, 1) of b=0, h=0 is EMPTY: q_idx 640..767, kv_idx 128..255."
    assert term.startswith("  q_idx - kv_idx < 300  never holds    ")
    assert term.endswith(": near = q_idx - kv_idx < 300")
    assert "test_why.py:" in term
    assert values == "      q_idx - kv_idx in [385, 639]"
    assert none == "  no pair is visible"
    assert hidden == "  q_idx=640, kv_idx=128 is hidden"
    assert others == "Not needed to tell:"
    assert other.startswith("  q_idx >= kv_idx  always holds    ")


def test_a_full_tile_reads_well() -> None:
    """Each term holds, and the values that show it."""
    text = str(analyze(causal_window, None, None, 1024, 1024).why(5, 4))

    assert "all of these hold everywhere:" in text
    assert "q_idx in [640, 767], kv_idx in [512, 639]" in text
    assert "q_idx - kv_idx in [1, 255]" in text
    assert text.endswith("  q_idx=640, kv_idx=512 is visible\n  no pair is hidden")


def test_a_partial_tile_names_the_term_that_differs() -> None:
    """On the diagonal it is the diagonal's compare alone, with a pair for and one against."""
    why = analyze(causal_window, None, None, 1024, 1024).why(5, 5)

    assert [term.text for term in why.deciding] == ["q_idx >= kv_idx"]
    assert "true at q_idx=640, kv_idx=640; false at q_idx=640, kv_idx=641" in str(why)
    assert "as are 8,256 of 16,384" in str(why)


def test_captured_tensors_have_their_names_and_values() -> None:
    """Of the tile, not of the whole tensor."""
    text = str(analyze(documents, None, None, 200, 200, 32).why(5, 1))

    ids = [DOCUMENTS[160:192], DOCUMENTS[32:64]]
    shown = [f"[{int(x.min())}, {int(x.max())}]" for x in ids]
    assert f"DOCUMENTS[q_idx] in {shown[0]}, DOCUMENTS[kv_idx] in {shown[1]}" in text
    assert "none of these ever holds:" in text


def test_terms_may_decide_together() -> None:
    """Two conditions that are each true somewhere, but never both."""
    why = analyze(lambda b, h, q, k: (q - k < 100) & (q - k >= 100), None, None, 512, 512).why(3, 2)

    assert why.kind is Kind.EMPTY
    assert [term.truth for term in why.deciding] == [Truth.MAYBE, Truth.MAYBE]
    assert "these never hold together:" in str(why)


def test_what_ranges_do_not_show_is_told() -> None:
    """A parity that never fits is found by looking at the pairs, and the text says so."""
    why = analyze(lambda b, h, q, k: (q - q) + 2 * (q % 2) == 2 * (k % 2) + 1, 1, 1, 64, 64, 32)

    assert "found pair by pair" in str(why.why(0, 0))


def test_composed_kernels_show_each_line() -> None:
    """Of masks joined by & | ~, each term has the line of the function that it was written in."""
    composed = attnc.kernel(causal_window) & ~attnc.kernel(documents)
    why = composed.analyze(200, 200, BLOCK_SIZE=32).why(5, 1)

    places = {term.location.source for term in [*why.deciding, *why.others] if term.location}
    assert "near = q_idx - kv_idx < 300" in places
    assert any(place.startswith("return (DOCUMENTS[q_idx]") for place in places)


def test_a_function_without_source_is_explained() -> None:
    """As typed into a REPL: the term is there, its line is not."""
    mask = eval("lambda b, h, q, k: (q - k) % 2 == 0")
    text = str(analyze(mask, None, None, 64, 64, 32).why(1, 0))

    assert "(q_idx - kv_idx) % 2 == 0  holds for some pairs" in text


def test_a_constant_mask_is_explained() -> None:
    """No condition, but a reason."""
    why = analyze(attnc.noop_mask, None, None, 64, 64, 32).why(1, 1)

    assert (why.kind, why.hidden) == (Kind.FULL, None)
    assert "True  always holds" in str(why)


def test_what_a_block_mask_lists_is_told_apart_from_its_mask() -> None:
    """Its lists are the truth: a tile that they leave out is EMPTY, whatever the mask_mod is."""
    blocks = attnc.create_block_mask(documents, None, None, 384, 384)
    cut = attnc.BlockMask.from_kv_blocks(
        torch.ones(1, 1, 3, dtype=torch.int32),
        torch.arange(3, dtype=torch.int32)[None, None, :, None].expand(1, 1, 3, 3).contiguous(),
        BLOCK_SIZE=128,
        mask_mod=causal_window,
        seq_lengths=(384, 384),
    )
    kernel = attnc.kernel(lambda score, b, h, q_idx, kv_idx: score, mask=cut)
    found = Inspection.of(kernel, shape=(1, 1, 384, 384, 16)).analysis(128)

    left_out, listed = found.why(2, 0), found.why(1, 1)
    assert (left_out.kind, left_out.visible, left_out.n_visible) == (Kind.EMPTY, None, 0)
    assert left_out.term.truth is not Truth.NEVER
    assert "does not list it" in str(left_out)
    assert (listed.kind, listed.n_visible) == (Kind.PARTIAL, 128 * 129 // 2)
    assert blocks.shape == cut.shape


def test_a_block_mask_can_be_analyzed() -> None:
    """The tiles are those that it lists, also through a kernel, with their reasons."""
    blocks = attnc.create_block_mask(documents, None, None, 200, 200)
    kernel = attnc.kernel(lambda score, b, h, q_idx, kv_idx: score, mask=blocks)

    found = kernel.analyze(200, 200, BLOCK_SIZE=64)
    assert found.table == blocks.table.refine(64, 64)
    assert "The block mask lists it as partial" in str(found.why(0, 0))
    with pytest.raises(AnalysisArgumentError, match="it must divide the block mask's 128 x 128"):
        analyze(blocks, None, None, 200, 200, 96)


def test_tiles_that_are_not_there_are_refused() -> None:
    """With the number that was given, and those that there are."""
    found = analyze(causal_window, 1, 2, 256, 256)
    with pytest.raises(AnalysisArgumentError, match=r"q_block is -1; it must be in range\(2\)"):
        found.why(-1, 0)
    with pytest.raises(AnalysisArgumentError, match=r"h is 2; it must be in range\(2\)"):
        found.why(0, 0, h=2)


def test_many_shared_terms_are_explained_quickly() -> None:
    """Exclusive ors use each term twice: what is shared is looked at and listed once."""

    def parity(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        value = q_idx >= kv_idx
        for shift in range(12):
            value = value ^ ((q_idx >> shift) % 3 == (kv_idx >> shift) % 3)
        return value

    why = analyze(parity, None, None, 64, 64, 32).why(1, 0)

    assert len(why.deciding) <= 26
    assert len(str(why).splitlines()) < 500


def test_conditions_keep_their_order_and_are_listed_once() -> None:
    """As written, however they are nested and negated."""
    found = analyze(
        lambda b, h, q, k: ((q >= k) | (k < 4)) & ~((q < k) | (h == 1)), 1, 2, 64, 64, 32
    )

    texts = [attnc.printer.format_expr(c.expr) for c in conditions_of(formula_of(found.expr))]
    assert texts == ["q_idx >= kv_idx", "kv_idx < 4", "h != 1"]


@given(recipes(), st.integers(0, 2), st.sampled_from([(16, 16), (32, 24), (64, 48)]))
def test_tiles_told_together_are_told_as_each_alone(
    recipe: Recipe, h: int, blocks: tuple[int, int]
) -> None:
    """Neighbours share what is computed for them; that changes nothing that is said."""
    analysis = analyze(recipe, None, 3, N_QUERIES, N_KEYS, blocks)
    table = analysis.table
    rows = (0, table.n_q_blocks - 1)
    tiles = [(row, column) for row in rows for column in range(table.n_kv_blocks)]

    together = dict(analysis.whys(tiles, 0, h))

    assert list(together) == sorted(set(tiles))
    for tile in tiles[:: max(len(tiles) // 5, 1)]:
        assert str(together[tile]) == str(analysis.why(*tile, 0, h))
