"""Triton's backward kernels in its interpreter: gradients are those of dense float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from cpu_kernels import program_of, spec_of, table_of
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from triton_kernels import qkv

from attnc.blocks import classify
from attnc.plan import Wanted, make_plan
from attnc.run_table import RunTable
from attnc.runtime.call import BackwardCall, Call
from attnc.runtime.reference import reference_attention
from attnc.runtime.triton import load_triton_kernel
from attnc.runtime.triton_captured import _add_in_order
from attnc.target import GPU_TARGETS, INTERPRETER
from attnc.testing import InputsRecipe, MaskRecipe, ScoreRecipe, inputs, masks, score_mods

pytestmark = pytest.mark.usefixtures("interpreter")

WITHOUT_SHRINKING = [Phase.explicit, Phase.reuse, Phase.generate]
ALL = Wanted(True, True, True)
# Of the greatest gradient: sums of rounded products, and weights rounded before a product.
TOLERANCES = {
    torch.float64: 1e-9,
    torch.float32: 2e-5,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
}


@dataclass(frozen=True)
class Gradients:
    """Of q, k and v, None where not wanted; of captured tensors that are."""

    q: torch.Tensor | None
    k: torch.Tensor | None
    v: torch.Tensor | None
    captured: tuple[torch.Tensor, ...] = ()

    def all(self) -> list[torch.Tensor]:
        return [x for x in (self.q, self.k, self.v, *self.captured) if x is not None]


def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


def window(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return (q_idx >= kv_idx) & (q_idx - kv_idx < 40)


def softcap(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return 5 * torch.tanh(score / 5) + 0.01 * (kv_idx - q_idx)


def interpret(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    grad_out: torch.Tensor,
    grad_lse: torch.Tensor | None = None,
    *,
    mask: Any = None,
    score: Any = None,
    scale: float | None = None,
    wanted: Wanted = ALL,
    table: RunTable | None = None,
    **options: Any,
) -> Gradients:
    """Gradients by interpreted kernels, forward and backward, into tensors full of NaN."""
    program = program_of(mask, score, q.dtype)
    spec = spec_of(program, dtype=q.dtype, head_dim=q.shape[3], value_dim=v.shape[3], **options)
    spec = replace(spec, target=INTERPRETER, wants_max=False)
    forward = load_triton_kernel(spec)
    backward = load_triton_kernel(replace(spec, wants_lse=False, gradients=wanted))
    statistics = torch.float64 if q.dtype is torch.float64 else torch.float32
    out = q.new_full((*q.shape[:3], v.shape[3]), torch.nan)
    lse = torch.full(q.shape[:3], torch.nan, dtype=statistics)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    call = Call(q, k, v, out, lse, None, scale, program.lifted.values, program.tensors, table)
    forward.run(call._replace(table=table or table_of(forward, program, q, k)))
    wants = (wanted.query, wanted.key, wanted.value)
    into = [
        torch.full_like(x, torch.nan) if w else None for x, w in zip((q, k, v), wants, strict=True)
    ]
    call = call._replace(table=table or table_of(backward, program, q, k))
    captured = tuple(
        torch.full(program.tensors[slot].shape, torch.nan, dtype=statistics)
        for slot in wanted.captured
    )
    backward.run_backward(BackwardCall(call, grad_out, grad_lse, *into, captured))
    return Gradients(*into, captured)


def expected_gradients(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    grad_out: torch.Tensor,
    grad_lse: torch.Tensor | None,
    captured: Sequence[torch.Tensor] = (),
    **mods: Any,
) -> Gradients:
    """Gradients by autograd through dense float64; a row without keys has an lse of no effect."""
    leaves = [x.detach().double().requires_grad_() for x in (q, k, v)]
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if q.dtype is torch.float64 else torch.float32)
    try:
        result = reference_attention(*leaves, enable_gqa=True, **mods)
    finally:
        torch.set_default_dtype(default)
    loss = (result.out * grad_out.double()).sum()
    if grad_lse is not None:
        loss = loss + torch.where(result.lse.isinf(), 0, result.lse * grad_lse.double()).sum()
    if not loss.requires_grad:
        zeros = [torch.zeros_like(x) for x in (*leaves, *captured)]
        return Gradients(*zeros[:3], tuple(zeros[3:]))
    inputs = [*leaves, *captured]
    found = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
    return Gradients(*found[:3], found[3:])


def random_like(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def assert_equals_oracle(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    with_lse: bool = True,
    mask: Any = None,
    score: Any = None,
    scale: float | None = None,
    captured: Sequence[torch.Tensor] = (),
    **options: Any,
) -> Gradients:
    """Passes if gradients of q, k, v and of ``captured`` are those of dense float64; they."""
    grad_out = random_like((*q.shape[:3], v.shape[3]), q.dtype)
    statistics = torch.float64 if q.dtype is torch.float64 else torch.float32
    grad_lse = random_like(q.shape[:3], statistics) if with_lse else None
    mods = {"mask": mask, "score": score, "scale": scale}
    if captured:
        tensors = program_of(mask, score, q.dtype).tensors
        slots = {x.data_ptr(): slot for slot, x in enumerate(tensors)}
        wanted = tuple(slots[x.data_ptr()] for x in captured)
        options["wanted"] = Wanted(True, True, True, wanted)
    result = interpret(q, k, v, grad_out, grad_lse, **mods, **options)
    expected = expected_gradients(q, k, v, grad_out, grad_lse, captured, **mods)
    for ours, theirs in zip(result.all(), expected.all(), strict=True):
        greatest = float(theirs.abs().max()) if theirs.numel() else 0.0
        tolerance = TOLERANCES[q.dtype] * max(greatest, 1.0)
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=tolerance)
    return result


@pytest.mark.parametrize("n_queries", [1, 127, 129])
@pytest.mark.parametrize("n_keys", [0, 1, 64, 127, 129])
@pytest.mark.parametrize("mask", [None, causal, window])
def test_any_lengths(n_queries: int, n_keys: int, mask: Any) -> None:
    """Lengths need not be multiples of the tile; tiles of keys find their queries themselves."""
    assert_equals_oracle(*qkv(n_queries, n_keys), mask=mask)


def test_without_queries_keys_have_no_gradient() -> None:
    """Without queries, gradients of keys and values are 0."""
    q, k, v = qkv(0, 5)
    result = interpret(q, k, v, q.new_zeros(1, 1, 0, 16))

    assert result.q is not None
    assert result.q.shape == q.shape
    assert all(torch.equal(x, torch.zeros_like(k)) for x in (result.k, result.v))


@pytest.mark.parametrize(("head_dim", "value_dim"), [(1, 1), (3, 5), (80, 64), (64, 80), (16, 128)])
def test_any_widths(head_dim: int, value_dim: int) -> None:
    """Widths are padded to what a matrix product takes, and may differ."""
    assert_equals_oracle(*qkv(33, 70, head_dim, value_dim), mask=causal)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("score", [None, softcap])
def test_any_dtype(dtype: torch.dtype, score: Any) -> None:
    """Every dtype gives what its precision allows, with a score_mod too."""
    assert_equals_oracle(*qkv(40, 130, dtype=dtype), mask=window, score=score)


@pytest.mark.parametrize("kv_batch", [1, 3])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_grouped_heads_and_broadcast_keys(kv_batch: int, kv_heads: int) -> None:
    """Keys sum over the heads of their group, and over the batch where there is one of them."""
    shapes = qkv(20, 70, n_batch=3, n_heads=6, kv_batch=kv_batch, kv_heads=kv_heads)
    slopes = torch.linspace(0.1, 1, 6)

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return s * slopes[h] + (kv - q) * 0.01 * (h + 1) - b

    assert_equals_oracle(*shapes, mask=lambda b, h, q, kv: kv < q + 10 * h, score=score)


def test_any_strides() -> None:
    """Tensors need not be contiguous in any dimension, gradients of results included."""
    q, k, v = (x.transpose(2, 3).contiguous().transpose(2, 3) for x in qkv(40, 70, n_heads=2))
    wide = v.repeat_interleave(2, dim=3)[..., ::2]
    one = torch.ones(()).expand(q.shape)

    strided = interpret(q, k, wide, one, mask=causal)
    plain = interpret(*(x.contiguous() for x in (q, k, wide, one)), mask=causal)

    assert_equals_oracle(q, k, wide, mask=causal)
    for ours, theirs in zip(strided.all(), plain.all(), strict=True):
        assert torch.equal(ours, theirs)


def test_wide_offsets() -> None:
    """Offsets of 64 bits give the same bits."""
    q, k, v = qkv(40, 130, n_heads=2)
    bias = torch.linspace(-1, 1, 130)

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return s + bias[kv]

    mods = {"mask": window, "score": score}
    narrow = interpret(q, k, v, random_like(q.shape, q.dtype), **mods)
    wide = interpret(q, k, v, random_like(q.shape, q.dtype), **mods, wide_index=True)

    for ours, theirs in zip(narrow.all(), wide.all(), strict=True):
        assert torch.equal(ours, theirs)


def test_rows_without_visible_keys_have_no_gradient() -> None:
    """A row that sees nothing has a gradient of 0, and adds nothing to that of any key."""
    result = assert_equals_oracle(*qkv(70, 70), mask=lambda b, h, q, kv: (q > 30) & (kv >= 40))

    assert result.q is not None
    assert result.k is not None
    assert torch.equal(result.q[:, :, :31], torch.zeros(1, 1, 31, 16))
    assert torch.equal(result.k[:, :, :40], torch.zeros(1, 1, 40, 16))


def test_a_score_of_minus_infinity_is_masked() -> None:
    """Whole tiles and rows of -inf have no gradient, in tiles without a mask too."""

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return torch.where((kv < 64) | (q == 3), -torch.inf, s)

    assert_equals_oracle(*qkv(20, 130), score=score)


def test_infinite_derivatives_of_hidden_scores_do_not_matter() -> None:
    """The derivative of a root at 0 meets weights of 0 only."""

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return torch.where(kv > 3, s, -torch.inf) + torch.sqrt(s * (kv > 3))

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return kv > 3

    q, k, v = (x.abs() for x in qkv(20, 130))
    for hidden in (None, mask):
        result = interpret(q, k, v, random_like(q.shape, q.dtype), mask=hidden, score=score)
        assert all(x.isfinite().all() for x in result.all())


def test_what_is_not_visible_does_not_matter() -> None:
    """NaN in keys and values of EMPTY tiles and beyond the lengths reaches no gradient."""
    q, k, v = qkv(64, 128)
    long_k, long_v = (torch.cat([x, torch.full_like(x, torch.nan)], dim=2) for x in (k, v))
    k, v = long_k[:, :, :100], long_v[:, :, :100]  # in memory, NaN follows
    long_k[:, :, 100:], long_v[:, :, 100:] = torch.nan, torch.nan
    k[:, :, 64:], v[:, :, 64:] = torch.nan, torch.nan
    grad_out = random_like(q.shape, q.dtype)

    result = interpret(
        q, k, v, grad_out, mask=lambda b, h, q, kv: kv <= torch.minimum(q, q * 0 + 63)
    )

    assert all(x.isfinite().all() for x in result.all())


def test_documents_by_table() -> None:
    """Tiles of a mask that reads a tensor come from a table and its transpose."""
    documents = torch.tensor([0] * 70 + [1] * 50 + [2] * 30)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (documents[q] == documents[kv]) & (q >= kv - h)

    assert_equals_oracle(*qkv(150, 150, n_heads=4, n_batch=2, kv_heads=2), mask=mask)


def test_a_coarser_table_is_followed() -> None:
    """Blocks of a table may consist of several tiles."""
    q, k, v = qkv(150, 150)
    program = program_of(causal, None)
    assert program.mask is not None
    lengths = {"n_batch": 1, "n_heads": 1, "n_queries": 150, "n_keys": 150}
    coarse = classify(program.mask, (), **lengths, block_m=128, block_n=128).table
    fine = coarse.refine(64, 64)
    grad_out = random_like(q.shape, q.dtype)
    backward = load_triton_kernel(
        replace(
            spec_of(program, from_table=True), target=INTERPRETER, wants_max=False, gradients=ALL
        )
    )
    found = []
    for table in (coarse, fine):
        forward = interpret(q, k, v, grad_out, mask=causal, table=fine, from_table=True)
        into = [torch.full_like(x, torch.nan) for x in (q, k, v)]
        result = reference_attention(q, k, v, mask=causal)
        call = Call(q, k, v, result.out.float(), result.lse.float(), None, 0.25, (), (), table)
        backward.run_backward(BackwardCall(call, grad_out, None, *into))
        found.append(into)
        for ours, theirs in zip(into, forward.all(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)

    assert all(torch.equal(x, y) for x, y in zip(*found, strict=True))


@pytest.mark.parametrize("size", [40, 41, 2**31 - 1])
def test_one_kernel_serves_every_window(size: int) -> None:
    """The size of a window is an argument, and bounds near 2**31 do not wrap around."""

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (q >= kv) & (q - kv < size)

    assert_equals_oracle(*qkv(130, 130), mask=mask)


@pytest.mark.parametrize(
    "wanted",
    [Wanted(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1) if x + y + z]
)  # fmt: skip
@pytest.mark.parametrize("score", [None, softcap])
def test_only_what_is_wanted_is_computed(wanted: Wanted, score: Any) -> None:
    """Any choice of gradients gives the bits that all of them have."""
    wanted = Wanted(bool(wanted.query), bool(wanted.key), bool(wanted.value))
    q, k, v = qkv(40, 70, n_heads=2)
    grad_out = random_like(q.shape, q.dtype)

    some = interpret(q, k, v, grad_out, mask=causal, score=score, wanted=wanted)
    every = interpret(q, k, v, grad_out, mask=causal, score=score)

    for part, whole in ((some.q, every.q), (some.k, every.k), (some.v, every.v)):
        assert part is None or torch.equal(part, whole)


def test_scores_that_are_not_read_have_no_gradient() -> None:
    """A score_mod that ignores the score leaves q and k without gradient."""
    result = assert_equals_oracle(*qkv(20, 70), score=lambda s, b, h, q, kv: 0.01 * (kv - q))

    assert result.q is not None
    assert not result.q.any()


@pytest.mark.parametrize("scale", [-0.7, 0.0, 3.0])
@pytest.mark.parametrize("score", [None, softcap])
def test_any_scale(scale: float, score: Any) -> None:
    """The factor of the scores may have any sign."""
    assert_equals_oracle(*qkv(20, 70), mask=window, score=score, scale=scale)


def test_gradients_are_the_same_in_every_run() -> None:
    """Two runs give the same bits."""
    q, k, v = qkv(150, 150, n_heads=4, kv_heads=2, dtype=torch.float16)
    grad_out = random_like(q.shape, q.dtype)
    first, second = (interpret(q, k, v, grad_out, mask=causal, score=softcap) for _ in range(2))

    assert all(torch.equal(x, y) for x, y in zip(first.all(), second.all(), strict=True))


@settings(max_examples=10, phases=WITHOUT_SHRINKING, deadline=None)
@given(masks(), inputs(dtypes=("float32", "float16", "float64")))
def test_random_masks_equal_the_oracle(mask: MaskRecipe, recipe: InputsRecipe) -> None:
    """Whatever the mask, shape, dtype and strides: gradients are what dense float64 gives."""
    assert_equals_oracle(*recipe.build(), mask=mask.build())


@settings(max_examples=10, phases=WITHOUT_SHRINKING, deadline=None)
@given(score_mods(), inputs(dtypes=("float64",)))
def test_random_score_mods_equal_the_oracle(score: ScoreRecipe, recipe: InputsRecipe) -> None:
    """Whatever the score_mod: gradients are what dense float64 gives."""
    assert_equals_oracle(*recipe.build(), score=score.build())


def parameter(*shape: int) -> torch.Tensor:
    return random_like(shape, torch.float32).requires_grad_()


def alibi() -> tuple[Any, list[torch.Tensor]]:
    slopes = parameter(2)
    return lambda s, b, h, q, kv: s + slopes[h] * (kv - q), [slopes]


def temperature() -> tuple[Any, list[torch.Tensor]]:
    """A scalar, twice: what is summed over everything."""
    warmth = parameter()
    return lambda s, b, h, q, kv: s * warmth + torch.tanh(warmth * s), [warmth]


def per_query_and_key() -> tuple[Any, list[torch.Tensor]]:
    rows, columns = parameter(2, 80), parameter(2, 80)
    return lambda s, b, h, q, kv: s * rows[b, q] + columns[h, kv - 1], [rows, columns]


def relative() -> tuple[Any, list[torch.Tensor]]:
    """T5's buckets, and a table by distance."""
    buckets, table = parameter(2, 8), parameter(160)

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return s + buckets[h, torch.clamp(q - kv, 0, 63) // 8] + s * table[kv - q + 79]

    return score, [buckets, table]


def anywhere() -> tuple[Any, list[torch.Tensor]]:
    """A random map, the same table by another one, and a dense bias."""
    table, dense = parameter(40), parameter(2, 80, 80)
    generator = torch.Generator().manual_seed(3)
    places = torch.randint(-40, 40, (2, 80, 80), generator=generator)

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return s + table[places[b, q, kv]] * table[(q * 3 + kv) % 40] + dense[h, q, kv]

    return score, [table, dense]


def alone() -> tuple[Any, list[torch.Tensor]]:
    """Scores that are the parameters, whatever q and k are."""
    dense, rows = parameter(80, 80), parameter(80)
    return lambda s, b, h, q, kv: dense[q, kv] + rows[q], [dense, rows]


@pytest.mark.parametrize("made", [alibi, temperature, per_query_and_key, relative, anywhere, alone])
@pytest.mark.parametrize("mask", [None, causal])
def test_gradients_of_captured_tensors(
    made: Callable[[], tuple[Any, list[torch.Tensor]]], mask: Any
) -> None:
    """Whatever says which element is read, its gradient is what autograd gives."""
    score, captured = made()
    assert_equals_oracle(
        *qkv(80, 80, n_batch=2, n_heads=2, kv_heads=1), mask=mask, score=score, captured=captured
    )


def test_gradients_of_captured_tensors_by_table() -> None:
    """Tiles that a table leaves out contribute nothing."""
    documents = torch.tensor([0] * 20 + [1] * 50 + [2] * 10)
    score, captured = anywhere()

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return documents[q] == documents[kv]

    assert_equals_oracle(
        *qkv(80, 80, n_batch=2, n_heads=2, kv_heads=1), mask=mask, score=score, captured=captured
    )


def test_gradients_through_a_product_of_rows() -> None:
    """A row of a captured tensor has one gradient per element and round of the product."""
    rows, others = parameter(20, 3), parameter(80, 3)

    def score(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return s + (rows[q] * others[kv]).sum(-1)

    assert_equals_oracle(*qkv(20, 80), score=score, captured=[rows, others])


def test_only_a_bias_is_wanted() -> None:
    """Without gradients of q, k and v, the bits of the others stay."""
    score, _ = per_query_and_key()
    q, k, v = qkv(80, 80, n_batch=2, n_heads=2)
    grad_out = random_like(q.shape, q.dtype)

    def gradients(*wanted: bool) -> Gradients:
        return interpret(
            q, k, v, grad_out, mask=causal, score=score, wanted=Wanted(*wanted, (0, 1))
        )

    every = gradients(True, True, True)
    for some in (gradients(False, False, False), gradients(False, True, False)):
        for ours, theirs in zip(some.captured, every.captured, strict=True):
            assert torch.equal(ours, theirs)


def test_loop_bounds_of_keys_are_the_transposed_ones() -> None:
    """What a tile of keys visits in closed form is the transpose of what the mask implies."""
    program = program_of(window, None)
    spec = spec_of(program, dtype=torch.bfloat16, head_dim=64)
    plan = make_plan(replace(spec, target=GPU_TARGETS["sm_90"], gradients=ALL))
    assert plan.transposed is not None
    assert program.mask is not None
    block_m, block_n = plan.key_tiles.block_m, plan.key_tiles.block_n
    lengths = {"n_queries": 1000, "n_keys": 900}
    table = classify(
        program.mask, (), n_batch=1, n_heads=1, **lengths, block_m=block_m, block_n=block_n
    ).table.transpose()
    dense = table.to_dense()[0, 0]

    for kv_block in range(table.n_q_blocks):
        runs = plan.transposed.evaluate(kv_block, 900, 1000, program.lifted.values)
        for start, stop, kind in runs:
            assert (dense[kv_block, start:stop] != 0).all() or stop == table.n_kv_blocks
            whole = dense[kv_block, start : min(stop, 1000 // block_m)]
            assert (whole == kind).all()
        assert sum(stop - start for start, stop, _ in runs) >= (dense[kv_block] != 0).sum()


@given(st.integers(1, 60), st.integers(0, 40), st.integers(0, 2**31))
def test_contributions_are_added_in_their_places(n_elements: int, n_values: int, seed: int) -> None:
    """In float64, whether there are more places than elements or fewer, and in no random order."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(n_elements, (n_values,), generator=generator)
    values = torch.randn(n_values, generator=generator)
    total = torch.randn(n_elements, generator=generator, dtype=torch.float64)
    expected = total.index_add(0, places, values.double())

    _add_in_order(total, places, values)

    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)
