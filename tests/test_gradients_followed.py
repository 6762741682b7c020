"""Gradients in a program: checkpoints, transforms of functions, autocast, threads and forks."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from gradient_inputs import causal, qkv, random, softcap
from torch.utils.checkpoint import checkpoint

import attnc
from attnc import attention
from attnc.errors import FunctionTransformError, NoCompilerError
from attnc.runtime import cpu


def test_writes_between_the_passes_are_noticed() -> None:
    """As everywhere in PyTorch: what backward reads must not have been written."""
    q, k, v = qkv(dtype=torch.float32, n_kv_heads=4)
    ids = torch.arange(90) // 30
    out = attention(q, k, v, mask=lambda b, h, q_idx, kv_idx: ids[q_idx] == ids[kv_idx])
    ids += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_masks_of_inference_mode_serve_training() -> None:
    """Document numbers may have been made under inference_mode."""
    with torch.inference_mode():
        ids = torch.arange(90) // 30
    q, k, v = qkv(dtype=torch.float32, n_kv_heads=4)
    attention(q, k, v, mask=lambda b, h, q_idx, kv_idx: ids[q_idx] == ids[kv_idx]).sum().backward()
    assert q.grad.any()


def test_one_tensor_as_q_k_and_v() -> None:
    """Gradients of all three roles are added, in double backward too."""
    x = random(1, 2, 6, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: attention(x, x, x, mask=causal), (x,))
    assert torch.autograd.gradgradcheck(lambda x: attention(x, x, x, mask=causal), (x,))


def test_autocast_gives_gradients_in_the_dtype_of_the_inputs() -> None:
    """Attention runs in bfloat16; the casts are part of the graph."""
    inputs = qkv(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attention(*inputs, mask=causal, enable_gqa=True)
    assert out.dtype is torch.bfloat16
    out.sum().backward()
    plain = qkv(dtype=torch.float32)
    attention(*plain, mask=causal, enable_gqa=True).sum().backward()
    for x, y in zip(inputs, plain, strict=True):
        assert x.grad.dtype is torch.float32
        torch.testing.assert_close(x.grad, y.grad, rtol=0.05, atol=0.1)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoints_recompute(use_reentrant: bool) -> None:
    """Both forms of torch.utils.checkpoint give the same gradients, bit for bit."""
    inputs = qkv(dtype=torch.float32)
    slopes = random(4, dtype=torch.float32).requires_grad_()

    def layer(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        def score(s, b, h, q_idx, kv_idx):
            return s - slopes[h] * (q_idx - kv_idx)

        return attention(q, k, v, mask=causal, score=score, enable_gqa=True)

    checkpoint(layer, *inputs, use_reentrant=use_reentrant).sum().backward()
    expected = torch.autograd.grad(layer(*inputs).sum(), (*inputs, slopes))
    for x, gradient in zip((*inputs, slopes), expected, strict=True):
        assert torch.equal(x.grad, gradient)


@pytest.mark.parametrize("how", ["no_grad", "inference_mode", "detach"])
def test_no_graph_where_none_is_asked_for(how: str) -> None:
    """And none is kept."""
    inputs = qkv(dtype=torch.float32)
    if how == "detach":
        out = attention(*(x.detach() for x in inputs), enable_gqa=True)
    else:
        with getattr(torch, how)():
            out = attention(*inputs, enable_gqa=True)
    assert not out.requires_grad


@pytest.mark.parametrize("transform", ["grad", "vjp", "grad of grad"])
def test_transforms_of_functions(transform: str) -> None:
    """torch.func.grad and vjp run the kernels; twice, the composed second pass."""
    q, k, v = (x.detach() for x in qkv(n_batch=1, n_kv_batch=1, n_queries=5, n_keys=6))

    def loss(q: torch.Tensor) -> torch.Tensor:
        return (attention(q, k, v, mask=causal, enable_gqa=True) ** 2).sum()

    leaf = q.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    match transform:
        case "grad":
            torch.testing.assert_close(torch.func.grad(loss)(q), first)
        case "vjp":
            _, pull = torch.func.vjp(loss, q)
            torch.testing.assert_close(pull(torch.ones((), dtype=q.dtype))[0], first)
        case _:
            (second,) = torch.autograd.grad((first**2).sum(), leaf)
            found = torch.func.grad(lambda q: (torch.func.grad(loss)(q) ** 2).sum())(q)
            torch.testing.assert_close(found, second)


def test_transforms_reach_captured_parameters() -> None:
    """``functional_call`` with the parameters of a module that captures them."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slopes = torch.nn.Parameter(random(4))

        def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
            def score(s, b, h, q_idx, kv_idx):
                return s - self.slopes[h] * (q_idx - kv_idx)

            return attention(q, k, v, score=score, enable_gqa=True)

    model = Model()
    inputs = [x.detach() for x in qkv()]

    def loss(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(model, parameters, tuple(inputs)).sum()

    found = torch.func.grad(loss)({"slopes": model.slopes.detach()})
    model(*inputs).sum().backward()
    torch.testing.assert_close(found["slopes"], model.slopes.grad)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_other_transforms_are_refused_by_name() -> None:
    """vmap, forward mode, and vmap of a gradient."""
    q, k, v = (x.detach() for x in qkv(n_kv_heads=4))
    with pytest.raises(FunctionTransformError, match="q belongs to"):
        torch.vmap(attention)(*[torch.stack([q, q])] * 3)
    with pytest.raises(FunctionTransformError, match="forward-mode"):
        torch.func.jvp(lambda q: attention(q, k, v), (q,), (q,))
    with (
        torch.autograd.forward_ad.dual_level(),
        pytest.raises(FunctionTransformError, match="forward-mode"),
    ):
        attention(torch.autograd.forward_ad.make_dual(q, q), k, v)
    with pytest.raises(FunctionTransformError, match="a gradient of attention"):
        torch.func.jacrev(lambda q: attention(q, k, v))(q)


@pytest.mark.parametrize("create_graph", [False, True])
def test_batches_of_upstream_gradients_are_refused_by_name(create_graph: bool) -> None:
    """``is_grads_batched``, and ``jacobian(vectorize=True)`` with it, map the backward pass."""
    inputs = qkv(n_kv_heads=4, n_queries=3)
    out = attention(*inputs)
    grads = torch.ones(2, *out.shape, dtype=out.dtype)
    with pytest.raises(FunctionTransformError, match="a gradient of attention"):
        torch.autograd.grad(out, inputs, grads, is_grads_batched=True, create_graph=create_graph)


def test_the_reference_and_the_path_without_a_compiler_train(monkeypatch: Any) -> None:
    """backend="reference" follows the user's function; without a compiler tiles are composed."""
    inputs = qkv(dtype=torch.float32)
    table = random(4, 179, dtype=torch.float32).requires_grad_()

    def score(s, b, h, q_idx, kv_idx):
        return softcap(s, b, h, q_idx, kv_idx) + table[h, q_idx - kv_idx + 89]

    def gradients(**options: Any) -> Any:
        out, lse = attention(
            *inputs, mask=causal, score=score, enable_gqa=True, return_lse=True, **options
        )
        return torch.autograd.grad(out.sum() + lse.sin().sum(), (*inputs, table))

    expected = gradients()
    torch.testing.assert_close(gradients(backend="reference"), expected)

    def missing() -> Any:
        raise NoCompilerError(tried="c++")

    monkeypatch.setattr(cpu, "find_compiler", missing)
    monkeypatch.setattr(cpu, "_warned", True)
    monkeypatch.setattr("attnc.runtime.front._ready", {})
    monkeypatch.setattr("attnc.runtime.front._front", type(cpu_front())())
    torch.testing.assert_close(gradients(), expected)


def cpu_front() -> Any:
    from attnc.runtime import front

    return front._front


def test_block_masks_train() -> None:
    """Also with blocks that no kernel has."""
    for block in (128, 32, 24):
        inputs = qkv(dtype=torch.float32)
        mask = attnc.create_block_mask(
            lambda b, h, q, k: (q >= k) & (q % 7 != 0), 1, 1, 70, 90, "cpu", BLOCK_SIZE=block
        )
        out = attnc.flex_attention(*inputs, block_mask=mask, enable_gqa=True)
        found = torch.autograd.grad(out.sum(), inputs)
        live = attention(*inputs, mask=mask.mask_mod, enable_gqa=True)
        torch.testing.assert_close(found, torch.autograd.grad(live.sum(), inputs))


def test_threads_train_side_by_side() -> None:
    """One kernel, many callers."""

    def train(seed: int) -> list[torch.Tensor]:
        inputs = [random(1, 2, 64, 16, dtype=torch.float32, seed=seed + i) for i in range(3)]
        inputs = [x.requires_grad_() for x in inputs]
        attention(*inputs, mask=causal).sum().backward()
        return [x.grad for x in inputs]

    expected = [train(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(train, range(8)), expected, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def _train_in_child(results: Any) -> None:
    inputs = qkv(dtype=torch.float32)
    attention(*inputs, mask=causal, enable_gqa=True).sum().backward()
    results.put([x.grad.double().sum().item() for x in inputs])


def test_a_forked_child_trains() -> None:
    """Threads of the parent are gone there."""
    inputs = qkv(dtype=torch.float32)
    attention(*inputs, mask=causal, enable_gqa=True).sum().backward()
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_train_in_child, args=(results,))
    child.start()
    found = results.get(timeout=60)
    child.join()
    assert found == pytest.approx([x.grad.double().sum().item() for x in inputs], abs=1e-4)
