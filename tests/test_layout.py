"""Orders of tokens: the same attention, in fewer tiles."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attnc
from attnc import layout, library
from attnc.blocks import classify
from attnc.layout.pairs import visible_pairs
from attnc.program import build_program
from attnc.runtime.reference import reference_attention

Grid = tuple[int, ...]


@st.composite
def grids(draw: Any) -> Grid:
    return tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 6, 8]), min_size=1, max_size=3)))


@st.composite
def layouts(draw: Any, grid: Grid) -> layout.Layout:
    """Any order that the package makes of a grid."""
    n = math.prod(grid)
    seed = draw(st.integers(0, 99))
    generator = torch.Generator().manual_seed(seed)
    kind = draw(st.sampled_from(["raster", "tiled", "shifted", "axes", "dilated", "ids", "given"]))
    parts = [draw(st.integers(1, size)) for size in grid]
    match kind:
        case "raster":
            return layout.raster(grid)
        case "tiled":
            return layout.tiled(grid, parts, draw(st.permutations(range(len(grid)))))
        case "shifted":
            whole = [draw(st.sampled_from([p for p in range(1, n + 1) if not n % p])) for n in grid]
            return layout.tiled(grid, whole, shift=parts)
        case "axes":
            return layout.transposed(grid, draw(st.permutations(range(len(grid)))))
        case "dilated":
            return layout.dilated(grid, parts)
        case "ids":
            return layout.sorted_by(torch.randint(0, 4, (n,), generator=generator))
        case _:
            return layout.from_order(torch.randperm(n, generator=generator))


@given(st.data())
def test_every_token_has_one_place(data: st.DataObject) -> None:
    """``order`` and ``places`` are inverse permutations; tensors come back as they were."""
    found = data.draw(layouts(data.draw(grids())))
    n = found.n_tokens

    assert torch.equal(found.order.sort().values, torch.arange(n))
    assert torch.equal(found.order[found.places], torch.arange(n))
    x = torch.arange(n * 6).reshape(2, 3, n)
    assert torch.equal(found.restore(found.arrange(x)), x)
    assert torch.equal(found.arrange(x)[:, :, 0], x[:, :, found.order[0]] if n else x[:, :, 0])


@given(st.data())
def test_mask_of_places_is_the_mask_of_their_tokens(data: st.DataObject) -> None:
    """The rewritten and simplified predicate, at every pair."""
    grid = data.draw(grids())
    found = data.draw(layouts(grid))
    n = found.n_tokens
    ids = torch.arange(n) * 7 % 5
    size = [data.draw(st.integers(1, length)) for length in grid]
    masks = [library.documents(ids), library.causal() | library.sliding_window(0, 2)]
    masks += [library.windows(grid, size), library.neighborhood(grid, size)]
    mask = data.draw(st.sampled_from(masks))
    dense = attnc.create_mask(mask, 1, 1, n, n)

    program = build_program(found.mask(mask), None)

    rewritten = attnc.create_mask(found.mask(mask), 1, 1, n, n)
    assert torch.equal(rewritten, dense[:, :, found.order][:, :, :, found.order])
    table = classify(
        program.mask,
        program.tensors,
        n_batch=1,
        n_heads=1,
        n_queries=n,
        n_keys=n,
        block_m=8,
        block_n=8,
    ).table
    pairs = visible_pairs(program.mask, program.tensors, table)
    assert pairs.tiles(torch.arange(n).numpy(), 8, 8) == (
        table.n_full + table.n_partial,
        table.n_full,
    )
    assert len(pairs.rows) == int(rewritten.sum())


LAYOUTS = {
    "tiles": layout.tiled((8, 12), (4, 4)),
    "shifted tiles": layout.tiled((8, 12), (4, 4), shift=2),
    "axes": layout.transposed((8, 12), (1, 0)),
    "uneven tiles": layout.tiled((8, 12), (3, 5)),
    "own order": layout.raster(96),
}


@pytest.mark.parametrize(
    ("name", "backend"), [*((name, "cpu") for name in LAYOUTS), ("shifted tiles", "triton")]
)
def test_layout_changes_no_result(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """out and lse with grouped heads, a learned bias and a mask; all gradients too."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    chosen = LAYOUTS[name]
    mask, table = library.windows((8, 12), 4, shift=2), torch.randn(4, 15, 23, requires_grad=True)
    score = library.relative_bias_2d(table, (8, 12))
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, heads, 96, 16, generator=generator, requires_grad=True)
        for heads in (4, 2, 2)
    )
    grad_out, grad_lse = torch.randn(2, 4, 96, 16), torch.randn(2, 4, 96)

    out, lse = attnc.attention(
        *(q, k, v),
        mask=mask,
        score=score,
        enable_gqa=True,
        return_lse=True,
        layout=chosen,
        backend=backend,
    )

    expected = reference_attention(q, k, v, mask=mask, score=score, enable_gqa=True)
    torch.testing.assert_close(out.double(), expected.out, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lse.double(), expected.lse, rtol=1e-4, atol=1e-5)
    inputs = (q, k, v, table)
    found = torch.autograd.grad((out, lse), inputs, (grad_out, grad_lse))
    wanted = torch.autograd.grad(
        (expected.out, expected.lse), inputs, (grad_out.double(), grad_lse.double())
    )
    for actual, oracle in zip(found, wanted, strict=True):
        torch.testing.assert_close(actual, oracle.to(actual.dtype), rtol=1e-3, atol=1e-4)


def test_decorator_takes_a_layout() -> None:
    """For every run, and in a compiled graph too."""

    @attnc.kernel(layout=layout.tiled((8, 8), 4))
    def same_row(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return q_idx // 8 == kv_idx // 8

    q, k, v = torch.randn(3, 1, 2, 64, 16)
    expected = reference_attention(q, k, v, mask=same_row.fn).out.float()

    torch.testing.assert_close(same_row(q, k, v), expected, rtol=1e-4, atol=1e-5)
    compiled = torch.compile(lambda *x: same_row(*x), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(q, k, v), expected, rtol=1e-4, atol=1e-5)


def visited(found: layout.Search, name: str) -> int:
    return next(c.n_visited for c in found.candidates if c.layout.name == name)


def test_windows_are_best_in_window_order() -> None:
    """Swin on 64 x 64: 11.7 % of tiles shifted in raster order, 3.1 % window by window."""
    plain = layout.search(library.windows((64, 64), 8), (64, 64))
    shifted = layout.search(library.windows((64, 64), 8, shift=4), (64, 64))

    assert (visited(plain, "raster"), plain.candidates[0].n_visited) == (128, 32)
    assert (visited(shifted, "raster"), shifted.candidates[0].n_visited) == (120, 32)
    assert shifted.best.name == "tiles of 8 x 8, shifted by 4 x 4"
    program = build_program(plain.best.mask(library.windows((64, 64), 8)), None)
    assert program.mask is build_program(library.chunked(64), None).mask


def test_video_is_best_frame_by_frame_or_pixel_by_pixel() -> None:
    """A temporal head of 8 frames of 16 x 16 sees 1 tile in 16 when the time runs fastest."""
    temporal = layout.search(library.axial((8, 16, 16), 0), (8, 16, 16))

    assert (visited(temporal, "raster"), temporal.candidates[0].n_visited) == (128, 16)
    assert temporal.best.name == "axes 1, 2, 0"


def test_dilated_neighbourhoods_are_best_in_groups() -> None:
    dilated = layout.search(library.neighborhood((64, 64), 7, dilation=4), (64, 64))

    assert dilated.best.name == "groups of dilation 4 x 4"


def test_scattered_documents_are_best_sorted() -> None:
    """By the numbers that the mask captures."""
    ids = torch.randint(0, 16, (1024,), generator=torch.Generator().manual_seed(0))

    found = layout.search(library.documents(ids), 1024)

    assert found.best.name == "sorted by captured tensor 0"
    assert visited(found, "raster") == 64
    assert found.candidates[0].n_visited < 30


@pytest.mark.parametrize(
    ("mask", "grid"),
    [
        (library.causal(), 2048),
        (library.sliding_window(300), 2048),
        (library.neighborhood((64, 64), 7), (64, 64)),
        (attnc.noop_mask, (16, 16)),
    ],
    ids=["causal", "window", "neighbourhood", "full"],
)
def test_mask_that_no_order_helps_is_left_alone(mask: Any, grid: Any) -> None:
    found = layout.search(mask, grid)

    assert found.best.is_own
    assert "* raster" in str(found)


@settings(max_examples=20)
@given(st.data())
def test_search_counts_what_the_analysis_counts(data: st.DataObject) -> None:
    """For every candidate, of masks that differ by batch and head too."""
    grid = data.draw(grids())
    n = math.prod(grid)
    left = torch.tensor([1, 9])
    masks = [library.windows_per_head(left), library.axial(grid, 0), library.chunked(5)]
    mask = data.draw(st.sampled_from(masks))
    block = data.draw(st.sampled_from([8, 16, (8, 16)]))

    found = layout.search(mask, grid, H=2, BLOCK_SIZE=block)

    for candidate in found.candidates:
        counted = attnc.analyze(candidate.layout.mask(mask), None, 2, n, n, block)
        assert candidate.n_visited == counted.n_full + counted.n_partial
        assert candidate.n_full == counted.n_full


def test_many_pairs_are_sampled_and_the_finalists_counted() -> None:
    """8,192 tokens whose mask visits a third of 64 million pairs."""
    mask = library.sliding_tiles((8, 32, 32), (4, 8, 8), (1, 3, 3))

    found = layout.search(mask, (8, 32, 32))

    assert len(found.candidates) < 20
    assert found.candidates[0].n_visited == found.candidates[0].n_full  # 9 of 16 tiles, whole
    assert found.candidates[0].n_visited * 32 == found.candidates[0].n_tiles * 9
