"""Training inside of torch.compile: the operators, and parameters that mods capture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import attnc
from attnc.in_graph.operators import attention_op

pytestmark = pytest.mark.filterwarnings("ignore")
BACKENDS = ["eager", "aot_eager"]


@pytest.fixture(autouse=True)
def no_graphs_of_others() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)


class Attention(torch.nn.Module):
    """Projections, a sliding window, a table of relative biases and a learned cap."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.project = torch.nn.Linear(32, 96, dtype=dtype)
        self.table = torch.nn.Parameter(torch.randn(2, 95, dtype=dtype))
        self.cap = torch.nn.Parameter(torch.tensor(8.0, dtype=dtype))
        self.window = 20

    def score(self, s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
        return self.cap * torch.tanh(s / self.cap) + self.table[h, i - j + 47]

    def mask(self, b: Any, h: Any, i: Any, j: Any) -> Any:
        return (i >= j) & (i - j < self.window)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.project(x).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
        out = attnc.attention(q, k, v, mask=self.mask, score=self.score)
        return out.transpose(1, 2).flatten(2)


def gradients(model: Any, step: Any, x: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad(set_to_none=True)
    x = x.clone().requires_grad_()
    step(x).square().sum().backward()
    return [x.grad, *(parameter.grad for parameter in model.parameters())]


@pytest.mark.parametrize("backend", BACKENDS)
def test_parameters_captured_through_self_train_in_one_graph(backend: str) -> None:
    """Those of the projections, of the table and of the cap."""
    model = Attention().train()
    x = torch.randn(2, 48, 32)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    expected = gradients(model, model, x)
    for _ in range(2):
        torch.testing.assert_close(gradients(model, compiled, x), expected)


@pytest.mark.slow
def test_inductor_trains() -> None:
    """The default backend, and steps of an optimizer."""
    losses = []
    for compile_it in (False, True):
        torch.manual_seed(0)
        model = Attention()
        step = torch.compile(model, fullgraph=True) if compile_it else model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x, goal = torch.randn(2, 48, 32), torch.randn(2, 48, 32)
        for _ in range(5):
            optimizer.zero_grad()
            loss = (step(x) - goal).square().mean()
            loss.backward()
            optimizer.step()
        losses.append(loss.detach())
    torch.testing.assert_close(losses[0], losses[1])


def test_one_graph_holds_both_operators() -> None:
    """The backward graph has one operator, which computes what is needed."""
    from functorch.compile import aot_module, make_boxed_func

    graphs: list[Any] = []

    def kept(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    model = Attention()
    gradients(model, aot_module(model, kept), torch.randn(2, 48, 32))
    calls = [[str(node.target) for node in graph.graph.nodes] for graph in graphs]
    assert [names.count("attnc.attention.default") for names in calls] == [1, 0]
    assert [names.count("attnc.attention_backward.default") for names in calls] == [0, 1]


def test_compiled_lse_and_checkpoints() -> None:
    """The log-sum-exp in a graph, and a checkpoint around attention."""

    def model(q: torch.Tensor) -> torch.Tensor:
        out, lse = attnc.attention(q, q, q, return_lse=True)
        return out.sum(-1) * lse

    def recomputed(q: torch.Tensor) -> torch.Tensor:
        return checkpoint(model, q, use_reentrant=False)

    q = torch.randn(1, 2, 33, 16, requires_grad=True)
    (expected,) = torch.autograd.grad(model(q).sum(), q)
    for fn in (model, recomputed):
        compiled = torch.compile(fn, fullgraph=True, backend="aot_eager")
        (found,) = torch.autograd.grad(compiled(q).sum(), q)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_block_masks_and_lengths_in_compiled_training(backend: str) -> None:
    """A BlockMask is an input; a length that changes makes no wrong gradient."""
    compiled = torch.compile(attnc.flex_attention, backend=backend)
    for length in (64, 80, 96):
        for block in (16, 12):
            mask = attnc.create_block_mask(
                lambda b, h, i, j: (i >= j) & (i % 5 != 3), 1, 1, length, length, "cpu", block
            )
            q = torch.randn(1, 2, length, 16, requires_grad=True)
            (found,) = torch.autograd.grad(compiled(q, q, q, block_mask=mask).sum(), q)
            eager = attnc.flex_attention(q, q, q, block_mask=mask)
            torch.testing.assert_close(found, torch.autograd.grad(eager.sum(), q)[0])


def call_op(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, backend: Any = None) -> Any:
    mask = "q_idx >= kv_idx"
    options = (None, True, False, backend, False)
    return attention_op(q, k, v, [], [], mask, "", [], [], *options)


def test_the_operator_passes_the_checks_of_pytorch() -> None:
    """Schema, registration of autograd, fake tensors, and compiled gradients."""
    inputs = [torch.randn(1, 2, 9, 4, requires_grad=True) for _ in range(3)]
    arguments = (*inputs, [], [], "q_idx >= kv_idx", "", [], [], None, True, False, None, False)
    torch.library.opcheck(attention_op, arguments)


def test_the_operator_has_gradients_of_every_order() -> None:
    """Called by itself, outside of graphs."""
    inputs = [torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]

    def attend(*inputs: torch.Tensor) -> Any:
        return call_op(*inputs)[:2]

    assert torch.autograd.gradcheck(attend, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(attend, inputs, fast_mode=True)


def test_the_operator_trains_on_the_reference() -> None:
    """The dense backend of graphs."""
    inputs = [torch.randn(1, 2, 9, 4, requires_grad=True) for _ in range(3)]
    expected = torch.autograd.grad(call_op(*inputs)[0].sum(), inputs)
    found = torch.autograd.grad(call_op(*inputs, backend="reference")[0].sum(), inputs)
    torch.testing.assert_close(found, expected)


def test_torch_func_sees_the_operator() -> None:
    """torch.func.grad of the operator itself."""
    q, k, v = (torch.randn(1, 2, 9, 4) for _ in range(3))
    found = torch.func.grad(lambda q: call_op(q, k, v)[0].square().sum())(q)
    leaf = q.clone().requires_grad_()
    call_op(leaf, k, v)[0].square().sum().backward()
    torch.testing.assert_close(found, leaf.grad)


def test_nothing_is_followed_that_a_comparison_reads() -> None:
    """A captured parameter that only a mask reads makes no graph, compiled or not."""
    limit = torch.nn.Parameter(torch.full((2,), 7.0))

    def model(q: torch.Tensor) -> torch.Tensor:
        return attnc.attention(q, q, q, mask=lambda b, h, i, j: j < limit[h])

    q = torch.randn(1, 2, 33, 16)
    assert not model(q).requires_grad
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(q).detach(), model(q))


def test_checkpoints_compile_as_one_graph() -> None:
    """With dynamo's leave for side effects in them, and then with the gradients of eager calls."""
    q, k, v = (torch.randn(1, 2, 64, 16, requires_grad=True) for _ in range(3))
    slopes = torch.randn(2, requires_grad=True)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        def score(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return score + slopes[h] * (q_idx - kv_idx)

        out = attnc.attention(q, k, v, mask=lambda b, h, q, kv: q >= kv, score=score)
        assert isinstance(out, torch.Tensor)
        return out

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return checkpoint(attend, q, k, v, use_reentrant=False)

    leaves = (q, k, v, slopes)
    expected = torch.autograd.grad(attend(q, k, v).sum(), leaves)
    with torch._dynamo.config.patch(skip_fwd_side_effects_in_bwd_under_checkpoint=True):
        found = torch.autograd.grad(compiled(q, k, v).sum(), leaves)

    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
