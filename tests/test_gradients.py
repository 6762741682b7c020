"""Training through the public surface: autograd, its transforms, and what surrounds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from gradient_inputs import causal, qkv, random, softcap
from hypothesis import example, given, settings
from hypothesis import strategies as st

import attnc
from attnc import attention
from attnc.testing import MaskRecipe, ScoreRecipe, masks, score_mods
from attnc.testing.gradients import assert_gradients_close, expected_gradients
from attnc.testing.programs import Limits

Mod = Callable[..., Any]


# Each kernel takes seconds to compile; of captured tensors, gradcheck is in float64 already.
WIDE = pytest.param(torch.float64, marks=pytest.mark.slow)


@dataclass(frozen=True)
class Biased:
    """A score_mod with captured tensors: ``make(*tensors)`` gives it, ``shapes`` are theirs."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    make: Callable[..., Mod]


_INDEX = torch.randint(0, 50, (2, 90, 90), generator=torch.Generator().manual_seed(1))


_ROWS = torch.arange(90) // 10


BIASES = (
    Biased("scalar", ((),), lambda t: lambda s, b, h, q, k: s * t),
    Biased("alibi slopes", ((4,),), lambda t: lambda s, b, h, q, k: s - t[h] * (q - k).abs()),
    Biased("per key", ((2, 90),), lambda t: lambda s, b, h, q, k: s + t[b, k]),
    Biased("per query", ((90,),), lambda t: lambda s, b, h, q, k: s * t[q]),
    Biased("relative", ((4, 179),), lambda t: lambda s, b, h, q, k: s + t[h, q - k + 89]),
    Biased(
        "buckets",
        ((4, 8),),
        lambda t: lambda s, b, h, q, k: s + t[h, ((q - k).abs() // 8).clamp(max=7)],
    ),
    Biased(
        "two-dimensional relative",
        ((19, 19, 4),),
        lambda t: lambda s, b, h, q, k: s + t[q // 10 - k // 10 + 9, q % 10 - k % 10 + 9, h],
    ),
    Biased("any map", ((50,),), lambda t: lambda s, b, h, q, k: s + t[_INDEX[b, q, k]]),
    Biased(
        "two tables, one twice",
        ((50,), (90,)),
        lambda t, u: lambda s, b, h, q, k: s * u[q] + t[_INDEX[b, q, k]] * u[k],
    ),
    Biased(
        "rows of two tables",
        ((90, 3), (9, 3)),
        lambda t, u: lambda s, b, h, q, k: s + t[q] @ u[_ROWS[k]],
    ),
)


@pytest.mark.parametrize("bias", BIASES, ids=lambda bias: bias.name)
@pytest.mark.parametrize("dtype", [WIDE, torch.float32, torch.bfloat16], ids=str)
def test_captured_tensors_get_their_gradients(bias: Biased, dtype: torch.dtype) -> None:
    """Whatever an index is made of, and in the dtype of the tensor."""
    inputs = qkv(dtype=dtype)
    stored = [
        random(*s, dtype=dtype, seed=7 + i).requires_grad_() for i, s in enumerate(bias.shapes)
    ]
    out, lse = attention(
        *inputs, mask=causal, score=bias.make(*stored), enable_gqa=True, return_lse=True
    )
    grad_out, grad_lse = random(*out.shape, seed=3).to(dtype), random(*lse.shape, seed=4)
    grad_lse = grad_lse.to(lse.dtype)

    found = torch.autograd.grad((out, lse), (*inputs, *stored), (grad_out, grad_lse))

    leaves = [t.detach().double().requires_grad_() for t in stored]
    expected = expected_gradients(inputs, causal, bias.make(*leaves), leaves, grad_out, grad_lse)
    assert [g.dtype for g in found] == [dtype] * len(found)
    names = ("q", "k", "v", *(f"tensor {i}" for i in range(len(stored))))
    assert_gradients_close(names, found, expected, dtype, 16)


@pytest.mark.parametrize(
    "sizes",
    [
        {"n_queries": 1, "n_keys": 129},
        {"n_queries": 129, "n_keys": 1},
        {"n_queries": 127, "n_keys": 129, "head_dim": 80, "value_dim": 80},
        {"head_dim": 16, "value_dim": 40},
        {"n_kv_heads": 1},
        {"n_kv_heads": 4, "n_kv_batch": 1},
        {"n_batch": 1, "n_heads": 1, "n_kv_heads": 1, "n_kv_batch": 1},
        {"n_queries": 0},
        {"n_keys": 0},
        {"value_dim": 0},
        {"n_batch": 0, "n_kv_batch": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_shapes(sizes: dict[str, int], dtype: torch.dtype) -> None:
    """Lengths 0, 1, 127 and 129, wide and narrow values, shared heads and batches."""
    inputs = qkv(**sizes, dtype=dtype)
    out, lse = attention(*inputs, mask=causal, score=softcap, enable_gqa=True, return_lse=True)
    grad_out, grad_lse = random(*out.shape, seed=3).to(dtype), random(*lse.shape).to(lse.dtype)

    found = torch.autograd.grad((out, lse), inputs, (grad_out, grad_lse))

    expected = expected_gradients(inputs, causal, softcap, (), grad_out, grad_lse)
    assert_gradients_close("qkv", found, expected, dtype, inputs[0].shape[3])


def leaves_of(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    return [random(*s, seed=i).requires_grad_() for i, s in enumerate(shapes)]


@settings(max_examples=4)
@given(st.none() | masks(limits=Limits(length=9)), st.none() | score_mods(limits=Limits(length=9)))
@example(None, ScoreRecipe("torch.relu(score)"))
@example(
    MaskRecipe("q_idx > kv_idx"), ScoreRecipe("torch.where(score > 0, torch.sqrt(score), score)")
)
def test_gradcheck_and_gradgradcheck(mask: MaskRecipe | None, score: ScoreRecipe | None) -> None:
    """Kernels' gradients are derivatives, and so are those of the composed second pass."""
    mask_mod, score_mod = (None if part is None else part.build() for part in (mask, score))

    def attend(*inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out, lse = attention(
            *inputs, mask=mask_mod, score=score_mod, enable_gqa=True, return_lse=True
        )
        return out, torch.where(lse.isinf(), 0.0, lse)

    inputs = leaves_of((1, 2, 5, 3), (1, 1, 7, 3), (1, 1, 7, 2))
    assert torch.autograd.gradcheck(attend, inputs)
    assert torch.autograd.gradgradcheck(attend, inputs)


@pytest.mark.parametrize("bias", BIASES, ids=lambda bias: bias.name)
def test_gradcheck_of_captured_tensors(bias: Biased) -> None:
    """The same for what a score_mod captures; autograd sees these through the closure."""
    n_tensors = len(bias.shapes)

    def attend(*inputs: torch.Tensor) -> Any:
        score = bias.make(*inputs[3:])
        return attention(*inputs[:3], mask=causal, score=score, return_lse=True)

    inputs = leaves_of((1, 2, 4, 2), (1, 2, 4, 2), (1, 2, 4, 2), *bias.shapes)
    assert len(inputs) == 3 + n_tensors
    assert torch.autograd.gradcheck(attend, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(attend, inputs, fast_mode=True)


def test_gradients_are_the_same_with_a_graph_and_without() -> None:
    """``create_graph=True`` changes no bit of the first derivative."""
    inputs = qkv(dtype=torch.float32)
    out = attention(*inputs, mask=causal, enable_gqa=True)
    plain = torch.autograd.grad(out.sum(), inputs, retain_graph=True)
    followed = torch.autograd.grad(out.sum(), inputs, create_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, followed, strict=True))
    assert all(gradient.requires_grad for gradient in followed)


def test_third_derivatives() -> None:
    """The second pass has derivatives as any torch operation has."""
    x = random(1, 1, 3, 2).requires_grad_()

    def third(attend: Callable[..., torch.Tensor]) -> torch.Tensor:
        out = attend(x, 2 * x, x * x)
        (first,) = torch.autograd.grad((out**2).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((first**2).sum(), x, create_graph=True)
        return torch.autograd.grad((second**2).sum(), x)[0]

    def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return (q @ k.transpose(2, 3) * 2**-0.5).softmax(dim=3) @ v

    torch.testing.assert_close(third(attention), third(dense))


def test_rows_that_see_nothing_have_no_gradients() -> None:
    """Masked everywhere, or with scores of -inf: zeros, also where the gradient of lse is not."""
    q, k, v = qkv(dtype=torch.float32, n_kv_heads=4)

    def late(b, h, q_idx, kv_idx):
        return q_idx >= kv_idx + 10

    def dropped(score, b, h, q_idx, kv_idx):
        return torch.where(q_idx % 3 == 0, -float("inf"), score)

    for options in ({"mask": late}, {"score": dropped}):
        out, lse = attention(q, k, v, return_lse=True, **options)
        grads = torch.autograd.grad((out, lse), (q, k, v), (torch.ones_like(out), lse.exp() * 2))
        is_empty = lse == -float("inf")
        assert is_empty.any()
        assert all(gradient.isfinite().all() for gradient in grads)
        assert (grads[0][is_empty] == 0).all()


@pytest.mark.parametrize(
    "source",
    [
        "torch.relu(score)",
        "torch.where(score > 0, torch.sqrt(score), -1e4)",
        "torch.where(q_idx == kv_idx, -float('inf'), score)",
        "torch.where(q_idx > kv_idx, torch.log((q_idx - kv_idx) * 1.0), 0.0) + score",
        "5.0 * torch.tanh(1e4 * score)",
        "score * 1e4",
        "score.abs()",
        "score.clamp(-0.5, 0.5)",
        "torch.nn.functional.gelu(score)",
        "torch.nn.functional.leaky_relu(score)",
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, WIDE], ids=str)
def test_kinks_and_extremes(source: str, dtype: torch.dtype) -> None:
    """A derivative is chosen, never multiplied by 0: no NaN next to kinks or saturation."""
    score = ScoreRecipe(source).build()
    inputs = qkv(dtype=dtype, n_kv_heads=4)
    with torch.no_grad():
        inputs[0][:, :, 3] = 0.0  # scores of exactly 0
    out = attention(*inputs, mask=causal, score=score)

    found = torch.autograd.grad(out, inputs, torch.ones_like(out))

    expected = expected_gradients(inputs, causal, score, (), torch.ones_like(out), None)
    assert all(gradient.isfinite().all() for gradient in found)
    assert_gradients_close("qkv", found, expected, dtype, 16)


def test_what_is_masked_does_not_matter() -> None:
    """NaN in keys and values of tiles that nothing sees; and no NaN in what others get."""
    q, k, v = qkv(dtype=torch.float32, n_queries=64, n_keys=300, n_kv_heads=4)

    def near(b, h, q_idx, kv_idx):
        return kv_idx < 64

    expected = torch.autograd.grad(attention(q, k, v, mask=near).sum(), (q, k, v))
    with torch.no_grad():
        k[:, :, 256:], v[:, :, 256:] = torch.nan, torch.inf
    found = torch.autograd.grad(attention(q, k, v, mask=near).sum(), (q, k, v))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_are_the_same_bits_each_time(n_threads: int, dtype: torch.dtype) -> None:
    """At a fixed number of threads, those of captured tensors too."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        inputs = qkv(n_queries=300, n_keys=300, dtype=dtype)
        index = torch.randint(0, 20, (300, 300), generator=torch.Generator().manual_seed(0))
        table, slopes = random(20, seed=5).requires_grad_(), random(4, seed=6).requires_grad_()

        def score(s, b, h, q_idx, kv_idx):
            return s * slopes[h] + table[index[q_idx, kv_idx]]

        runs = []
        for _ in range(5):
            out = attention(*inputs, mask=causal, score=score, enable_gqa=True)
            runs.append(torch.autograd.grad(out.float().sum(), (*inputs, table, slopes)))
        for again in runs[1:]:
            assert all(torch.equal(a, b) for a, b in zip(runs[0], again, strict=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "wanted",
    [
        # By default each alone, all but one, and two of the pairs.
        pytest.param(n, marks=[pytest.mark.slow] if n in (3, 5, 10, 12, 15) else [])
        for n in range(1, 16)
    ],
)
def test_frozen_inputs_get_none_and_change_nothing(wanted: int) -> None:
    """Any subset of q, k, v and a bias: the gradients are those of all four."""
    values = [*qkv(dtype=torch.float32), random(90, dtype=torch.float32, seed=5)]

    def gradients(flags: list[bool]) -> list[torch.Tensor | None]:
        q, k, v, bias = (
            x.detach().clone().requires_grad_(flag) for x, flag in zip(values, flags, strict=True)
        )
        out = attention(
            q, k, v, score=lambda s, b, h, q, k: s + bias[k], mask=causal, enable_gqa=True
        )
        out.sum().backward()
        return [x.grad for x in (q, k, v, bias)]

    flags = [bool(wanted >> place & 1) for place in range(4)]
    for flag, alone, among_all in zip(flags, gradients(flags), gradients([True] * 4), strict=True):
        assert (alone is not None) is flag
        if alone is not None:
            torch.testing.assert_close(alone, among_all, rtol=1e-5, atol=1e-6)


def test_nothing_flows_back_through_comparisons() -> None:
    """A captured tensor that only masks and conditions read is a constant, as in PyTorch."""
    q, k, v = (x.detach() for x in qkv(dtype=torch.float32, n_kv_heads=4))
    limit = torch.full((4,), 7.0, requires_grad=True)
    assert not attention(q, k, v, mask=lambda b, h, q, k: k < limit[h]).requires_grad
    chosen = attention(q, k, v, score=lambda s, b, h, q, k: torch.where(limit[h] > 3, s, 0.0))
    assert not chosen.requires_grad
    assert attention(q, k, v, score=lambda s, b, h, q, k: s + limit[h]).requires_grad


@pytest.mark.parametrize("layout", ["expanded", "transposed", "sliced", "negated"])
def test_upstream_gradients_may_have_any_strides(layout: str) -> None:
    """Expanded, transposed, cut out, or marked as negative."""
    inputs = qkv(dtype=torch.float32)
    out = attention(*inputs, mask=causal, enable_gqa=True)
    shape = out.shape
    grad = {
        "expanded": lambda: torch.ones(1, dtype=out.dtype).expand(shape),
        "transposed": lambda: random(*shape[::-1], dtype=out.dtype).permute(3, 2, 1, 0),
        "sliced": lambda: random(*shape[:3], 2 * shape[3], dtype=out.dtype)[..., ::2],
        "negated": lambda: torch.complex(*[random(*shape, dtype=out.dtype)] * 2).conj().imag,
    }[layout]()
    found = torch.autograd.grad(out, inputs, grad, retain_graph=True)
    dense = grad.resolve_neg().contiguous().clone()
    expected = torch.autograd.grad(out, inputs, dense)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_upstream_gradients_without_memory_are_zeros() -> None:
    """PyTorch has tensors of zeros that nothing is stored of; a kernel must not read them."""
    inputs = qkv(dtype=torch.float32)
    out, lse = attention(*inputs, enable_gqa=True, return_lse=True)
    for output in (out, lse):
        zeros = torch._efficientzerotensor(output.shape)
        found = torch.autograd.grad(output, inputs, zeros, retain_graph=True)
        assert not any(gradient.any() for gradient in found)


def test_lse_alone_is_differentiated() -> None:
    """Without a gradient of the output; and the maximum is no function of anything."""
    q, k, v = qkv(dtype=torch.float32, n_kv_heads=4)
    out, aux = attnc.flex_attention(q, k, v, return_aux=attnc.AuxRequest(lse=True, max_scores=True))
    assert out.requires_grad
    assert not aux.max_scores.requires_grad
    grads = torch.autograd.grad(aux.lse.sum(), (q, k, v))
    scores = q @ k.transpose(2, 3) * 0.25
    expected = torch.autograd.grad(scores.logsumexp(3).sum(), (q, k))
    torch.testing.assert_close(grads[:2], expected)
    assert not grads[2].any()


def test_a_bias_that_replaces_the_score_leaves_q_and_k_alone() -> None:
    """Gradients of 0, without a product of q and k."""
    q, k, v = qkv(dtype=torch.float32, n_kv_heads=4)
    bias = random(90, dtype=torch.float32).requires_grad_()
    attention(q, k, v, score=lambda s, b, h, q, k: bias[k]).sum().backward()
    assert not q.grad.any()
    assert not k.grad.any()
    assert v.grad.any()
