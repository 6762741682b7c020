"""attnc inside of torch.compile and torch.export: one graph, and nothing stale."""

from __future__ import annotations

import copy
import functools
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.export import Dim

import attnc
from attnc import AuxRequest, BlockMask, create_block_mask, flex_attention
from attnc.errors import BlockMaskLengthError
from attnc.in_graph.operators import attention_op

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
# dynamo warns of what is its own business, as of the mode that sees what a mod calls.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def forward_only() -> Iterator[None]:
    """No gradients, and no graphs of other tests."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def qkv(length: int = 48, *, heads: int = 2, kv_heads: int = 2, dtype: Any = None) -> Tensors:
    def tensor(n_heads: int) -> torch.Tensor:
        return torch.randn(2, n_heads, length, 16, dtype=dtype)

    return tensor(heads), tensor(kv_heads), tensor(kv_heads)


def whole(fn: Callable[..., Any], **options: Any) -> tuple[Callable[..., Any], CompileCounter]:
    """``fn`` compiled as one graph, and the count of its compilations."""
    counter = CompileCounter()
    return torch.compile(fn, backend=counter, fullgraph=True, **options), counter


def agree(compiled: Callable[..., Any], eager: Callable[..., Any], *args: Any) -> None:
    torch.testing.assert_close(compiled(*args), eager(*args))


class Documents(torch.nn.Module):
    """Causal attention inside of documents that its tokens tell."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ids: Any) -> Any:
        doc = (ids == 0).cumsum(-1)
        return attnc.attention(q, k, v, mask=lambda b, h, i, j: (doc[b, i] == doc[b, j]) & (i >= j))


class Biased(torch.nn.Module):
    """A score that reads a parameter through ``self``."""

    def __init__(self) -> None:
        super().__init__()
        self.slopes = torch.nn.Parameter(torch.rand(2))

    def score(self, s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
        return s - self.slopes[h] * (i - j)

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        return attnc.attention(q, k, v, score=self.score)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_documents_of_each_batch_are_seen_without_recompiling(backend: str) -> None:
    """Tables follow the content of what the graph computes."""
    model = Documents()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    agree(compiled, model, *qkv(), torch.randint(0, 5, (2, 48)))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            agree(compiled, model, *qkv(), torch.randint(0, 5, (2, 48)))


@pytest.mark.slow
def test_inductor_compiles_the_code_around_it() -> None:
    """The default backend, with lengths that change."""
    model = Documents()
    compiled = torch.compile(model, fullgraph=True)
    for length in (48, 64, 80):
        agree(compiled, model, *qkv(length), torch.randint(0, 5, (2, length)))


def test_twenty_kernels_make_one_graph() -> None:
    """The recompile limit of 8 is one of graphs, not of kernels."""
    kernels = [attnc.kernel(lambda b, h, i, j, w=w: (i >= j) & (i - j < w)) for w in range(1, 21)]

    def model(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        for kernel in kernels:
            q = q + kernel(q, k, v)
        return q

    compiled, counter = whole(model)
    agree(compiled, model, *qkv(20))
    assert counter.frame_count == 1


def test_kernels_combine_inside_of_a_graph() -> None:
    """Decorated outside or inside."""
    window = attnc.kernel(lambda b, h, i, j: i - j < 7)

    def model(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        @attnc.kernel
        def causal(b: Any, h: Any, i: Any, j: Any) -> Any:
            return i >= j

        return (causal & window)(q, k, v)

    agree(whole(model)[0], model, *qkv())


@pytest.mark.slow
@pytest.mark.parametrize("value", [(3, 5, 7, 9), (0.3, 0.5, 0.7, 0.9)])
def test_captured_numbers_change_without_recompiling(value: tuple[Any, ...]) -> None:
    """After the second value dynamo knows that they change."""

    def model(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, n: Any) -> Any:
        return attnc.attention(
            q,
            k,
            v,
            mask=lambda b, h, i, j: (i - j < n * 3) & (n - i < j) | (i == n) | (n != j),
            score=lambda s, b, h, i, j: s * n + (n - j) / (n + i) - (i - j).abs() * n,
        )

    compiled, counter = whole(model)
    for n in value:
        agree(compiled, model, *qkv(), n)
    assert counter.frame_count == 2


@pytest.mark.parametrize("number", [np.float32, np.float64, np.int64])
def test_numbers_of_numpy_are_captured(number: Any) -> None:
    """As eager calls take them, and read anew when they change."""
    captured = [number(3)]

    def model(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        n = captured[0]
        return attnc.attention(
            q,
            k,
            v,
            mask=lambda b, h, i, j: i - j < n,
            score=lambda s, b, h, i, j: s * n,
        )

    compiled, _ = whole(model)
    agree(compiled, model, *qkv())
    captured[0] = number(7)
    agree(compiled, model, *qkv())


@pytest.mark.slow
def test_lengths_may_be_dynamic() -> None:
    """Asked for, marked, or found out; also as numbers that the mask reads."""

    def model(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        past = k.shape[2] - q.shape[2]
        return attnc.attention(q, k, v, mask=lambda b, h, i, j: i + past >= j)

    for dynamic, n_compiled in ((True, 1), (None, 2)):
        torch._dynamo.reset()
        compiled, counter = whole(model, dynamic=dynamic)
        for length in (5, 6, 7, 8):
            q, k, v = qkv(40 + length)
            agree(compiled, model, q[:, :, :length], k, v)
        assert counter.frame_count == n_compiled

    torch._dynamo.reset()
    compiled, counter = whole(model)
    for length in (20, 21):
        inputs = qkv(length)
        for tensor in inputs:
            torch._dynamo.mark_dynamic(tensor, 2)
        agree(compiled, model, *inputs)
    assert counter.frame_count == 1


@pytest.mark.slow
def test_rows_of_dynamic_tensors_are_indexed() -> None:
    """``doc[b][i]``, slices, reductions, tensors made inside of the mod, operators in place."""
    bias = torch.randn(2, 64)

    def mask(doc: torch.Tensor, b: Any, h: Any, i: Any, j: Any) -> Any:
        seen = doc[b][i] == doc[b][j]
        seen |= torch.tensor([True, False])[i % 2]
        distance = i - j
        distance += 1
        distance **= 2
        return seen & (distance < torch.tensor(90)) | attnc.noop_mask(b, h, i, j)

    def model(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, doc: torch.Tensor) -> Any:
        return attnc.attention(
            q,
            k,
            v,
            mask=functools.partial(mask, doc),
            score=lambda s, b, h, i, j: s + bias[h][i - j] + bias[h, :10].sum(),
        )

    compiled, counter = whole(model)
    for length in (20, 30, 40):
        agree(compiled, model, *qkv(length), torch.randint(0, 3, (2, length)))
    assert counter.frame_count == 2


@pytest.mark.slow
def test_outputs_and_keywords_are_those_of_eager_calls() -> None:
    """lse, grouped heads, scale, float64, autocast, inference mode."""

    def model(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        return attnc.attention(
            q,
            k,
            v,
            score=lambda s, b, h, i, j: s * 0.1 + i / 7,
            mask=lambda b, h, i, j: i >= j,
            scale=0.3,
            enable_gqa=True,
            return_lse=True,
        )

    def lower(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(q, k, v)

    compiled, _ = whole(model)
    agree(compiled, model, *qkv(heads=4))
    agree(compiled, model, *qkv(heads=4, dtype=torch.float64))
    agree(whole(lower)[0], lower, *qkv(heads=4))
    with torch.inference_mode():
        agree(compiled, model, *qkv(heads=4))


@pytest.mark.slow
def test_outputs_keep_the_memory_order_of_q() -> None:
    """As the graph was told: a (B, S, H, D) model gets its output back without a copy."""
    q, k, v = (tensor.transpose(1, 2) for tensor in torch.randn(3, 2, 48, 2, 16))
    compiled = torch.compile(attnc.attention, fullgraph=True, backend="aot_eager")
    assert compiled(q, k, v).stride() == q.stride()


@pytest.mark.slow
def test_parameters_are_read_through_self() -> None:
    """Writes, load_state_dict and functional_call are seen; a new dtype is a new graph."""
    model = Biased()
    compiled, counter = whole(model)
    agree(compiled, model, *qkv())
    model.slopes.mul_(2)
    agree(compiled, model, *qkv())
    model.load_state_dict({"slopes": torch.rand(2)})
    agree(compiled, model, *qkv())
    assert counter.frame_count == 1

    def called(slopes: torch.Tensor, *inputs: torch.Tensor) -> Any:
        return torch.func.functional_call(model, {"slopes": slopes}, inputs)

    agree(whole(called)[0], called, torch.ones(2), *qkv())
    model.to(torch.bfloat16)
    agree(compiled, model, *qkv(dtype=torch.bfloat16))
    assert counter.frame_count == 2


@pytest.mark.slow
def test_modules_are_copied_and_pickled() -> None:
    """Before and after they were compiled."""
    model = Biased()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        inputs = qkv()
        agree(whole(twin)[0], model, *inputs)
        agree(copy.deepcopy(twin), model, *inputs)


@pytest.mark.slow
def test_flex_attention_is_compiled_as_every_user_does() -> None:
    """With and without fullgraph, for scores that change between calls."""
    inputs = qkv()
    for compiled in (torch.compile(flex_attention, backend="eager"), whole(flex_attention)[0]):
        for slope in (0.5, 2.0, 3.0):

            def score(s: Any, b: Any, h: Any, i: Any, j: Any, slope: float = slope) -> Any:
                return s - slope * (i - j).abs()

            agree(compiled, flex_attention, *inputs, score)
        aux = AuxRequest(lse=True, max_scores=True)
        torch.testing.assert_close(
            compiled(*inputs, return_aux=aux), flex_attention(*inputs, return_aux=aux)
        )


@pytest.mark.slow
@pytest.mark.parametrize("block", [16, (20, 24)])
def test_block_masks_from_outside_are_taken(block: Any) -> None:
    """Ours and PyTorch's, with and without tensors, also where no kernel has such tiles."""
    doc = torch.randint(0, 3, (2, 64)).sort(-1).values

    def model(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, block_mask: Any) -> Any:
        return flex_attention(q, k, v, block_mask=block_mask)

    def documents(b: Any, h: Any, i: Any, j: Any) -> Any:
        return (doc[b, i] == doc[b, j]) & (i >= j)

    for mod in (lambda b, h, i, j: i >= j, documents):
        block_mask = create_block_mask(mod, 2, None, 64, 64, device="cpu", BLOCK_SIZE=block)
        for mask in (block_mask, block_mask.to_torch()):
            torch._dynamo.reset()
            agree(whole(model)[0], model, *qkv(64), mask)


@pytest.mark.slow
def test_a_new_block_mask_for_each_batch_does_not_recompile() -> None:
    """Their runs are inputs of the graph."""

    def model(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, block_mask: Any) -> Any:
        return flex_attention(q, k, v, block_mask=block_mask)

    compiled, counter = whole(model)
    for n_documents in range(3, 8):
        doc = torch.randint(0, n_documents, (2, 64)).sort(-1).values
        block_mask = create_block_mask(
            lambda b, h, i, j, doc=doc: doc[b, i] == doc[b, j], 2, None, 64, 64, BLOCK_SIZE=16
        )
        agree(compiled, model, *qkv(64), block_mask)
    assert counter.frame_count <= 2


def test_the_lists_of_a_block_mask_are_the_truth_in_graphs() -> None:
    """Also after they were written to; and its lengths are checked."""
    n_blocks = torch.ones(1, 1, 4, dtype=torch.int32)
    columns = torch.arange(4, dtype=torch.int32).reshape(1, 1, 4, 1).expand(1, 1, 4, 4)
    block_mask = BlockMask.from_kv_blocks(n_blocks, columns.contiguous(), BLOCK_SIZE=16)

    def model(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        return flex_attention(q, k, v, block_mask=block_mask)

    compiled, counter = whole(model)
    agree(compiled, model, *qkv(64))
    block_mask.kv_indices[..., 0] = 0
    agree(compiled, model, *qkv(64))
    assert counter.frame_count == 1
    with pytest.raises(BlockMaskLengthError, match="created for 64 queries"):
        compiled(*qkv(63))


@pytest.mark.parametrize("strict", [False, True])
def test_exported_programs_run_for_any_length(strict: bool) -> None:
    """Also after they were saved and loaded."""
    model, length = Documents(), Dim("length")
    args = (*qkv(), torch.randint(0, 5, (2, 48)))
    shapes = ({2: length}, {2: length}, {2: length}, {1: length})
    program = torch.export.export(model, args, dynamic_shapes=shapes, strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file)
    for n_tokens in (48, 60):
        args = (*qkv(n_tokens), torch.randint(0, 5, (2, n_tokens)))
        agree(program.module(), model, *args)
        agree(loaded.module(), model, *args)


def test_a_graph_shows_the_mask_as_text() -> None:
    """What the operator computes can be read in any graph."""
    program = torch.export.export(Documents(), (*qkv(), torch.randint(0, 5, (2, 48))))
    assert "(t0[b, q_idx] == t0[b, kv_idx]) & (q_idx >= kv_idx)" in program.graph_module.code


def test_what_dynamo_cannot_trace_runs_between_graphs() -> None:
    """And raises what it raises without torch.compile; a whole graph names the place."""
    marks: list[int] = []

    def odd(b: Any, h: Any, i: Any, j: Any) -> Any:
        marks.append(id(marks))
        return abs(i - j) < 5

    def model(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        return attnc.attention(q * 1, k, v, mask=odd) + 1

    inputs = qkv()
    agree(torch.compile(model, backend="eager"), model, *inputs)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="odd"):
        whole(model)[0](*inputs)


def call_op(*inputs: torch.Tensor) -> Any:
    """The operator with the least that it takes."""
    mask = "q_idx >= kv_idx"
    return attention_op(*inputs, [], [], mask, "", [], [], None, False, False, None, False)


def test_the_operator_is_one_for_pytorch() -> None:
    """PyTorch's own checks of schema, shapes, strides and autograd keys."""
    doc = torch.randint(0, 3, (2, 48))
    for wants_lse in (False, True):
        args = (*qkv(), [doc], [], "t0: int64\nt0[b, q_idx] == t0[b, kv_idx]", "score * 0.5")
        torch.library.opcheck(
            attention_op, (*args, [], [], None, wants_lse, wants_lse, None, False)
        )


@pytest.mark.slow
def test_the_reference_runs_behind_the_operator() -> None:
    """ATTNC_BACKEND and backend= choose when the graph runs."""

    def model(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, backend: str | None) -> Any:
        return attnc.attention(
            q,
            k,
            v,
            mask=lambda b, h, i, j: i >= j,
            score=lambda s, b, h, i, j: s * 0.5,
            backend=backend,
        )

    inputs = qkv()
    compiled, _ = whole(model)
    torch.testing.assert_close(compiled(*inputs, "reference"), compiled(*inputs, None))


@pytest.mark.slow
def test_exported_programs_hold_the_runs_of_a_block_mask() -> None:
    """A mask of a captured tensor, whose lists nobody has looked at: real tensors, right results."""
    documents = torch.arange(48) // 7

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = attnc.create_block_mask(
                lambda b, h, q_idx, kv_idx: documents[q_idx] == documents[kv_idx],
                None,
                None,
                48,
                48,
                device="cpu",
                BLOCK_SIZE=16,
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return attnc.flex_attention(x, x, x, block_mask=self.blocks)

    model, x = Model(), torch.randn(1, 2, 48, 16)
    program = torch.export.export(model, (x,), strict=True)

    result = program.module()(x)
    assert type(result) is torch.Tensor
    torch.testing.assert_close(result, model(x))
