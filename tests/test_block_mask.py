"""BlockMask agrees with PyTorch's, list for list, and its lists are the truth."""

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import flex_attention as torch_flex

from attnc import BlockMask, create_block_mask, create_mask
from attnc.attend import attention
from attnc.errors import (
    BlockMaskArgumentError,
    BlockMaskLengthError,
    BlockMaskRowsError,
    BlockMaskShapeError,
    SlicedMaskModError,
)
from attnc.runtime.reference import reference_attention

ROOT = Path(__file__).parent.parent
DOCUMENTS = torch.tensor([[0] * 70 + [1] * 100 + [2] * 130, [0] * 150 + [1] * 149 + [5]])


def causal(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


def window(b, h, q_idx, kv_idx):
    return (q_idx - kv_idx).abs() < 40


def per_head(b, h, q_idx, kv_idx):
    return (q_idx - kv_idx < 30 * (h + 1)) & (q_idx >= kv_idx)


def documents(b, h, q_idx, kv_idx):
    return DOCUMENTS[b, q_idx] == DOCUMENTS[b, kv_idx]


MASKS = [causal, window, per_head, documents]
LISTS = [
    f"{full}{axis}_{part}"
    for axis in ("kv", "q")
    for full in ("", "full_")
    for part in ("num_blocks", "indices")
]


def listed(num_blocks: torch.Tensor, indices: torch.Tensor) -> list[list[int]]:
    """The block numbers that count, row by row; what follows them is arbitrary."""
    rows = indices.reshape(-1, indices.shape[-1])
    return [sorted(row[:n].tolist()) for n, row in zip(num_blocks.reshape(-1), rows, strict=True)]


@pytest.mark.parametrize("mask_mod", MASKS)
@pytest.mark.parametrize("lengths", [(300, 300), (128, 300), (1, 129)])
@pytest.mark.parametrize("block_size", [128, (64, 32)])
def test_lists_are_those_of_pytorch(mask_mod, lengths, block_size) -> None:
    """The same counts, the same blocks, partial and full, and the same transposed."""
    ours = create_block_mask(mask_mod, 2, 3, *lengths, BLOCK_SIZE=block_size)
    theirs = torch_flex.create_block_mask(
        mask_mod, 2, 3, *lengths, device="cpu", BLOCK_SIZE=block_size
    )

    for number, indices in zip(LISTS[::2], LISTS[1::2], strict=True):
        mine, other = getattr(ours, number), getattr(theirs, number)
        assert mine.dtype == other.dtype
        assert torch.equal(mine, other), number
        assert getattr(ours, indices).shape == getattr(theirs, indices).shape
        assert listed(mine, getattr(ours, indices)) == listed(other, getattr(theirs, indices))
    assert ours.shape == theirs.shape
    assert ours.numel() == theirs.numel()
    assert torch.equal(ours.to_dense(), theirs.to_dense())


@pytest.mark.parametrize("mask_mod", MASKS)
def test_to_torch_runs_in_pytorch(mask_mod) -> None:
    """PyTorch's own flex_attention takes the converted mask and gives our result."""
    q, k, v = torch.randn(3, 2, 3, 300, 16, dtype=torch.float64)
    block_mask = create_block_mask(mask_mod, 2, 3, 300, 300)

    theirs = torch_flex.flex_attention(q, k, v, block_mask=block_mask.to_torch())

    torch.testing.assert_close(attention(q, k, v, mask=block_mask), theirs)


@pytest.mark.parametrize("mask_mod", MASKS)
@pytest.mark.parametrize("block_size", [128, (64, 32), 100, 8])
def test_pytorchs_block_mask_is_accepted(mask_mod, block_size) -> None:
    """Whatever its blocks, a mask made by PyTorch gives the dense result."""
    q, k, v = torch.randn(3, 2, 3, 300, 16)
    block_mask = torch_flex.create_block_mask(
        mask_mod, 2, 3, 300, 300, device="cpu", BLOCK_SIZE=block_size
    )

    out = attention(q, k, v, mask=block_mask)

    expected = reference_attention(q, k, v, mask=mask_mod).out
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)


def test_the_lists_are_the_truth() -> None:
    """An absent block is skipped and a full one is not masked, whatever mask_mod says."""
    number = torch.tensor([[[1, 1]]], dtype=torch.int32)
    partial = torch.tensor([[[[0, 0], [1, 0]]]], dtype=torch.int32)
    full = torch.tensor([[[[1, 0], [0, 0]]]], dtype=torch.int32)
    full_number = torch.tensor([[[1, 0]]], dtype=torch.int32)
    block_mask = BlockMask.from_kv_blocks(number, partial, full_number, full, 64, causal)
    q, k, v = torch.randn(3, 1, 2, 128, 32)
    visible = torch.zeros(128, 128, dtype=torch.bool)
    visible[:64, :64] = visible[64:, 64:] = torch.ones(64, 64).tril().bool()
    visible[:64, 64:] = True

    out = attention(q, k, v, mask=block_mask)

    expected = reference_attention(q, k, v, mask=visible.expand(1, 2, 128, 128)).out
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)


def test_a_block_mask_is_a_snapshot_and_a_function_is_live() -> None:
    """A change of a captured tensor moves the tiles of `mask=`, not those of a block mask."""
    limit = torch.tensor([64])

    def prefix(b, h, q_idx, kv_idx):
        return kv_idx < limit[0]

    q, k, v = torch.randn(3, 1, 1, 256, 16)
    block_mask = create_block_mask(prefix, None, None, 256, 256)
    limit[0] = 256

    snapshot = attention(q, k, v, mask=block_mask)
    live = attention(q, k, v, mask=prefix)

    first_block = attention(q, k[:, :, :128], v[:, :, :128])
    assert not torch.allclose(snapshot, live)
    torch.testing.assert_close(live, attention(q, k, v))
    # The table was made while only the first block had visible keys: 64 of its 128.
    torch.testing.assert_close(snapshot, first_block)


def test_slices_need_a_new_mask_mod() -> None:
    """Indices of a slice are not those of the whole: running it says so."""
    block_mask = create_block_mask(causal, 2, 3, 256, 256)
    sliced = block_mask[0, :, 1]
    q, k = torch.randn(1, 3, 128, 16), torch.randn(1, 3, 256, 16)
    with pytest.raises(SlicedMaskModError, match="indices of the slice"):
        attention(q, k, k, mask=sliced)

    sliced.mask_mod = lambda b, h, q_idx, kv_idx: q_idx + 128 >= kv_idx
    sliced.seq_lengths = (128, 256)
    out = attention(q, k, k, mask=sliced)

    expected = attention(q, k, k, mask=sliced.mask_mod)
    torch.testing.assert_close(out, expected)


def test_adjust_crops_to_the_upper_left_corner() -> None:
    """The tiles of the shorter mask, also where PyTorch's `_adjust` keeps others."""
    for mask_mod in (causal, window):
        cropped = create_block_mask(mask_mod, None, None, 300, 300, BLOCK_SIZE=16)._adjust(140, 90)
        expected = create_block_mask(mask_mod, None, None, 140, 90, BLOCK_SIZE=16)
        assert cropped.shape == (1, 1, 140, 90)
        assert torch.equal(cropped.to_dense(), expected.to_dense())
    with pytest.raises(BlockMaskLengthError):
        cropped._adjust(145, 90)


def test_lists_that_are_written_to_are_the_truth() -> None:
    """By assignment or in place, before or after the first call: what the lists say counts."""
    q, k, v = torch.randn(3, 1, 2, 256, 32)
    block_mask = create_block_mask(causal, None, None, 256, 256)
    attention(q, k, v, mask=block_mask)

    block_mask.kv_num_blocks[..., 0] = 0  # the first block of queries sees nothing
    assert attention(q, k, v, mask=block_mask)[:, :, :128].abs().max() == 0

    block_mask.full_kv_num_blocks = torch.zeros_like(block_mask.full_kv_num_blocks)
    expected = attention(q[:, :, 128:], k[:, :, 128:], v[:, :, 128:], mask=causal)
    torch.testing.assert_close(attention(q, k, v, mask=block_mask)[:, :, 128:], expected)

    block_mask.seq_lengths = (256, 128)  # the second block of keys is gone: nothing is left
    assert attention(q, k[:, :, :128], v[:, :, :128], mask=block_mask).abs().max() == 0


@pytest.mark.parametrize(
    "read",
    [
        lambda mask: mask.to("cpu"),
        lambda mask: mask._adjust(64, 64),
        copy.deepcopy,
        lambda mask: mask.to("cpu").to("cpu"),
        lambda mask: mask,
    ],
    ids=["to", "adjust", "deepcopy", "twice", "itself"],
)
@pytest.mark.parametrize(
    "write",
    [
        lambda blocks: blocks.zero_(),
        lambda blocks: blocks.data.zero_(),
        lambda blocks: blocks.numpy().fill(0),
    ],
    ids=["in place", "data", "numpy"],
)
def test_writes_are_heeded_whoever_reads_first(read, write) -> None:
    """Also those that no version counter sees, and before any call."""
    block_mask = create_block_mask(causal, 1, 1, 64, 64, "cpu", BLOCK_SIZE=16)
    write(block_mask.full_kv_num_blocks)

    written = read(block_mask)

    q, k, v = torch.randn(3, 1, 2, 64, 16)
    diagonal = torch.arange(64)[:, None] // 16 == torch.arange(64) // 16
    visible = diagonal & torch.ones(64, 64, dtype=torch.bool).tril()
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, visible)
    torch.testing.assert_close(attention(q, k, v, mask=written), expected)
    assert torch.equal(written.to_dense()[0, 0], torch.eye(4, dtype=torch.int32))


def test_lists_may_be_longer_than_the_lengths() -> None:
    """Rows and blocks beyond the lengths are left out; rows that are missing are an error."""
    block_mask = create_block_mask(causal, None, None, 256, 256, BLOCK_SIZE=64)
    block_mask.seq_lengths = (100, 120)
    q, k = torch.randn(1, 2, 100, 16), torch.randn(1, 2, 120, 16)
    torch.testing.assert_close(attention(q, k, k, mask=block_mask), attention(q, k, k, mask=causal))
    block_mask.seq_lengths = (257, 120)
    with pytest.raises(BlockMaskRowsError, match="have 4 rows of blocks, but 257 queries"):
        attention(torch.randn(1, 2, 257, 16), k, k, mask=block_mask)


def test_pytorchs_lists_that_are_written_to_are_the_truth() -> None:
    """A converted mask is remembered, but not against what it says now."""
    q, k, v = torch.randn(3, 1, 2, 256, 32)
    block_mask = torch_flex.create_block_mask(causal, None, None, 256, 256, device="cpu")
    attention(q, k, v, mask=block_mask)
    block_mask.kv_num_blocks[..., 0] = 0
    assert attention(q, k, v, mask=block_mask)[:, :, :128].abs().max() == 0
    block_mask.mask_mod = lambda b, h, q_idx, kv_idx: q_idx < 0
    block_mask.full_kv_num_blocks = torch.zeros_like(block_mask.full_kv_num_blocks)
    assert attention(q, k, v, mask=block_mask).abs().max() == 0


def test_create_mask_is_dense() -> None:
    """A mask_mod gives its values; a score_mod shows what it does not hide."""
    visible = create_mask(causal, None, None, 5, 7)
    hidden = create_mask(
        lambda score, b, h, q, kv: torch.where(q >= kv, score, -torch.inf), None, None, 5, 7
    )
    assert torch.equal(visible, torch.ones(1, 1, 5, 7, dtype=torch.bool).tril())
    assert torch.equal(visible, hidden)


def test_wrong_lengths_and_shapes_are_named() -> None:
    """The error says for what the mask was made and what it met."""
    q, k, v = torch.randn(3, 2, 3, 200, 16)
    with pytest.raises(BlockMaskLengthError, match="created for 300 queries and 200 keys"):
        attention(q, k, v, mask=create_block_mask(causal, None, None, 300, 200))
    with pytest.raises(BlockMaskShapeError, match="block_mask has H 2, but q has 3"):
        attention(q, k, v, mask=create_block_mask(causal, None, 2, 200, 200))
    with pytest.raises(BlockMaskArgumentError, match="give a number above 0"):
        create_block_mask(causal, None, None, 200, 200, BLOCK_SIZE=0)
    with pytest.raises(BlockMaskArgumentError, match="go together"):
        BlockMask.from_kv_blocks(torch.ones(1, 1, 1), torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1))


@pytest.mark.parametrize("sizes", [(1, 1, -9, 9), (1, 1, 9, "9"), (-1, 1, 9, 9), (1, 1, 9, 2.5)])
@pytest.mark.parametrize("create", [create_block_mask, create_mask])
def test_sizes_are_checked(create, sizes) -> None:
    """Lengths and counts are numbers of at least 0."""
    with pytest.raises(BlockMaskArgumentError, match="give a number of at least 0"):
        create(lambda b, h, q_idx, kv_idx: q_idx >= kv_idx, *sizes)


@pytest.mark.parametrize("integer", [np.int64, np.int32, torch.tensor])
def test_sizes_may_be_integers_of_numpy_or_torch(integer) -> None:
    """PyTorch takes them, and scripts get lengths by reducing arrays."""
    block = (integer(32), integer(64))

    block_mask = create_block_mask(
        causal, integer(2), integer(1), integer(100), integer(90), "cpu", block
    )

    expected = create_block_mask(causal, 2, 1, 100, 90, "cpu", (32, 64))
    assert (block_mask.shape, block_mask.BLOCK_SIZE) == (expected.shape, expected.BLOCK_SIZE)
    assert torch.equal(block_mask.kv_indices, expected.kv_indices)
    assert create_mask(causal, None, None, integer(9), integer(8)).shape == (1, 1, 9, 8)


def test_a_million_tokens_make_no_lists() -> None:
    """The table of a packed batch is small; index lists would take 512 MB here."""
    ids = torch.arange(1 << 20) // 1000

    def packed(b, h, q_idx, kv_idx):
        return (q_idx >= kv_idx) & (ids[q_idx] == ids[kv_idx])

    block_mask = create_block_mask(packed, None, None, 1 << 20, 1 << 20)

    table = block_mask.table
    assert table.starts.nbytes + table.offsets.nbytes < 1 << 20
    assert block_mask._lists == {}


@pytest.mark.slow
def test_the_benchmark_of_building_compares_equal_masks() -> None:
    """It checks that all builders agree, and prints a line per length."""
    command = [sys.executable, "-m", "benchmarks.block_masks", "--lengths", "500", "--dry"]

    result = subprocess.run(
        [*command, "--rounds", "1"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split("|")[1].strip() for line in lines if line][::2] == ["tokens", "500"]
