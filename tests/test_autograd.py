"""What surrounds a call that is differentiated: transforms, modes, dtypes, and others' tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

import attnc
from attnc import attention


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(dtype)


def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


QKV = [random(1, 2, 9, 16, seed=seed) for seed in range(3)]


@pytest.mark.parametrize("transform", ["grad", "vjp", "jvp", "vmap", "functionalize"])
@pytest.mark.parametrize("given", ["mask", "block mask"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_transforms_of_something_else_see_a_constant(transform: str, given: str) -> None:
    """Attention of tensors that torch.func does not follow, inside a function that it does."""
    expected = attention(*QKV, mask=causal)

    def scaled(factor: torch.Tensor) -> torch.Tensor:
        mask: Any = causal
        if given == "block mask":
            mask = attnc.create_block_mask(causal, 1, 1, 9, 9, "cpu")
        return attention(*QKV, mask=mask) * factor

    factor = random(9, 16, seed=5)
    match transform:
        case "grad":
            found = torch.func.grad(lambda x: scaled(x).sum())(factor)
            torch.testing.assert_close(found, expected.sum(dim=(0, 1)))
        case "vjp":
            _, pull = torch.func.vjp(scaled, factor)
            torch.testing.assert_close(pull(torch.ones(1, 2, 9, 16))[0], expected.sum(dim=(0, 1)))
        case "jvp":
            _, tangent = torch.func.jvp(scaled, (factor,), (factor,))
            torch.testing.assert_close(tangent, expected * factor)
        case "vmap":
            found = torch.vmap(scaled)(torch.stack([factor, 2 * factor]))
            torch.testing.assert_close(found[1], expected * 2 * factor)
        case _:
            found = torch.func.functionalize(scaled)(factor)
            torch.testing.assert_close(found, expected * factor)


def test_captured_tensors_of_inference_mode_serve_training() -> None:
    """Also one that a gradient would flow back to, if it could have one."""
    with torch.inference_mode():
        bias = random(9)
    q, k, v = (x.clone().requires_grad_() for x in QKV)
    attention(q, k, v, score=lambda s, b, h, q_idx, kv_idx: s + bias[kv_idx]).sum().backward()
    assert q.grad.any()


def test_autocast_leaves_float64_alone() -> None:
    """As PyTorch's autocast does, in graphs too."""
    inputs = [x.double() for x in QKV]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attention(*inputs, mask=causal)
        compiled = _whole(attention)(*inputs, mask=causal)
    assert out.dtype is compiled.dtype is torch.float64
    assert torch.equal(out, attention(*inputs, mask=causal))


def _biased(bias: torch.Tensor) -> Any:
    return attention(*QKV, score=lambda s, b, h, q_idx, kv_idx: s + bias[kv_idx])


def _tangent(bias: torch.Tensor) -> Any:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(_biased(forward_ad.make_dual(bias, bias))).tangent


def _tangent_of_graph(bias: torch.Tensor) -> Any:
    with forward_ad.dual_level():
        return _whole(_biased)(forward_ad.make_dual(bias, bias))


def _whole(function: Any) -> Any:
    return torch.compile(function, backend="eager", fullgraph=True)


@pytest.mark.parametrize(
    "differentiate",
    [
        lambda bias: torch.func.linearize(_biased, bias),
        lambda bias: make_fx(_tangent)(bias),
        lambda bias: _whole(lambda x: torch.func.jvp(_biased, (x,), (x,))[1])(bias),
        _tangent_of_graph,
    ],
    ids=["linearize", "make_fx", "jvp in a graph", "graph of a dual"],
)
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:UserWarning")
def test_graphs_refuse_tangents(differentiate: Any) -> None:
    """Forward mode is an error in a graph as it is outside, not a tangent of 0."""
    # Where dynamo looks on, it reports the error in its own words.
    with pytest.raises(Exception, match="forward-mode differentiation"):
        differentiate(random(9, seed=7))


@pytest.mark.filterwarnings("ignore:return_lse is deprecated")
def test_the_deprecated_lse_is_one_graph() -> None:
    """flex_attention(return_lse=True) under fullgraph, as PyTorch's."""
    found = _whole(attnc.flex_attention)(*QKV, return_lse=True)
    torch.testing.assert_close(found, attnc.flex_attention(*QKV, return_lse=True))
