"""``attnc.analyze``: counts, reasons and pictures of real mask functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc.analysis import analyze
from attnc.errors import AnalysisArgumentError
from attnc.run_table import Kind


def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


def causal_window(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    near = q_idx - kv_idx < 300
    return (q_idx >= kv_idx) & near


DOCUMENTS = torch.sort(torch.randint(0, 12, (1000,), generator=torch.Generator().manual_seed(3)))[0]
WIDTHS = torch.tensor([5, 80, 700])


def documents(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return (DOCUMENTS[q_idx] == DOCUMENTS[kv_idx]) & (q_idx >= kv_idx)


def width_of_head(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return (q_idx - kv_idx).abs() < WIDTHS[h]


MASKS = [causal, causal_window, documents, width_of_head]


def test_causal_counts() -> None:
    """A causal square of 8 x 8 tiles has 28 full, 8 partial and 28 empty ones."""
    found = analyze(causal, None, None, 1024, 1024)

    assert (found.n_full, found.n_partial, found.n_empty, found.n_evaluated) == (28, 8, 28, 0)
    assert found.sparsity == 28 / 64
    assert found.flops_saved == 28 / 64
    assert found.bounds is not None


def test_documents_have_no_closed_form_and_need_no_elements() -> None:
    """A document mask is read from the tensor's ranges, not from its elements."""
    found = analyze(documents, None, None, 1000, 1000, 64)

    assert found.bounds is None
    assert found.n_evaluated == 0


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(MASKS), st.integers(1, 1000), st.integers(1, 1000), st.data())
def test_flops_saved_counts_pairs_of_empty_tiles(
    mask: Any, n_queries: int, n_keys: int, data: st.DataObject
) -> None:
    """The saved share is that of the pairs in EMPTY tiles, ragged tiles by their true size."""
    found = analyze(mask, 1, 3, n_queries, n_keys, (64, 128))
    table = found.table
    heights = np.minimum(64, n_queries - np.arange(table.n_q_blocks) * 64)
    widths = np.minimum(128, n_keys - np.arange(table.n_kv_blocks) * 128)
    sizes = heights[:, None] * widths * (table.to_dense() == Kind.EMPTY)

    assert found.flops_saved == pytest.approx(
        sizes.sum() / (n_queries * n_keys * table.n_heads), abs=1e-12
    )


def test_picture_of_a_window() -> None:
    """Small masks show every tile."""
    assert analyze(causal_window, None, None, 640, 640).picture().splitlines() == [
        "▒····",
        "█▒···",
        "▒█▒··",
        "▒▒█▒·",
        "·▒▒█▒",
    ]


def test_large_pictures_are_downsampled() -> None:
    """A character of a large picture stands for a square of tiles, and the last line says so."""
    *picture, scale = analyze(causal, None, None, 16384, 16384).picture(16).splitlines()

    assert picture == ["█" * i + "▒" + "·" * (15 - i) for i in range(16)]
    assert scale == "one character: 8 x 8 tiles, 1,024 queries x 1,024 keys"


@pytest.mark.parametrize("lengths", [(1 << 20, 1 << 20), (1 << 20, 64), (64, 1 << 20), (9000, 70)])
def test_a_picture_fits_its_frame(lengths: tuple[int, int]) -> None:
    """However long the mask: at most so many lines of so many characters, and its scale."""
    picture = analyze(causal_window, None, None, *lengths).drawn(40, 12)

    assert len(picture.lines) <= 12
    assert max(map(len, picture.lines)) <= 40
    assert picture.scale


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(MASKS), st.integers(1, 1500), st.integers(1, 1500), st.integers(1, 9), st.data()
)
def test_a_character_is_full_or_empty_where_its_tiles_are(
    mask: Any, n_queries: int, n_keys: int, frame: int, data: st.DataObject
) -> None:
    """Each character against the tiles it stands for, in pictures of any shape."""
    found = analyze(mask, 1, 3, n_queries, n_keys, (32, 64))
    h = data.draw(st.integers(0, 2))
    picture = found.drawn(frame, 10 - frame, h=h)
    dense = found.table.to_dense()
    tiles = dense[0, min(h, dense.shape[1] - 1)]

    for row, line in enumerate(picture.lines):
        for column, shown in enumerate(line):
            rows, columns = row * picture.row_step, column * picture.column_step
            part = tiles[rows : rows + picture.row_step, columns : columns + picture.column_step]
            kinds = set(part.reshape(-1).tolist())
            expected = {(Kind.EMPTY,): "·", (Kind.FULL,): "█"}.get(tuple(kinds), "▒")
            assert shown == expected


@pytest.mark.parametrize("lengths", [(0, 0), (0, 5), (5, 0)])
def test_nothing_to_analyze_is_fine(lengths: tuple[int, int]) -> None:
    """Lengths of 0 have no tiles."""
    found = analyze(causal, None, None, *lengths)

    assert (found.n_full, found.n_partial, found.n_empty) == (0, 0, 0)
    assert found.flops_saved == found.sparsity == 0.0
    assert found.picture().strip() == ""


def test_wrong_arguments_are_named() -> None:
    """Block sizes, lengths and tiles out of range are told with the value."""
    with pytest.raises(AnalysisArgumentError) as block:
        analyze(causal, None, None, 8, 8, 0)
    with pytest.raises(AnalysisArgumentError) as length:
        analyze(causal, None, None, -1, 8)
    with pytest.raises(AnalysisArgumentError) as tile:
        analyze(causal, None, None, 256, 256).why(0, 2)

    assert str(block.value) == "analyze: BLOCK_SIZE is 0; give one positive number or two."
    assert str(length.value) == "analyze: Q_LEN is -1; it must not be negative."
    assert str(tile.value) == "analyze: kv_block is 2; it must be in range(2)."
