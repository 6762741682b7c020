"""Results of flex_attention and of PyTorch's are the same, and block masks of one serve the other."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
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

import attnc

# Results of flex_attention


def run(m: Any, block_mask: Any = None, score_mod: Any = None, **options: Any) -> Any:
    torch.manual_seed(0)
    n_kv_heads = options.pop("n_kv_heads", 4)
    q = torch.randn(2, 4, 129, 24)
    k, v = torch.randn(2, n_kv_heads, 150, 24), torch.randn(2, n_kv_heads, 150, 24)
    return m.flex_attention(q, k, v, score_mod, block_mask, **options)


def made(m: Any, mask_mod: Any, B: Any = None, H: Any = None, **options: Any) -> Any:
    return m.create_block_mask(mask_mod, B, H, 129, 150, device="cpu", **options)


RUNS: dict[str, Script] = {
    "nothing": lambda m: run(m),
    "causal": lambda m: run(m, made(m, causal)),
    "score": lambda m: run(m, score_mod=alibi),
    "positional": lambda m: run(m, made(m, causal), alibi),
    "scale": lambda m: run(m, made(m, window), scale=0.7),
    "heads": lambda m: run(m, made(m, per_head, H=4)),
    "batch": lambda m: run(m, made(m, lambda b, h, q, kv: q + 40 * b >= kv, B=2)),
    "blocks of 32": lambda m: run(m, made(m, causal, BLOCK_SIZE=32)),
    "no full blocks": lambda m: run(m, made(m, causal, separate_full_blocks=False)),
    "gqa": lambda m: run(m, made(m, causal), n_kv_heads=2, enable_gqa=True),
    "gqa with score": lambda m: run(m, None, alibi, n_kv_heads=1, enable_gqa=True),
    "lse": lambda m: run(m, made(m, causal), return_aux=m.AuxRequest(lse=True)),
    "nothing asked for": lambda m: run(m, return_aux=m.AuxRequest()),
    "hints": lambda m: run(
        m, made(m, causal), kernel_options={"BLOCK_M": 64, "fwd_num_warps": 8, "BACKEND": "AUTO"}
    ),
    "composed": lambda m: run(m, made(m, m.or_masks(m.and_masks(causal, window), per_head), H=4)),
    "noop": lambda m: run(m, made(m, m.noop_mask)),
    "adjusted": lambda m: run(
        m, m.create_block_mask(causal, None, None, 300, 300, "cpu")._adjust(129, 150)
    ),
    "decoding": lambda m: decoded(m, 200),
    "decoding in the first block": lambda m: decoded(m, 5),
    "deepcopy": lambda m: run(m, copy.deepcopy(made(m, causal))),
    "pickle": lambda m: run(m, pickle.loads(pickle.dumps(made(m, causal)))),
    "to": lambda m: run(m, made(m, causal).to("cpu")),
    "unflattened": lambda m: run(m, m.BlockMask._unflatten(*made(m, causal)._flatten())),
}


def decoded(m: Any, position: int) -> Any:
    """One query of a causal mask, as gpt-fast cuts it out."""
    whole = m.create_block_mask(causal, 1, 1, 256, 256, device="cpu")
    row = whole[:, :, position // whole.BLOCK_SIZE[0]]
    row.mask_mod = lambda b, h, q_idx, kv_idx: whole.mask_mod(b, h, q_idx + position, kv_idx)
    row.seq_lengths = (1, 256)
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 1, 16), torch.randn(2, 4, 256, 16), torch.randn(2, 4, 256, 16)
    return m.flex_attention(q, k, v, block_mask=row)


@newest
@pytest.mark.parametrize("script", RUNS.values(), ids=RUNS)
def test_results_are_the_same(script: Script) -> None:
    """Outputs and statistics."""
    assert_same(script(attnc), script(torch_flex))


@newest
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_deprecated_argument_gives_the_same() -> None:
    """A pair, with the log-sum-exp."""

    def script(m: Any) -> Any:
        return run(m, made(m, causal), return_lse=True)

    assert_same(script(attnc), script(torch_flex))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # dynamo warns of what is its own business
def test_lists_that_contradict_the_function_count_as_in_compiled_pytorch() -> None:
    """Only its compiled kernels read the lists; there they are the truth, as here."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 96, 32)
    compiled = torch.compile(torch_flex.flex_attention)
    for mask_mod in (causal, window):
        theirs, ours = (
            made_from_lists(m, BLOCK_SIZE=32, mask_mod=mask_mod, seq_lengths=(96, 128))
            for m in (torch_flex, attnc)
        )
        keys, values = (torch.nn.functional.pad(x, (0, 0, 0, 32), value=1.0) for x in (k, v))
        expected = compiled(q, keys, values, block_mask=theirs)
        torch.testing.assert_close(attnc.flex_attention(q, keys, values, block_mask=ours), expected)
        torch.testing.assert_close(
            attnc.flex_attention(q, keys, values, block_mask=theirs), expected
        )


def test_masks_of_another_device_are_taken() -> None:
    """Lists are read where they are; PyTorch's must be moved first."""
    block_mask = made(attnc, causal)
    block_mask.to("meta")  # ours keeps its table
    assert_same(run(attnc, block_mask.to("meta")), run(attnc, block_mask))


# Both ways


class MaskOfTheirs(torch_flex.BlockMask):
    """Anything derived from PyTorch's class."""


def test_subclasses_of_pytorchs_block_mask_are_taken() -> None:
    """And ours, derived from, stay what they are."""

    class MaskOfOurs(attnc.BlockMask):
        pass

    lists = made(torch_flex, causal).as_tuple(flatten=False)[1:5]
    options = {"mask_mod": causal, "seq_lengths": (129, 150)}
    theirs = MaskOfTheirs.from_kv_blocks(*lists, **options)
    ours = MaskOfOurs.from_kv_blocks(*lists, **options)
    assert type(ours) is type(ours._adjust(100, 100)) is MaskOfOurs
    assert_same(run(attnc, theirs), run(attnc, made(attnc, causal)))
    assert_same(run(attnc, ours), run(attnc, made(attnc, causal)))


def test_our_block_mask_serves_pytorch_as_it_is() -> None:
    """Eager PyTorch asks it for nothing that it does not have."""
    assert_same(run(torch_flex, made(attnc, causal)), run(torch_flex, made(torch_flex, causal)))


ADOPTED: dict[str, tuple[Any, dict[str, Any]]] = {
    "causal": (causal, {}),
    "heads": (per_head, {"H": 4}),
    "composed": (attnc.or_masks(attnc.and_masks(causal, window), causal), {}),
    "noop": (attnc.noop_mask, {}),
    "kernels": (attnc.kernel(window) & attnc.kernel(causal), {}),
    "no full blocks": (window, {"separate_full_blocks": False}),
}


def assert_converted_is_right(name: str, attend: Callable[..., Any]) -> None:
    mask_mod, options = ADOPTED[name]
    block_mask = made(attnc, mask_mod, **options)
    torch.manual_seed(0)
    q = torch.randn(2, 4, 129, 24)
    k, v = torch.randn(2, 2, 4, 150, 24)

    out = attend(q, k, v, block_mask=block_mask.to_torch())

    visible = attnc.create_mask(mask_mod, 1, 4, 129, 150)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, visible)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("name", ADOPTED)
def test_converted_masks_run_in_pytorch(name: str) -> None:
    """`to_torch()` in front of PyTorch's flex_attention gives dense attention."""
    assert_converted_is_right(name, torch_flex.flex_attention)


@pytest.mark.filterwarnings("ignore")  # dynamo warns of what is its own business
@pytest.mark.parametrize("name", ["kernels", "no full blocks"])
def test_converted_masks_run_in_compiled_pytorch(name: str) -> None:
    """Its kernels, which read the lists, too."""
    torch._dynamo.reset()
    assert_converted_is_right(name, torch.compile(torch_flex.flex_attention))


@pytest.mark.filterwarnings("ignore")  # dynamo warns of what is its own business
def test_create_block_mask_may_be_compiled() -> None:
    """As PyTorch's users do, because PyTorch's is slow otherwise."""
    torch._dynamo.reset()
    compiled = torch.compile(attnc.create_block_mask)
    for length in (200, 300):
        ours = compiled(window, None, None, length, length, device="cpu")
        expected = attnc.create_block_mask(window, None, None, length, length, device="cpu")
        assert torch.equal(ours.kv_indices, expected.kv_indices)
    flagged = attnc.create_block_mask(window, 1, 1, 300, 300, "cpu", _compile=True)
    assert torch.equal(flagged.kv_indices, expected.kv_indices)
