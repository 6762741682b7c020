"""Gradients of biases with an element per pair: stored instead of summed, and read by columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from cpu_kernels import Result, load, program_of, run, spec_of, table_of
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

import attnc
from attnc.plan import Spec, Wanted, make_plan
from attnc.program import Program
from attnc.render.cpp_gradients import gradients_text
from attnc.runtime.call import BackwardCall, Call, CompiledKernel
from attnc.runtime.isa import runnable_isas

PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
# Backward kernels know no tiles of AMX.
ISAS = st.sampled_from([isa for isa in runnable_isas() if isa != "amx"])
LENGTHS = st.sampled_from([1, 15, 64, 127, 129, 200])
DTYPES = ("float32", "bfloat16", "float16", "float64")


def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx - 3


SCORES: dict[str, Callable[[Any, Any], Any]] = {
    "score + bias": lambda score, bias: score + bias,
    "score - 2 * bias": lambda score, bias: score - 2 * bias,
    "tanh(score * bias)": lambda score, bias: torch.tanh(score * bias),
}


@dataclass(frozen=True)
class Biased:
    """A bias whose dimensions come in some order; it may be larger than the scores, and be the
    transpose of what lies in memory."""

    order: tuple[str, ...]
    score: str
    is_causal: bool
    dtype: str
    bias_dtype: str
    n_queries: int
    n_keys: int
    n_batch: int = 1
    excess: int = 0
    is_transposed: bool = False

    def extents(self) -> dict[str, int]:
        return {"b": self.n_batch, "h": 2, "q": self.n_queries, "kv": self.n_keys}

    def bias(self) -> torch.Tensor:
        """In the order b, h, q, kv, contiguous."""
        generator = torch.Generator().manual_seed(3)
        shape = [self.extents()[name] + self.excess for name in sorted(self.order, key=_place)]
        return torch.randn(shape, generator=generator).to(getattr(torch, self.bias_dtype))

    def laid_out(self, bias: torch.Tensor) -> torch.Tensor:
        """The same elements with the dimensions in this order."""
        names = sorted(self.order, key=_place)
        permuted = bias.permute([names.index(name) for name in self.order])
        return permuted.mT.contiguous().mT if self.is_transposed else permuted.contiguous()

    def program(self, bias: torch.Tensor, order: tuple[str, ...]) -> Program:
        combined = SCORES[self.score]

        def score(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            indices = {"b": b, "h": h, "q": q_idx, "kv": kv_idx}
            return combined(score, bias[tuple(indices[name] for name in order)])

        mask = causal if self.is_causal else None
        return program_of(mask, score, getattr(torch, self.dtype))

    def specs(self, program: Program, isa: Any) -> list[Spec]:
        return [
            spec_of(program, dtype=getattr(torch, self.dtype), isa=isa, gradients=gradients)
            for gradients in (None, Wanted(True, True, True, (0,)))
        ]


def _place(name: str) -> int:
    return ("b", "h", "q", "kv").index(name)


def biases() -> st.SearchStrategy[Biased]:
    def with_order(order: tuple[str, ...]) -> st.SearchStrategy[Biased]:
        def with_dtype(dtype: str) -> st.SearchStrategy[Biased]:
            stored = ("float64",) if dtype == "float64" else DTYPES[:3]
            return st.builds(
                Biased,
                order=st.just(order),
                score=st.sampled_from(list(SCORES)),
                is_causal=st.booleans(),
                dtype=st.just(dtype),
                bias_dtype=st.sampled_from(stored),
                n_queries=LENGTHS,
                n_keys=LENGTHS,
                n_batch=st.sampled_from([1, 2]) if "b" in order else st.just(1),
                excess=st.sampled_from([0, 0, 3]),
                is_transposed=st.booleans(),
            )

        return st.sampled_from(DTYPES).flatmap(with_dtype)

    orders = st.sampled_from([("h", "q", "kv"), ("b", "h", "q", "kv")])
    return orders.flatmap(st.permutations).map(tuple).flatmap(with_order)


TRANSPOSED = Biased(("h", "kv", "q"), "score + bias", True, "bfloat16", "bfloat16", 129, 127)


@settings(max_examples=2, phases=PHASES)
@given(st.lists(biases(), min_size=3, max_size=3), ISAS)
@example(
    [
        TRANSPOSED,
        Biased(("h", "q", "kv"), "score + bias", True, "float32", "float32", 129, 127),
        Biased(("kv", "h", "q"), "tanh(score * bias)", True, "float32", "float16", 200, 129),
        Biased(("h", "kv", "q"), "score + bias", False, "float64", "float64", 1, 129, 1, 3),
        Biased(("kv", "q", "h"), "score + bias", False, "float32", "bfloat16", 127, 200, 1, 3),
    ],
    "avx2" if "avx2" in runnable_isas() else "generic",
)
def test_the_layout_of_a_bias_changes_no_bit(unit: list[Biased], isa: Any) -> None:
    """Whatever the order of dimensions, strides, lengths and dtypes: outputs and gradients are
    those of the bias with rows of keys; and what is stored is the sum, rounded once."""
    programs = []
    for bias in unit:
        plain = bias.bias()
        names = tuple(sorted(bias.order, key=_place))
        programs.append(bias.program(plain, names))
        programs.append(bias.program(bias.laid_out(plain), bias.order))
    pairs = [bias for bias in unit for _ in range(2)]
    specs = [bias.specs(program, isa) for bias, program in zip(pairs, programs, strict=True)]
    kernels = load([spec for both in specs for spec in both])
    for number, bias in enumerate(unit):
        found = []
        for at in (2 * number, 2 * number + 1):
            forward, backward = kernels[2 * at : 2 * at + 2]
            found.append(_trained(bias, programs[at], forward, backward))
        names = tuple(sorted(bias.order, key=_place))
        back = [bias.order.index(name) for name in names]
        expected, of_layout = found
        for ours, theirs in zip(of_layout[:4], expected[:4], strict=True):
            assert torch.equal(ours, theirs), bias
        summed, stored = expected[4:]
        assert summed.abs().sum() > 0 or 1 in (bias.n_queries, bias.n_keys), bias
        for ours in of_layout[4:]:
            assert torch.equal(ours.permute(back).to(stored.dtype), stored), bias
        assert torch.equal(summed.to(stored.dtype), stored), bias


def _trained(
    bias: Biased, program: Program, forward: CompiledKernel, backward: CompiledKernel
) -> list[torch.Tensor]:
    """Output, gradients of q, k and v, then of the bias: summed, and stored."""
    generator = torch.Generator().manual_seed(4)
    dtype = getattr(torch, bias.dtype)
    lengths = (bias.n_queries, bias.n_keys, bias.n_keys, bias.n_queries)
    q, k, v, grad_out = (
        torch.randn(bias.n_batch, 2, n, 16, generator=generator).to(dtype) for n in lengths
    )
    result: Result = run(forward, program, q, k, v)
    table = table_of(backward, program, q, k)
    values, tensors = program.lifted.values, program.tensors
    call = Call(q, k, v, result.out, result.lse, None, 0.25, values, tensors, table)
    gradients: list[torch.Tensor] = []
    of_bias = []
    (captured,) = tensors
    short = captured.itemsize == 2
    for is_stored in (False, True):
        gradients = [torch.full_like(x, torch.nan) for x in (q, k, v)]
        kept = captured.dtype if short and is_stored else result.lse.dtype
        start = 0.0 if is_stored else torch.nan
        of_bias.append(torch.full(captured.shape, start, dtype=kept))
        backward.run_backward(
            BackwardCall(call, grad_out, None, *gradients, of_bias[-1:], [is_stored])
        )
    return [result.out, *gradients, *of_bias]


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_large_bias_of_16_bits_has_the_gradient_of_one_of_32(
    dtype: torch.dtype, n_threads: int
) -> None:
    """Rounded once, with as many elements as are stored past the caches; also twice in a batch,
    where it is summed, and in a kernel that sees some of the pairs only."""
    generator = torch.Generator().manual_seed(6)
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        for n_batch in (1, 2):
            q, k, v = (torch.randn(n_batch, 4, 512, 16, generator=generator) for _ in range(3))
            bias = torch.randn(4, 512, 512, generator=generator).to(dtype)
            found = []
            for stored in (dtype, torch.float32):
                leaf = bias.to(stored, copy=True).requires_grad_()
                out = attnc.attention(q, k, v, mask=causal, score=_added(leaf))
                found += torch.autograd.grad(out.sum() + (out**2).sum(), leaf)
            assert found[0].dtype is dtype
            assert torch.equal(found[0], found[1].to(dtype))
            visible = causal(0, 0, torch.arange(512)[:, None], torch.arange(512))
            assert not found[1][:, ~visible].any()
            assert found[1][:, visible].count_nonzero() > 0.9 * 4 * visible.sum()
    finally:
        torch.set_num_threads(before)


def _added(bias: torch.Tensor) -> Callable[..., Any]:
    return lambda score, b, h, q_idx, kv_idx: score + bias[h, q_idx, kv_idx]


@dataclass(frozen=True)
class Short:
    """A captured tensor that two heads or batches read one element of, and how."""

    shape: tuple[int, ...]
    read: Callable[..., Any]
    n_batch: int = 1
    kv_heads: int = 4


SHORT = {
    "one for all heads": Short((1, 1024, 1024), lambda t, b, h, q, kv: t[h, q, kv]),
    "fewer than heads": Short((3, 1024, 512), lambda t, b, h, q, kv: t[h, q, kv], kv_heads=2),
    "fewer than batches": Short((1, 4, 512, 512), lambda t, b, h, q, kv: t[b, h, q, kv], 2),
    "slopes": Short((2,), lambda t, b, h, q, kv: t[h] * (kv - q) * 0.01, 4),
    "and transposed": Short(
        (1024, 1024), lambda t, b, h, q, kv: (t[h, q] + t[q, h]) * (kv % 5) * 0.1
    ),
}


@pytest.mark.parametrize("name", SHORT)
def test_elements_that_several_heads_read_have_their_sum(name: str) -> None:
    """Those of a tensor shorter than heads or batches, whose last element stands for all beyond,
    and of one read by h in two dimensions: no thread overwrites what another one adds."""
    case = SHORT[name]
    generator = torch.Generator().manual_seed(7)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    captured = random(*case.shape)
    q, grad_out = (random(case.n_batch, 4, 512, 16) for _ in range(2))
    k, v = (random(case.n_batch, case.kv_heads, 512, 16) for _ in range(2))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = []
        for _ in range(4):
            leaf = captured.clone().requires_grad_()
            score = _with(leaf, case.read)
            out = attnc.attention(q, k, v, mask=causal, score=score, enable_gqa=True)
            found += torch.autograd.grad(out, leaf, grad_out)
    finally:
        torch.set_num_threads(before)
    expected = _dense_gradient(case, captured, q, k, v, grad_out)
    for gradient in found:
        assert torch.equal(gradient, found[0])
    torch.testing.assert_close(found[0].double(), expected, rtol=1e-4, atol=1e-5)


def _with(tensor: Any, read: Callable[..., Any]) -> Callable[..., Any]:
    return lambda score, b, h, q_idx, kv_idx: score + read(tensor, b, h, q_idx, kv_idx)


class Clamped:
    """A tensor whose indices are clamped, as kernels clamp them."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __getitem__(self, index: Any) -> torch.Tensor:
        index = index if isinstance(index, tuple) else (index,)
        sizes = self.tensor.shape
        return self.tensor[tuple(x.clamp(0, n - 1) for x, n in zip(index, sizes, strict=True))]


def _dense_gradient(
    case: Short,
    captured: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    grad_out: torch.Tensor,
) -> torch.Tensor:
    leaf = captured.double().requires_grad_()
    b, h, q_idx, kv_idx = torch.meshgrid(
        *(torch.arange(n) for n in (*q.shape[:3], k.shape[2])), indexing="ij"
    )
    k, v = (x.double().repeat_interleave(4 // case.kv_heads, 1) for x in (k, v))
    score = _with(Clamped(leaf), case.read)(q.double() @ k.mT / 4, b, h, q_idx, kv_idx)
    weights = score.masked_fill(~causal(b, h, q_idx, kv_idx), -torch.inf).softmax(3)
    return torch.autograd.grad(weights @ v, leaf, grad_out.double())[0]


def test_a_dimension_is_owned_if_every_read_has_it() -> None:
    """t[h, q_idx] of one head is t[q_idx, h] of another one, so that neither owns it."""
    bias = torch.zeros(4, 4)
    owners = []
    for read in (lambda h, q: bias[h, q], lambda h, q: bias[h, q] + bias[q, h]):
        program = program_of(None, lambda score, b, h, q, kv, read=read: score * read(h, q))
        text = gradients_text(make_plan(spec_of(program, gradients=Wanted(True, True, True, (0,)))))
        assert text is not None
        owners += [(owner.head, owner.batch) for owner in text.owners]
    assert owners == [(0, -1), (-1, -1)]
