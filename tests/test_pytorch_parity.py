"""The same script against PyTorch's flex_attention and ours: results, attributes and errors agree.

A script is a function of the module it imports from: ``torch.nn.attention.flex_attention`` or
``attnc``. Older versions of PyTorch differ from 2.13 in some of this; what is tested is 2.13.
"""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pytorch_scripts import (
    Script,
    alibi,
    assert_same,
    causal,
    made_from_lists,
    newest,
    per_head,
    window,
)
from torch.nn.attention import flex_attention as torch_flex
from torch.utils import _pytree as pytree

import attnc
from attnc import flex


def outcome(script: Script, module: ModuleType) -> Any:
    """What the script returns or raises."""
    try:
        return script(module)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is compared
        return error


# Names and parameters


PUBLIC = sorted(torch_flex.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there(name: str) -> None:
    """In `attnc`, and in `attnc.flex` for those who import a module."""
    assert getattr(attnc, name) is getattr(flex, name)
    assert name in flex.__all__


def signature(function: Any) -> list[tuple[str, Any, Any]]:
    def plain(default: Any) -> Any:  # each module has a noop_mask of its own
        return default.__name__ if callable(default) and default is not inspect._empty else default

    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, plain(p.default)) for p in parameters]


@newest
@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "FlexKernelOptions"])
def test_parameters_are_those_of_pytorch(name: str) -> None:
    """Same names, order, kinds and defaults."""
    assert signature(getattr(attnc, name)) == signature(getattr(torch_flex, name))


METHODS = ["as_tuple", "from_kv_blocks", "numel", "sparsity", "to", "to_dense", "to_string"]
METHODS += ["_adjust", "__getitem__", "__init__", "_flatten", "_flatten_with_keys", "_unflatten"]


@newest
@pytest.mark.parametrize("name", METHODS)
def test_methods_of_block_masks_are_those_of_pytorch(name: str) -> None:
    """Same names, order, kinds and defaults."""
    assert signature(getattr(attnc.BlockMask, name)) == signature(
        getattr(torch_flex.BlockMask, name)
    )


def test_no_public_attribute_of_a_block_mask_is_missing() -> None:
    """All that PyTorch's have, ours have."""
    theirs = torch_flex.create_block_mask(causal, 1, 1, 64, 64, device="cpu")
    ours = attnc.create_block_mask(causal, 1, 1, 64, 64)
    assert {name for name in dir(theirs) if not name.startswith("_")} <= set(dir(ours))


@newest
def test_the_type_of_kernel_options_has_the_same_keys() -> None:
    """Also after PyTorch adds one."""
    assert (
        attnc.FlexKernelOptions.__optional_keys__ == torch_flex.FlexKernelOptions.__optional_keys__
    )


# Block masks


SCRIPTS: dict[str, Script] = {
    "shape": lambda m: m.create_block_mask(causal, 2, 3, 256, 384, "cpu").shape,
    "no batch": lambda m: m.create_block_mask(per_head, None, 3, 300, 200, "cpu"),
    "block sizes": lambda m: m.create_block_mask(window, 1, None, 300, 200, "cpu", (32, 64)),
    "no full blocks": lambda m: m.create_block_mask(
        window, 1, 1, 300, 300, device="cpu", separate_full_blocks=False
    ),
    "no queries": lambda m: m.create_block_mask(causal, 1, 1, 0, 9, "cpu").shape,
    "no keys": lambda m: m.create_block_mask(causal, 1, 1, 9, 0, "cpu").to_dense(),
    "numel": lambda m: m.create_block_mask(causal, 2, 3, 300, 200, "cpu").numel(),
    "sparsity": lambda m: m.create_block_mask(window, 2, 3, 1000, 200, "cpu", 16).sparsity(),
    "str": lambda m: str(m.create_block_mask(per_head, 2, 3, 300, 300, "cpu", 16)),
    "repr": lambda m: repr(m.create_block_mask(per_head, 2, 3, 300, 300, "cpu", 16)),
    "repr of a partial": lambda m: repr(
        m.create_block_mask(WHOLE_WINDOW, 1, 1, 64, 64, "cpu", 16, separate_full_blocks=False)
    ),
    "grid": lambda m: m.create_block_mask(window, 1, 1, 900, 900, "cpu", 16).to_string((5, 9)),
    "grid of all": lambda m: m.create_block_mask(window, 1, 1, 900, 900, "cpu", 16).to_string(-1),
    "limit": lambda m: m.create_block_mask(window, 2, 3, 90, 90, "cpu", 16).to_string(limit=2),
    "as_tuple": lambda m: m.create_block_mask(causal, 1, 1, 300, 300, "cpu").as_tuple(),
    "as_tuple, nested": lambda m: m.create_block_mask(causal, 1, 1, 99, 99, "cpu").as_tuple(False),
    "to": lambda m: m.create_block_mask(causal, 1, 1, 300, 300, "cpu").to("cpu"),
    "to another device": lambda m: (
        m.create_block_mask(causal, 1, 1, 30, 30, "cpu").to("meta").q_indices.device
    ),
    "adjust": lambda m: (
        m.create_block_mask(causal, 1, 2, 500, 500, "cpu", 32)._adjust(200, 200).to_dense()
    ),
    "adjust within a block": lambda m: (
        m.create_block_mask(causal, 1, 2, 50, 50, "cpu", 32)._adjust(64, 64).to_dense()
    ),
    "create_mask": lambda m: m.create_mask(per_head, 2, 3, 30, 40, "cpu"),
    "create_mask of a score": lambda m: m.create_mask(
        lambda score, b, h, q, kv: torch.where(q >= kv, score, -float("inf")), 2, 3, 30, 40, "cpu"
    ),
    "no heads in create_mask": lambda m: m.create_mask(causal, None, None, 30, 40, "cpu"),
    "and_masks": lambda m: m.create_mask(m.and_masks(causal, window), 1, 1, 90, 90, "cpu"),
    "or_masks": lambda m: m.create_mask(m.or_masks(causal, window), 1, 1, 90, 90, "cpu"),
    "and_masks of none": lambda m: m.create_mask(m.and_masks(), 1, 1, 9, 9, "cpu"),
    "or_masks of none": lambda m: m.create_mask(m.or_masks(), 1, 1, 9, 9, "cpu"),
    "noop_mask": lambda m: m.create_mask(m.noop_mask, 1, 1, 9, 9, "cpu"),
    "masks under vmap": lambda m: torch.vmap(
        m.and_masks(m.noop_mask, causal), in_dims=(None, None, None, 0)
    )(torch.tensor(0), torch.tensor(0), torch.tensor(4), torch.arange(9)),
    "write order": lambda m: m.create_block_mask(
        window, 2, 1, 300, 300, "cpu", 32, compute_dq_write_order=True
    ).as_tuple()[10:14],
    "ascending write order": lambda m: m.create_block_mask(
        causal, 1, 2, 300, 300, "cpu", 32, compute_dq_write_order=True, dq_kv_order=False
    ).as_tuple()[10:14],
    "write order of a slice": lambda m: m.create_block_mask(
        window, 1, 2, 300, 300, "cpu", 32, compute_dq_write_order=True
    )[:, :, 2:5].as_tuple()[10:14],
    "AuxRequest": lambda m: (m.AuxRequest(), m.AuxRequest(True), m.AuxRequest._fields),
    "AuxOutput": lambda m: (m.AuxOutput(), m.AuxOutput._fields),
    "deepcopy": lambda m: copy.deepcopy(m.create_block_mask(causal, 1, 1, 300, 300, "cpu")),
    "pickle": lambda m: pickle.loads(
        pickle.dumps(m.create_block_mask(causal, 1, 1, 300, 300, "cpu"))
    ),
    "a block mask is a leaf": lambda m: len(
        pytree.tree_leaves(m.create_block_mask(causal, 1, 1, 300, 300, "cpu"))
    ),
    "identity is equality": lambda m: (
        m.create_block_mask(causal, 1, 1, 64, 64, "cpu")
        == m.create_block_mask(causal, 1, 1, 64, 64, "cpu")
    ),
}


WHOLE_WINDOW = functools.partial(lambda width, b, h, q, kv: q - kv < width, 9)


@newest
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_scripts_give_the_same(script: Script) -> None:
    """Each line of a script has one meaning, whoever runs it."""
    assert_same(outcome(script, attnc), outcome(script, torch_flex))


LISTED: dict[str, Script] = {
    "from_kv_blocks": lambda m: made_from_lists(m),
    "block sizes": lambda m: made_from_lists(m, BLOCK_SIZE=(16, 32)),
    "lengths": lambda m: made_from_lists(m, BLOCK_SIZE=32, seq_lengths=(90, 120)),
    "no q blocks": lambda m: made_from_lists(m, compute_q_blocks=False),
    "no q blocks in a slice": lambda m: made_from_lists(m, compute_q_blocks=False)[:, 1:],
    "mask_mod": lambda m: made_from_lists(m, mask_mod=causal).mask_mod,
    "default mask_mod": lambda m: made_from_lists(m).mask_mod.__name__,
    "to_dense": lambda m: made_from_lists(m).to_dense(),
    "to_string": lambda m: made_from_lists(m).to_string(),
    "sparsity": lambda m: made_from_lists(m, BLOCK_SIZE=32, seq_lengths=(90, 120)).sparsity(),
    "repr": lambda m: repr(made_from_lists(m)),
    "repr without q blocks": lambda m: repr(made_from_lists(m, compute_q_blocks=False)),
    "partial blocks alone": lambda m: m.BlockMask.from_kv_blocks(
        torch.ones(2, 3, dtype=torch.int32), torch.zeros(2, 3, 4, dtype=torch.int32)
    ),
    "no batch dimensions": lambda m: m.BlockMask.from_kv_blocks(
        torch.ones(3, dtype=torch.int32), torch.zeros(3, 4, dtype=torch.int32)
    ),
    "long integers": lambda m: m.BlockMask.from_kv_blocks(
        torch.ones(1, 1, 2, dtype=torch.int64), torch.zeros(1, 1, 2, 2, dtype=torch.int64)
    ),
    "write order": lambda m: made_from_lists(
        m, dq_write_order=torch.zeros(1, 2, 4, 3), dq_kv_order=True
    ).as_tuple()[10:14],
    "write order as a tensor": lambda m: made_from_lists(
        m, dq_write_order=torch.zeros(1, 2, 4, 3), dq_kv_order=torch.arange(4).expand(1, 2, 4)
    ).as_tuple()[10:14],
    "constructor": lambda m: m.BlockMask(*made_from_lists(m).as_tuple(flatten=False)[:9]),
    "assigned": lambda m: assigned(m).to_dense(),
    "assigned lengths": lambda m: assigned(m).shape,
    "flattened": lambda m: [leaf.shape for leaf in made_from_lists(m)._flatten()[0]],
    "unflattened": lambda m: m.BlockMask._unflatten(*made_from_lists(m)._flatten()),
    "keys": lambda m: [key for key, _ in made_from_lists(m)._flatten_with_keys()[0]],
}


def assigned(m: Any) -> Any:
    block_mask = m.create_block_mask(causal, 1, 2, 96, 96, "cpu", 32)
    block_mask.kv_num_blocks = block_mask.kv_num_blocks * 0
    block_mask.full_kv_num_blocks[:, 1] = 3
    block_mask.seq_lengths = (80, 80)
    return block_mask


@newest
@pytest.mark.parametrize("script", LISTED.values(), ids=LISTED)
def test_masks_made_from_lists_are_the_same(script: Script) -> None:
    """Also with blocks in any order and in both lists."""
    assert_same(outcome(script, attnc), outcome(script, torch_flex))


INDICES: list[Any] = [
    0,
    -1,
    True,
    None,
    ...,
    slice(0, 1),
    slice(1, None),
    (1, 2),
    (0, slice(1, 3)),
    (slice(None), slice(None), 1),
    (slice(None), slice(None), -1),
    (0, 1, slice(0, 2)),
    (0, 0, torch.tensor([1])),
    (0, 0, torch.tensor([1, 0], dtype=torch.int32)),
    (slice(None), slice(None), torch.tensor(1)),
    torch.tensor([1, 0]),
    torch.tensor([True, False]),
    (torch.tensor([0, 1]), torch.tensor([1, 2])),
    ([0, 1], 1),
    (slice(None), slice(None), slice(None, None, 2)),
    "0",
    torch.tensor([7]),
]


@newest
@pytest.mark.parametrize("index", INDICES, ids=repr)
@pytest.mark.parametrize("make", ["from a function", "from lists"])
def test_slices_are_the_same(index: Any, make: str) -> None:
    """By number, slice, tensor, list, None and ..."""

    def script(m: Any) -> Any:
        block_mask = m.create_block_mask(per_head, 2, 3, 300, 300, "cpu")
        if make == "from lists":
            block_mask = m.BlockMask(*block_mask.as_tuple(flatten=False)[:9])
        return block_mask[index]

    assert_same(outcome(script, attnc), outcome(script, torch_flex))


@pytest.mark.parametrize("index", [5, -3, (0, 3), (0, 0, -4), (0, 1, 2, 3)], ids=repr)
def test_indices_beyond_the_axes_are_refused(index: Any) -> None:
    """Where PyTorch's gives a mask without a batch, head or query, or ignores an index."""
    block_mask = attnc.create_block_mask(per_head, 2, 3, 300, 300, "cpu")
    with pytest.raises(IndexError, match=r"beyond|4 indices"):
        block_mask[index]


def test_an_ellipsis_stands_for_the_dimensions_that_are_not_given() -> None:
    """Where PyTorch's raises."""
    block_mask = attnc.create_block_mask(per_head, 2, 3, 300, 300, "cpu")
    for short, full in (
        ((..., 0), (slice(None), slice(None), 0)),
        ((1, ..., 2), (1, slice(None), 2)),
    ):
        assert torch.equal(block_mask[short].kv_indices, block_mask[full].kv_indices)
        assert torch.equal(block_mask[short].kv_num_blocks, block_mask[full].kv_num_blocks)


# Errors


def call(m: Any, q: Any = (1, 2, 64, 16), k: Any = None, **options: Any) -> Any:
    query, key = torch.ones(q), torch.ones(q if k is None else k)
    return m.flex_attention(query, key, key, **options)


def refused(m: Any, **options: Any) -> Any:
    arguments = {"B": 1, "H": 1, "Q_LEN": 64, "KV_LEN": 64, "device": "cpu"} | options
    return m.create_block_mask(options.pop("mask_mod", causal), **arguments)


FAILURES: dict[str, Script] = {
    "heads differ": lambda m: call(m, k=(1, 1, 64, 16)),
    "heads do not divide": lambda m: call(m, (1, 3, 64, 16), (1, 2, 64, 16), enable_gqa=True),
    "head_dim differs": lambda m: call(m, k=(1, 2, 64, 8)),
    "three dimensions": lambda m: call(m, (2, 64, 16)),
    "one dimension": lambda m: call(m, (16,)),
    "batch differs": lambda m: call(m, (3, 2, 64, 16), (2, 2, 64, 16)),
    "nested": lambda m: m.flex_attention(
        *[torch.nested.nested_tensor([torch.ones(2, 9, 8)], layout=torch.jagged)] * 3
    ),
    "devices differ": lambda m: m.flex_attention(
        torch.ones(1, 1, 16, 16), *[torch.ones(1, 1, 16, 16, device="meta")] * 2
    ),
    "short mask": lambda m: call(m, block_mask=m.create_block_mask(causal, 1, 1, 32, 32, "cpu")),
    "long mask": lambda m: call(m, block_mask=m.create_block_mask(causal, 1, 1, 99, 99, "cpu")),
    "long in keys": lambda m: call(m, block_mask=m.create_block_mask(causal, 1, 1, 64, 99, "cpu")),
    "crossed": lambda m: call(m, block_mask=m.create_block_mask(causal, 1, 1, 32, 99, "cpu")),
    "sliced": lambda m: call(m, block_mask=m.create_block_mask(causal, 1, 1, 64, 64, "cpu")[0]),
    "sliced, wrong length": lambda m: call(
        m, block_mask=m.create_block_mask(causal, 1, 1, 512, 512, "cpu")[:, :, 0]
    ),
    "both statistics": lambda m: call(m, return_lse=True, return_aux=m.AuxRequest(lse=True)),
    "no such backend": lambda m: call(m, kernel_options={"BACKEND": "FAST"}),
    "backend and force": lambda m: call(
        m, kernel_options={"BACKEND": "AUTO", "FORCE_USE_FLEX_ATTENTION": True}
    ),
    "lse as an option": lambda m: call(m, kernel_options={"OUTPUT_LOGSUMEXP": True}),
    "max as an option": lambda m: call(m, kernel_options={"OUTPUT_MAX": True}),
    "no such parameter": lambda m: call(m, dropout=0.1),
    "score_mod as mask_mod": lambda m: refused(m, mask_mod=alibi),
    "three parameters": lambda m: refused(m, mask_mod=lambda b, h, q: q > 0),
    "no function": lambda m: refused(m, mask_mod=3),
    "not bool": lambda m: refused(m, mask_mod=lambda b, h, q, kv: q - kv),
    "negative heads": lambda m: refused(m, H=-1),
    "length as text": lambda m: refused(m, Q_LEN="64"),
    "negative block": lambda m: refused(m, BLOCK_SIZE=-4),
    "one block size of two": lambda m: refused(m, BLOCK_SIZE=(64,)),
    "block size as text": lambda m: refused(m, BLOCK_SIZE="x"),
    "no such device": lambda m: refused(m, device="nope"),
    "write order by number": lambda m: refused(m, dq_kv_order=3),
    "write order without q blocks": lambda m: made_from_lists(
        m, dq_write_order=torch.zeros(1), compute_q_blocks=False
    )[0],
    "create_mask of three parameters": lambda m: m.create_mask(lambda b, h, q: q, 1, 1, 9, 9),
    "and_masks of a number": lambda m: m.and_masks(causal, 3),
    "or_masks of None": lambda m: m.or_masks(None),
    "one dimension in lists": lambda m: m.BlockMask.from_kv_blocks(torch.ones(()), torch.zeros(3)),
    "half a pair": lambda m: m.BlockMask.from_kv_blocks(
        torch.ones(1, 1, 1), torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1)
    ),
    "half a pair of q lists": lambda m: m.BlockMask(
        (9, 9),
        *made_from_lists(m).as_tuple()[2:4],
        None,
        None,
        None,
        None,
        made_from_lists(m).kv_num_blocks,
        None,
    ),
    "no numbers": lambda m: m.BlockMask((9, 9), None, torch.zeros(1, 1), *[None] * 6),
    "full order alone": lambda m: made_from_lists(m, dq_write_order_full=torch.zeros(1)),
    "order by number": lambda m: made_from_lists(m, dq_kv_order=3),
    "slice with an order": lambda m: made_from_lists(m, dq_kv_order=torch.zeros(1, 2, 4))[0],
    "adjusted with an order": lambda m: made_from_lists(
        m, dq_kv_order=torch.zeros(1, 2, 4)
    )._adjust(9, 9),
}


@newest
@pytest.mark.parametrize("script", FAILURES.values(), ids=FAILURES)
def test_what_pytorch_refuses_is_refused_alike(script: Script) -> None:
    """An `except` clause written for PyTorch's error catches ours."""
    theirs = outcome(script, torch_flex)
    assert isinstance(theirs, Exception), "PyTorch takes this now"
    assert_same(outcome(script, attnc), theirs)


def test_a_device_that_is_not_there_is_refused_alike() -> None:
    """When the mask is made, as PyTorch does, not when its lists are first read."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")

    def script(m: Any) -> Any:
        return m.create_block_mask(causal, 1, 1, 64, 64, device="cuda")

    assert_same(outcome(script, attnc), outcome(script, torch_flex))


# Laws


@st.composite
def masks(draw: st.DrawFn) -> tuple[Callable[..., Any], str]:
    """A random union or intersection of bands, documents and prefixes, with its description."""
    kinds = draw(st.lists(st.sampled_from(["band", "document", "prefix", "stripe"]), min_size=1))
    numbers = [draw(st.integers(1, 90)) for _ in kinds[:3]]
    union = draw(st.booleans())
    ids = torch.tensor(draw(st.lists(st.integers(0, 3), min_size=1, max_size=6)))

    def part(kind: str, n: int) -> Callable[..., Any]:
        return {
            "band": lambda b, h, q, kv: (q - kv < n) & (q - kv >= -n // (h + 1)),
            "document": lambda b, h, q, kv: ids[q // n % len(ids)] == ids[kv // n % len(ids)],
            "prefix": lambda b, h, q, kv: (kv < n * (b + 1)) | (q >= kv),
            "stripe": lambda b, h, q, kv: kv // n % 2 == 0,
        }[kind]

    parts = [part(kind, n) for kind, n in zip(kinds, numbers, strict=False)]
    combine = torch_flex.or_masks if union else torch_flex.and_masks
    return combine(*parts), f"{combine.__name__}({kinds[:3]}, {numbers}, {ids.tolist()})"


def names_an_absent_row(index: tuple[Any, ...], shape: tuple[int, ...]) -> bool:
    """Whether a number in ``index`` is beyond its dimension."""
    pairs = zip(index, shape, strict=False)
    return any(isinstance(i, int) and not -size <= i < size for i, size in pairs)


def part_of_an_axis() -> st.SearchStrategy[Any]:
    numbers = st.integers(-2, 1)
    ends = st.one_of(st.none(), st.integers(-3, 3))
    return st.one_of(numbers, st.builds(slice, ends, ends, st.sampled_from([None, 1, 2])))


@newest
@settings(max_examples=60, deadline=None)
@given(
    masks(),
    st.tuples(st.sampled_from([None, 1, 2]), st.sampled_from([None, 2])),
    st.tuples(st.integers(1, 130), st.integers(1, 130)),
    st.sampled_from([16, 128, (32, 16), (7, 50)]),
    st.booleans(),
    st.tuples(part_of_an_axis(), part_of_an_axis(), part_of_an_axis()),
)
@example((causal, "causal"), (None, None), (128, 128), 16, True, (0, 0, slice(1, 3)))
def test_any_mask_and_any_slice_has_the_lists_of_pytorch(
    mask: tuple[Callable[..., Any], str],
    batch_heads: tuple[int | None, int | None],
    lengths: tuple[int, int],
    block_size: int | tuple[int, int],
    separate: bool,
    index: tuple[Any, Any, Any],
) -> None:
    """All eight lists to the last element, the dense form, the picture and the sparsity."""
    arguments = (mask[0], *batch_heads, *lengths, "cpu", block_size)
    ours, theirs = (
        m.create_block_mask(*arguments, separate_full_blocks=separate) for m in (attnc, torch_flex)
    )
    assert_same(ours, theirs)
    assert torch.equal(ours.to_dense(), theirs.to_dense())
    assert (str(ours), repr(ours)) == (str(theirs), repr(theirs))
    if names_an_absent_row(index, ours.kv_num_blocks.shape):
        with pytest.raises(IndexError):  # PyTorch hands out a block mask without a batch or head
            ours[index]
        return
    assert_same(outcome(lambda _: ours[index], attnc), outcome(lambda _: theirs[index], attnc))
