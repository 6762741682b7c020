"""Tensors whose storage was made smaller behind their backs are told, not read beyond their end."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import attnc
from attnc.errors import FreedStorageError
from attnc.storage import ends_early, reach

BACKENDS = ("cpu", "reference", "triton")
SHAPE = (1, 2, 20, 16)


def cut(tensor: torch.Tensor, n_bytes: int = 64) -> torch.Tensor:
    """``tensor``, whose storage ends after ``n_bytes`` from now on."""
    tensor.untyped_storage().resize_(n_bytes)
    return tensor


def attend(*inputs: torch.Tensor, backend: str, **options: Any) -> Any:
    return attnc.attention(*inputs, backend=backend, **options)


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@given(
    st.permutations([0, 1, 2, 3]),
    st.lists(st.integers(0, 2), min_size=4, max_size=4),
    st.integers(0, 9),
    st.integers(-40, 8),
)
def test_memory_is_asked_for_to_the_last_element(
    order: list[int], steps: list[int], offset: int, n_more: int
) -> None:
    """A call answers if and only if the storage of q holds all of q, whatever the strides."""
    strides, last = [0] * 4, 1
    for axis in order:
        strides[axis] = last * steps[axis]
        last *= SHAPE[axis] * max(1, steps[axis])
    n_bytes = 4 * offset + reach(SHAPE, tuple(strides), 4)
    q = torch.zeros(offset + last).as_strided(SHAPE, strides, offset)
    other = torch.zeros(SHAPE)

    cut(q, max(0, n_bytes + n_more))

    assert ends_early(q) == (n_more < 0)
    if n_more < 0:
        with pytest.raises(FreedStorageError, match="q has the shape"):
            attend(q, other, other, backend="cpu")
    else:
        q.untyped_storage().fill_(0)
        assert torch.equal(attend(q, other, other, backend="cpu"), other)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_inputs_that_were_cut_are_told(place: int, backend: str) -> None:
    """Each of q, k and v, by every backend, after a call that was right."""
    inputs = [torch.randn(SHAPE) for _ in range(3)]
    attend(*inputs, backend=backend)
    cut(inputs[place])

    with pytest.raises(FreedStorageError, match=f"{'qkv'[place]} has the shape"):
        attend(*inputs, backend=backend)
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(FreedStorageError, match=f"{'qkv'[place]} has the shape"),
    ):
        attend(*inputs, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_that_were_cut_are_told(backend: str) -> None:
    """What the backward pass is given."""
    q = torch.randn(SHAPE, requires_grad=True)
    out = attend(q, q, q, backend=backend)

    with pytest.raises(FreedStorageError, match="grad_out has the shape"):
        out.backward(cut(torch.randn(SHAPE)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["k", "a captured tensor"])
def test_inputs_that_were_cut_between_the_passes_are_told(name: str, backend: str) -> None:
    """Autograd's counters of versions do not see it."""
    q, k, v = (torch.randn(SHAPE, dtype=torch.float64, requires_grad=True) for _ in range(3))
    bias = torch.randn(20, dtype=torch.float64, requires_grad=True)
    if backend == "reference" and name != "k":
        return  # torch's own operations add it up, and do not read it again
    out = attend(q, k, v, score=lambda s, b, h, i, j: s + bias[j], backend=backend)
    cut((k if name == "k" else bias).detach())

    with pytest.raises(FreedStorageError, match=f"{name} has the shape"):
        out.sum().backward()


def test_second_derivatives_read_no_more_either() -> None:
    """They are composed of torch's operations, which would."""
    q, k = (torch.randn(SHAPE, requires_grad=True) for _ in range(2))
    out = attnc.attention(q, k, k)
    (grad,) = torch.autograd.grad(out.sum(), q, create_graph=True)
    cut(k.detach())

    with pytest.raises(FreedStorageError, match="k has the shape"):
        grad.sum().backward()


def test_operators_of_graphs_look_too() -> None:
    """A compiled function gets its tensors at run time."""
    q, v = torch.randn(SHAPE), torch.randn(SHAPE)
    compiled = torch.compile(lambda q, v: attnc.attention(q, q, v), backend="eager", fullgraph=True)
    compiled(q, v)

    with pytest.raises(FreedStorageError, match="v has the shape"):
        compiled(q, cut(v))


def test_lists_of_block_masks_that_were_cut_are_told() -> None:
    """When they are given, and each time that they are read."""
    q = torch.randn(SHAPE)
    numbers = torch.ones(1, 1, 1, dtype=torch.int32)
    indices = torch.zeros(1, 1, 1, 1, dtype=torch.int32)
    blocks = attnc.BlockMask.from_kv_blocks(numbers, indices, seq_lengths=(20, 20))
    attnc.attention(q, q, q, mask=blocks)
    cut(indices, 1)

    for read in (
        lambda: attnc.attention(q, q, q, mask=blocks),
        blocks.to_dense,
        lambda: blocks.to("cpu"),
        lambda: attnc.BlockMask.from_kv_blocks(numbers, indices, seq_lengths=(20, 20)),
    ):
        with pytest.raises(FreedStorageError, match="kv_indices has the shape"):
            read()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(4, 0, 3),
        torch.zeros(1).expand(1000),
        torch.zeros(3, 4).to_sparse(),
        torch.zeros(8, device="meta"),
    ],
)
def test_tensors_that_are_whole_are_not_refused(tensor: torch.Tensor) -> None:
    """Without elements, seen many times, or without memory of their own."""
    assert not ends_early(tensor)


def test_transforms_are_left_alone() -> None:
    """torch's wrappers have no storage to ask."""
    q = torch.randn(SHAPE)
    found = torch.func.grad(lambda q: attnc.attention(q, q, q, backend="reference").sum())(q)
    torch.testing.assert_close(found, torch.func.grad(lambda q: attnc.attention(q, q, q).sum())(q))


@pytest.mark.parametrize("backend", BACKENDS)
def test_zeros_without_memory_are_zeros_where_captured(backend: str) -> None:
    """Autograd hands such tensors out; a kernel that read them would end the process."""
    zeros = torch._efficientzerotensor((20,))
    q, k, v = torch.randn(3, *SHAPE)
    found = attend(q, k, v, mask=lambda b, h, q, k: k > zeros[q], backend=backend)
    expected = attend(q, k, v, mask=lambda b, h, q, k: k > 0, backend=backend)
    torch.testing.assert_close(found, expected)
