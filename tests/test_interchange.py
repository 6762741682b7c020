"""Masks to and from the formats of other libraries."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st
from torch.nn.attention import flex_attention as pytorch

import attnc
from attnc import interchange, library
from attnc.errors import NotDocumentsError, NotFlashMaskError
from attnc.interchange.runs import visible_runs
from attnc.interchange.subject import subject_of

ROOT = Path(__file__).parents[1]
lengths = st.lists(st.integers(0, 20), max_size=5)


def int32(numbers: Any) -> torch.Tensor:
    return torch.as_tensor(numbers, dtype=torch.int32)


def starts_of(sizes: list[int]) -> torch.Tensor:
    return int32([0, *sizes]).cumsum(0, dtype=torch.int32)


def dense_of(mask: Any, n_queries: int, n_keys: int, B: int = 1, H: int = 1) -> torch.Tensor:
    """Every pair, by evaluation: (B, H, n_queries, n_keys)."""
    dense = attnc.create_mask(mask, B, H, n_queries, n_keys, device="cpu")
    return dense.expand(B, H, n_queries, n_keys)


def dense_documents(q_sizes: list[int], k_sizes: list[int], causal: bool) -> torch.Tensor:
    """One block per document, of a bottom-right triangle if causal."""
    blocks = [
        torch.ones(n_q, n_k, dtype=torch.bool).tril(n_k - n_q if causal else max(n_k, 1))
        for n_q, n_k in zip(q_sizes, k_sizes, strict=True)
    ]
    return torch.block_diag(*blocks).bool() if blocks else torch.zeros(0, 0, dtype=torch.bool)


def hidden_by_flashmask(rows: torch.Tensor, causal: bool, n_queries: int) -> torch.Tensor:
    """Column by column, in slices, as FlashMask's own tests build the dense mask."""
    n_batch, heads, n_keys, width = rows.shape
    hidden = torch.zeros(n_batch, heads, n_queries, n_keys, dtype=torch.bool)
    for b in range(n_batch):
        for h in range(heads):
            for key in range(n_keys):
                column, r = hidden[b, h, :, key], rows[b, h, key].tolist()
                if causal:
                    column[: max(0, key - (n_keys - n_queries))] = True
                if width == 1 or (width == 2 and not causal):
                    column[r[0] :] = True
                else:
                    column[r[0] : r[1]] = True
                if width == 2 and not causal:
                    column[: r[1]] = True
                if width == 4:
                    column[r[2] : r[3]] = True
    return hidden


@st.composite
def row_vectors(draw: Any) -> tuple[torch.Tensor, bool, int]:
    """Any numbers, whether causal, and how many queries there are."""
    causal = draw(st.booleans())
    width = draw(st.sampled_from((1, 2) if causal else (2, 4)))
    n_queries, n_keys = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 2)), n_keys, width)
    seed = draw(st.integers(0, 999))
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, n_queries + 2, shape, generator=generator, dtype=torch.int32)
    return rows, causal, n_queries


@st.composite
def dense_masks(draw: Any) -> torch.Tensor:
    """(B, H, n_queries, n_keys) of few or of many intervals, batches and heads alike or not."""
    shape = [draw(st.integers(1, 2)), draw(st.integers(1, 2))]
    shape += [draw(st.integers(1, 36)), draw(st.integers(1, 36))]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    if draw(st.booleans()):
        return torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.1, 0.9, 1.0]))
    ends = torch.randint(0, shape[3] + 1, (*shape[:3], 2), generator=generator)
    keys = torch.arange(shape[3])
    return (ends[..., :1] <= keys) & (keys < ends[..., 1:])


@given(dense_masks(), st.booleans())
def test_runs_are_the_visible_intervals(dense: torch.Tensor, transposed: bool) -> None:
    """Each element of a line is in one of its intervals exactly if it is visible."""
    n_batch, n_heads, n_queries, n_keys = dense.shape
    mask = lambda b, h, q_idx, kv_idx: dense[b, h, q_idx, kv_idx]
    subject = subject_of("test", mask, n_queries, n_keys, n_batch, n_heads)

    runs = visible_runs(subject.transposed() if transposed else subject)

    found = torch.zeros(runs.n_groups * runs.n_lines, runs.n_across, dtype=torch.bool)
    for line, start, stop in zip(runs.lines, runs.starts, runs.stops, strict=True):
        assert not found[line, max(start - 1, 0) : stop + 1].any()
        found[line, start:stop] = True
    lines = dense.mT if transposed else dense
    assert torch.equal(found, lines.reshape(found.shape))
    hidden = runs.complement()
    for line, start, stop in zip(hidden.lines, hidden.starts, hidden.stops, strict=True):
        assert not found[line, start:stop].any()
        found[line, start:stop] = True
    assert found.all()


@given(lengths, st.data(), st.booleans())
def test_cu_seqlens_are_read_as_blocks(
    q_sizes: list[int], data: st.DataObject, causal: bool
) -> None:
    """Each document is a block; tokens beyond the last see nothing, nor are they seen."""
    k_sizes = data.draw(st.lists(st.integers(0, 20), min_size=len(q_sizes), max_size=len(q_sizes)))
    more = data.draw(st.integers(0, 3))
    n_queries, n_keys = sum(q_sizes) + more, sum(k_sizes) + more

    mask = interchange.from_cu_seqlens(starts_of(q_sizes), starts_of(k_sizes), causal=causal)

    expected = F.pad(dense_documents(q_sizes, k_sizes, causal), (0, more, 0, more))
    assert torch.equal(dense_of(mask, n_queries, n_keys)[0, 0], expected)


@given(lengths, st.data(), st.booleans())
@example([2, 3], None, True)
def test_documents_come_back_from_cu_seqlens(
    q_sizes: list[int], data: st.DataObject | None, causal: bool
) -> None:
    """What to_cu_seqlens found gives the same mask, whatever mask the documents were."""
    k_sizes = list(q_sizes)
    if data is not None:
        size = len(q_sizes)
        k_sizes = data.draw(st.lists(st.integers(0, 20), min_size=size, max_size=size))
    mask = interchange.from_cu_seqlens(starts_of(q_sizes), starts_of(k_sizes), causal=causal)
    n_queries, n_keys = sum(q_sizes), sum(k_sizes)

    found = interchange.to_cu_seqlens(mask, n_queries, n_keys)

    again = interchange.from_cu_seqlens(found.cu_seqlens_q, found.cu_seqlens_k, causal=found.causal)
    assert found.cu_seqlens_q.dtype == found.cu_seqlens_k.dtype == torch.int32
    assert (int(found.cu_seqlens_q[-1]), int(found.cu_seqlens_k[-1])) == (n_queries, n_keys)
    assert found.max_seqlen_q == max(found.cu_seqlens_q.diff().tolist(), default=0)
    assert found.max_seqlen_k == max(found.cu_seqlens_k.diff().tolist(), default=0)
    assert torch.equal(dense_of(again, n_queries, n_keys), dense_of(mask, n_queries, n_keys))


def test_documents_are_found_in_any_form() -> None:
    """Ids, a BlockMask of either library, and heads alike say the same documents."""
    sizes = [5, 40, 1, 18]
    ids = torch.arange(4).repeat_interleave(torch.tensor(sizes))
    packed = library.documents(ids) & library.causal()
    ours = attnc.create_block_mask(packed, None, None, 64, 64, device="cpu", BLOCK_SIZE=16)

    for mask in (packed, ours, ours.to_torch()):
        found = interchange.to_cu_seqlens(mask, 64, H=1)
        assert found.cu_seqlens_q.tolist() == found.cu_seqlens_k.tolist() == [0, 5, 45, 46, 64]
        assert (found.max_seqlen_q, found.max_seqlen_k, found.causal) == (40, 40, True)
    assert not interchange.to_cu_seqlens(library.documents(ids), 64).causal


@given(dense_masks())
def test_other_masks_are_told_from_documents_by_a_pair(dense: torch.Tensor) -> None:
    """Either the documents are the mask, or the error names a pair with its truth."""
    n_batch, n_heads, n_queries, n_keys = dense.shape
    mask = interchange.from_dense(dense)
    try:
        found = interchange.to_cu_seqlens(mask, n_queries, n_keys, B=n_batch, H=n_heads)
    except NotDocumentsError as error:
        named = re.search(r"b=(\d+), h=(\d+), q_idx=(\d+), kv_idx=(\d+) is (\w+)", str(error))
        assert named is not None
        b, h, q_idx, kv_idx = map(int, named.groups()[:4])
        assert dense[b, h, q_idx, kv_idx] == (named[5] == "visible")
    else:
        again = interchange.from_cu_seqlens(
            found.cu_seqlens_q, found.cu_seqlens_k, causal=found.causal
        )
        assert torch.equal(dense_of(again, n_queries, n_keys, n_batch, n_heads), dense)


@given(row_vectors())
def test_row_vectors_are_read_as_flashmask_does(vectors: tuple[torch.Tensor, bool, int]) -> None:
    """The mask of any numbers is that of FlashMask's own slices."""
    rows, causal, n_queries = vectors
    mask = interchange.from_flashmask(rows, causal, n_queries=n_queries)

    dense = dense_of(mask, n_queries, rows.shape[2], *rows.shape[:2])

    assert torch.equal(dense, ~hidden_by_flashmask(rows, causal, n_queries))


@given(row_vectors(), st.booleans())
def test_row_vectors_come_back(vectors: tuple[torch.Tensor, bool, int], forced: bool) -> None:
    """A mask of row vectors is found again, with numbers as few as it was given with."""
    rows, causal, n_queries = vectors
    n_batch, n_heads, n_keys, width = rows.shape
    mask = interchange.from_flashmask(rows, causal, n_queries=n_queries)
    options = {"causal": causal} if forced else {}

    found = interchange.to_flashmask(mask, n_queries, n_keys, B=n_batch, H=n_heads, **options)

    again = interchange.from_flashmask(**vars(found), n_queries=n_queries)
    assert found.startend_row_indices.dtype == torch.int32
    assert found.startend_row_indices.shape[3] <= width
    assert found.startend_row_indices.max() <= n_queries
    assert torch.equal(
        dense_of(again, n_queries, n_keys, n_batch, n_heads),
        dense_of(mask, n_queries, n_keys, n_batch, n_heads),
    )


@given(dense_masks(), st.sampled_from([None, True, False]))
def test_other_masks_are_told_from_row_vectors_by_a_key(
    dense: torch.Tensor, causal: bool | None
) -> None:
    """Either the row vectors are the mask, or the error names a key of too many intervals."""
    n_batch, n_heads, n_queries, n_keys = dense.shape
    mask = interchange.from_dense(dense)
    first = torch.arange(n_keys) - (n_keys - n_queries)
    above = torch.arange(n_queries)[:, None] < first
    sizes: dict[str, Any] = {"B": n_batch, "H": n_heads, "causal": causal}
    try:
        found = interchange.to_flashmask(mask, n_queries, n_keys, **sizes)
    except NotFlashMaskError as error:
        named = re.search(r"b=(\d+), h=(\d+) the key kv_idx=(\d+)", str(error))
        assert named is not None
        b, h, key = map(int, named.groups())
        column = dense[b, h, :, key]
        if causal and (column & above[:, key]).any():
            return
        hidden = F.pad(~column[~above[:, key]] if causal else ~column, (1, 0)).int()
        assert (hidden.diff() == 1).sum() > (1 if causal else 2)
    else:
        again = interchange.from_flashmask(**vars(found), n_queries=n_queries)
        assert torch.equal(dense_of(again, n_queries, n_keys, n_batch, n_heads), dense)


@pytest.mark.parametrize(
    ("mask", "width", "causal"),
    [
        (library.causal(), 1, True),
        (library.causal() & library.sliding_window(8), 1, True),
        (library.documents(torch.arange(40) // 13), 2, False),
        (library.sliding_window(4, 4), 2, False),
        (library.prefix_lm(7), 2, False),
        (library.causal() & ~library.sliding_window(8) | library.sliding_window(2, 0), 2, True),
        (library.global_window(3, 3, 2), 4, False),
    ],
    ids=["causal", "window", "documents", "both sides", "prefix", "hole", "global"],
)
def test_masks_of_the_literature_take_as_few_numbers_as_published(
    mask: Any, width: int, causal: bool
) -> None:
    """The forms of the figures of FlashMask."""
    found = interchange.to_flashmask(mask, 40)

    assert (found.startend_row_indices.shape[3], found.causal) == (width, causal)
    again = interchange.from_flashmask(**vars(found))
    assert torch.equal(dense_of(again, 40, 40), dense_of(mask, 40, 40))


@given(dense_masks())
def test_dense_masks_come_back(dense: torch.Tensor) -> None:
    """Of any number of intervals; as bool, as a bias, and through both block masks."""
    n_batch, n_heads, n_queries, n_keys = dense.shape
    mask = interchange.from_dense(dense)
    block_mask = attnc.create_block_mask(
        mask, n_batch, n_heads, n_queries, n_keys, device="cpu", BLOCK_SIZE=16
    )

    found = interchange.to_dense(mask, n_queries, n_keys, B=n_batch, H=n_heads)

    assert torch.equal(found.expand_as(dense), dense)
    for listed in (block_mask, block_mask.to_torch()):
        assert torch.equal(interchange.to_dense(listed).expand_as(dense), dense)
    bias = interchange.to_dense(mask, n_queries, n_keys, B=n_batch, H=n_heads, dtype=torch.float32)
    assert torch.equal(bias == 0, found)
    assert torch.equal(bias == -torch.inf, ~found)


def kernels_of_formats() -> dict[str, Any]:
    """One mask of every format and form, for 50 queries and 50 keys of 4 heads."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 50, (2, 2, 50, 2), generator=generator, dtype=torch.int32)
    rows[..., 1] += rows[..., 0]
    sizes, other = starts_of([17, 3, 30]), starts_of([10, 22, 18])
    return {
        "cu_seqlens": interchange.from_cu_seqlens(sizes, causal=True),
        "cu_seqlens of keys": interchange.from_cu_seqlens(sizes, other),
        "flashmask": interchange.from_flashmask(rows, True, n_heads=4),
        "flashmask of four": interchange.from_flashmask(
            torch.cat([rows, rows.flip(2)], 3), False, n_heads=4
        ),
        "dense": interchange.from_dense(torch.rand(2, 1, 50, 50, generator=generator) < 0.3),
        "dense rows": interchange.from_dense(torch.ones(50, 50, dtype=torch.bool).tril(3)),
    }


@pytest.mark.parametrize(
    "name",
    [
        "cu_seqlens",
        "cu_seqlens of keys",
        "flashmask",
        pytest.param("flashmask of four", marks=pytest.mark.slow),
        pytest.param("dense", marks=pytest.mark.slow),
        "dense rows",
    ],
)
def test_kernels_run_with_every_format(name: str) -> None:
    """Outputs and gradients are those of scaled_dot_product_attention, with groups of heads."""
    mask = kernels_of_formats()[name]
    torch.manual_seed(0)
    q = torch.randn(2, 4, 50, 16, requires_grad=True)
    k, v = (torch.randn(2, 2, 50, 16, requires_grad=True) for _ in range(2))
    dense = dense_of(mask, 50, 50, 2, 4)
    seen = dense.any(3, keepdim=True)
    weights = torch.randn(2, 4, 50, 16)

    out = mask(q, k, v, enable_gqa=True)
    found = torch.autograd.grad((out * weights).sum(), (q, k, v))

    # A row that sees nothing gives 0; SDPA is asked about others only.
    theirs = F.scaled_dot_product_attention(q, k, v, dense | ~seen, enable_gqa=True) * seen
    expected = torch.autograd.grad((theirs * weights).sum(), (q, k, v))
    torch.testing.assert_close(out, theirs, rtol=1e-4, atol=1e-5)
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_kernels_run_with_every_format_on_triton() -> None:
    """The same test, in Triton's interpreter: each form of mask once."""
    environment = {**os.environ, "ATTNC_BACKEND": "triton", "TRITON_INTERPRET": "1"}
    chosen = ["-k", "every_format and (keys or flashmask)", Path(__file__).name]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--show-capture=no", *chosen],
        cwd=Path(__file__).parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:]


@pytest.mark.parametrize("name", list(kernels_of_formats()))
def test_what_was_read_combines_and_pickles(name: str) -> None:
    """It is a Kernel as any other, also after pickle."""
    mask = kernels_of_formats()[name]

    copied = pickle.loads(pickle.dumps(mask & library.causal()))

    expected = dense_of(mask, 50, 50, 2, 4).tril()
    assert torch.equal(dense_of(copied, 50, 50, 2, 4), expected)


def test_blocks_of_pytorch_run_with_what_was_read() -> None:
    """PyTorch's own flex_attention takes the block mask of it."""
    mask = interchange.from_cu_seqlens(starts_of([100, 28]), causal=True)
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 128, 16)
    block_mask = attnc.create_block_mask(mask, None, None, 128, 128, device="cpu", BLOCK_SIZE=32)

    theirs = pytorch.flex_attention(q, k, v, block_mask=block_mask.to_torch())

    expected = F.scaled_dot_product_attention(q, k, v, interchange.to_dense(mask, 128))
    torch.testing.assert_close(theirs, expected, rtol=1e-4, atol=1e-5)


def test_long_masks_convert_without_looking_at_every_pair() -> None:
    """4 billion pairs take less than a second and a few megabytes, and no dense mask fits."""
    n = 1 << 16
    cuts = torch.arange(0, n, 997, dtype=torch.int32)
    starts = torch.cat([cuts, int32([n])])
    packed = interchange.from_cu_seqlens(starts, causal=True)

    documents = interchange.to_cu_seqlens(packed, n)
    rows = interchange.to_flashmask(packed, n)

    assert torch.equal(documents.cu_seqlens_q, starts)
    assert torch.equal(documents.cu_seqlens_k, starts)
    assert rows.causal
    ends = starts[1:].repeat_interleave(starts.diff())
    assert torch.equal(rows.startend_row_indices, ends[None, None, :, None])


def test_long_masks_of_many_intervals_are_refused_at_once() -> None:
    """A few lines tell; a table of every tile would take 16 million entries."""
    n = 1 << 16
    striped = lambda b, h, q_idx, kv_idx: (q_idx - kv_idx) % 3 == 0

    with pytest.raises(NotDocumentsError, match="q_idx=0, kv_idx=1 is hidden"):
        interchange.to_cu_seqlens(striped, n)
    with pytest.raises(NotFlashMaskError, match=r"hidden from 21845 intervals .* and more"):
        interchange.to_flashmask(striped, n)


def test_snapshots_do_not_change_with_their_source() -> None:
    """What was read from numbers holds its own."""
    starts = starts_of([4, 4])
    packed = interchange.from_cu_seqlens(starts)
    rows = torch.full((1, 1, 8, 1), 8, dtype=torch.int32)
    causal = interchange.from_flashmask(rows, True)
    starts += 1
    rows.zero_()

    assert dense_of(packed, 8, 8).sum() == 32
    assert dense_of(causal, 8, 8).sum() == 36


@pytest.mark.slow
def test_benchmark_of_packed_sequences_compares_equal_outputs() -> None:
    """Each candidate that PyTorch has a kernel for gives the output of separate calls."""
    from benchmarks import varlen

    row = varlen.measured("many short", 3)

    assert {"attnc", "padded", "one by one", "dense mask"} <= set(row["ms"])
    assert "many short" in varlen.table_of([row])
