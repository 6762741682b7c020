"""The public toolkit: recipes repeat and print, check finds what is planted, tolerances separate."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import attnc
import attnc.testing as toolkit
from attnc.errors import CheckArgumentError, CheckFailedError, NotCheckableError
from attnc.runtime.reference import reference_attention, reference_mask
from attnc.testing import (
    InputsRecipe,
    Limits,
    MaskRecipe,
    ScoreRecipe,
    Shape,
    TensorRecipe,
    assert_close_to_reference,
    available_backends,
    check,
    inputs,
    masks,
    score_mods,
    shapes,
)


@given(st.one_of(masks(), score_mods(), shapes(), inputs()))
def test_repr_of_a_recipe_makes_it_again(
    recipe: MaskRecipe | ScoreRecipe | Shape | InputsRecipe,
) -> None:
    """What a failing test prints can be pasted below `from attnc.testing import *`."""
    assert eval(repr(recipe), dict(vars(toolkit))) == recipe


@given(masks(), shapes())
def test_masks_repeat(recipe: MaskRecipe, shape: Shape) -> None:
    """Two builds of a recipe are the same function, captured tensors included."""
    grid = (shape.n_batch, shape.n_heads, shape.n_queries, shape.n_keys)

    once, again = (reference_mask(recipe.build(), *grid) for _ in range(2))

    assert torch.equal(once, again)


@given(score_mods(), inputs(magnitudes=[1.0]))
def test_scores_are_numbers(recipe: ScoreRecipe, given_inputs: InputsRecipe) -> None:
    """No score_mod that is drawn makes NaN or +inf of ordinary scores."""
    q, k, v = given_inputs.build()

    result = reference_attention(q, k, v, score=recipe.build(), enable_gqa=True)

    assert result.out.isfinite().all()
    assert (result.max_scores < math.inf).all()


@given(inputs(dtypes=["float32", "bfloat16", "float16", "float64"]))
def test_inputs_have_their_shape_and_repeat(recipe: InputsRecipe) -> None:
    """q, k and v are those of the shape and dtype, with the same elements each time."""
    shape = recipe.shape

    q, k, v = recipe.build()

    assert q.shape == (shape.n_batch, shape.n_heads, shape.n_queries, shape.head_dim)
    assert k.shape == (shape.n_kv_batch, shape.n_kv_heads, shape.n_keys, shape.head_dim)
    assert v.shape == (*k.shape[:3], shape.value_dim)
    assert all(x.dtype == getattr(torch, recipe.dtype) for x in (q, k, v))
    assert all(map(torch.equal, (q, k, v), recipe.build()))


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "sliced"])
def test_layouts_keep_the_elements(layout: Any) -> None:
    """Only strides differ between layouts."""
    recipe = TensorRecipe((3, 4), high=100, layout=layout, seed=5)

    tensor = recipe.build()

    assert torch.equal(tensor, TensorRecipe((3, 4), high=100, seed=5).build())
    assert tensor.is_contiguous() == (layout == "contiguous")


def test_expanded_layout_has_stride_zero() -> None:
    """One entry stands for all along the first dimension."""
    tensor = TensorRecipe((3, 4), high=100, layout="expanded").build()

    assert tensor.stride(0) == 0
    assert TensorRecipe((9,), high=100, contents="sorted").build().diff().min() >= 0


def test_strategies_keep_to_limits() -> None:
    """Programs for small limits run on small captured tensors."""
    limits = Limits(n_batch=1, n_heads=1, length=9)

    @given(masks(limits=limits), shapes(limits=limits))
    def run(recipe: MaskRecipe, shape: Shape) -> None:
        assert max(shape.n_batch, shape.n_heads) == 1
        assert max(shape.n_queries, shape.n_keys) <= 9
        assert reference_mask(recipe.build(), 1, 1, 9, 9).shape == (1, 1, 9, 9)

    run()


def _paste(source: str, scope: dict[str, Any]) -> None:
    """Runs a reproduction, which fails as what it reproduces."""
    with pytest.raises(CheckFailedError):
        exec(source, scope)  # noqa: S102  (that it can be pasted is the claim)


def _window(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return (q_idx >= kv_idx) & (q_idx - kv_idx < 16)


def _window_off_by_one(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return (q_idx >= kv_idx) & (q_idx - kv_idx <= 16)


def test_check_finds_an_off_by_one() -> None:
    """The counterexample is the smallest there is, and its reproduction runs."""
    with pytest.raises(CheckFailedError) as caught:
        check(_window_off_by_one, expected=_window, backends=[])

    assert caught.value.fields["point"] == (0, 0, 16, 0)
    shape = caught.value.fields["inputs"].shape
    assert (shape.n_queries, shape.n_keys) == (17, 1)
    assert str(caught.value) == (
        "_window_off_by_one: it does not hold that the function is what it is expected to be.\n"
        "It is True, and ought to be False.\n"
        "Smallest counterexample found: b=0, h=0, q_idx=16, kv_idx=0 "
        "(B=1, H=1, Q_LEN=17, KV_LEN=1)\n"
        f"To reproduce:\n\n{caught.value.fields['reproduction']}"
    )
    _paste(caught.value.fields["reproduction"], {})


def test_check_finds_a_wrong_score() -> None:
    """Scores are compared with what they are expected to be as masks are."""
    with pytest.raises(CheckFailedError, match="expected to be") as caught:
        check(
            lambda score, b, h, q_idx, kv_idx: score + 0.1 * (q_idx - kv_idx),
            expected=lambda score, b, h, q_idx, kv_idx: score + 0.1 * abs(q_idx - kv_idx),
            backends=[],
        )

    assert caught.value.fields["point"] == (0, 0, 0, 1)


def test_check_finds_a_function_that_is_not_one() -> None:
    """A mask that changes from call to call cannot be compiled; check notices."""
    calls = itertools.count()

    def unsteady(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return q_idx >= kv_idx + next(calls)

    with pytest.raises(CheckFailedError, match="the compiled mask is the function"):
        check(unsteady, backends=[])


def test_check_finds_a_kernel_that_differs() -> None:
    """The reproduction of a wrong kernel compares it with the reference."""
    calls = itertools.count()

    def unsteady(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        # What kernels are made of differs by turns from what they are compared with.
        return score + (0.01 * kv_idx if next(calls) % 4 == 3 else 0)

    with pytest.raises(CheckFailedError, match="reference kernel") as caught:
        check(unsteady, laws="forward", backends=["reference"], examples=5)

    reproduction = caught.value.fields["reproduction"]
    assert "InputsRecipe(shape=Shape(" in reproduction
    assert f"# unsteady: the function in {__file__}:" in reproduction


def _doubled(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score * 2


def test_check_reports_what_it_did() -> None:
    """A function without fault gives a report."""
    report = check(_window, expected=_window, backends=["reference"], examples=7)

    assert str(report) == "_window: 7 random inputs, kernels of reference: no law broken"


@pytest.mark.parametrize("gradients", [False, True])
def test_check_runs_in_inference_mode(gradients: bool) -> None:
    """Programs for inference check their masks too, with tensors that were made in that mode."""
    with torch.inference_mode():
        document = torch.arange(20) // 6

        def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return document[q_idx] == document[kv_idx]

        backends = available_backends()[:1]
        report = check(mask, backends=backends, examples=3, gradients=gradients)

    assert report.n_examples == 3


def test_without_kernels_no_law_of_kernels_counts_as_examined() -> None:
    """A table that says "forward: 10 examples" where nothing ran would be a lie."""
    report = check(_window, properties="equivariant-heads", backends=[], examples=10)

    examined = {each.law for each in report.laws if each.n_examples}
    of_the_function = {"total", "compiled-mask", "tiles", "loop-bounds"}
    assert examined == {*of_the_function, "equivariant-heads"}


def test_check_keeps_inside_captured_tensors() -> None:
    """Lengths, heads and batches that captured tensors bear are read off the function."""
    document = torch.arange(20) // 6
    window = torch.tensor([3, 5, 9])

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (document[q_idx] == document[kv_idx]) & (q_idx - kv_idx < window[h])

    assert check(mask, backends=["reference"]).n_examples == 25


def test_check_takes_recipes() -> None:
    """The reproduction of a recipe needs nothing else."""
    recipe = MaskRecipe("t0[q_idx] >= kv_idx", (TensorRecipe((30,), "int64", high=30),))
    assert check(recipe, backends=["reference"], examples=5).n_examples == 5

    with pytest.raises(CheckFailedError) as caught:
        check(recipe, expected=_window, backends=[])
    _paste(caught.value.fields["reproduction"], {})


def test_reproduction_makes_the_recipes_it_needs() -> None:
    """A mask that goes along with a score is in the reproduction, a lambda by its place."""
    calls = itertools.count()
    mask = MaskRecipe("q_idx >= kv_idx")

    with pytest.raises(CheckFailedError) as caught:
        check(
            lambda score, b, h, q_idx, kv_idx: score * (1 + 0.1 * (next(calls) % 4 == 3)),
            mask=mask,
            laws="forward",
            backends=["reference"],
            examples=5,
        )

    reproduction = caught.value.fields["reproduction"]
    assert "mask = MaskRecipe(source='q_idx >= kv_idx', tensors=()).build()" in reproduction
    assert f"# f: the function in {__file__}:" in reproduction


@pytest.mark.skipif("cpu" not in available_backends(), reason="needs a C++ compiler")
def test_kernels_of_a_chosen_mask_are_right() -> None:
    """A mask that is itself a choice, in front of the choice between score and -inf."""
    mask = MaskRecipe("torch.where(q_idx == kv_idx, q_idx >= kv_idx, kv_idx < 3)")

    assert check(mask, backends=["cpu"], examples=3).backends == ("cpu",)


def test_check_takes_kernels_with_what_goes_along() -> None:
    """A score with its mask, and a mask with its score, as the decorator joins them."""
    score = attnc.kernel(lambda s, b, h, q, kv: s + kv - q, mask=lambda b, h, q, kv: q >= kv)
    mask = attnc.kernel(lambda b, h, q, kv: q >= kv, score=lambda s, b, h, q, kv: s + kv - q)

    for kernel in (score, mask):
        assert check(kernel, examples=3, gradients=False).n_examples == 3


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("laws", 3),
        ("properties", 3),
        ("properties", [3]),
        ("gradients", "x"),
        ("scale", "x"),
        ("scale", float("nan")),
        ("mask", 3),
        ("score", [1]),
    ],
)
def test_check_names_an_argument_that_is_none(argument: str, value: Any) -> None:
    """What was given, and what to give instead, before anything is examined."""
    with pytest.raises(CheckArgumentError, match=rf"^check\({argument}=.*\): give "):
        check(lambda b, h, q, kv: q >= kv, **{argument: value})


def test_check_finds_reads_outside_of_a_tensor() -> None:
    """Kernels clamp such an index; the function that has it is wrong all the same."""
    table = torch.arange(100)

    with pytest.raises(CheckFailedError, match="`q_idx` is 100"):
        check(lambda b, h, q, kv: table[q] >= table[kv], limits=Limits(2, 2, 200), backends=())


def test_check_refuses_block_masks() -> None:
    """A BlockMask holds for one length; the message says what to pass."""
    block_mask = attnc.create_block_mask(lambda b, h, q, kv: q >= kv, None, None, 128, 128)

    with pytest.raises(NotCheckableError) as caught:
        check(_doubled, mask=block_mask, backends=[])  # type: ignore[arg-type]

    assert str(caught.value) == (
        "check(_doubled) got an object of class BlockMask as mask: it holds for one pair of lengths, "
        "but check draws many. Pass the mask_mod it was made from."
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("magnitude", [1.0, 30.0])
def test_tolerance_admits_an_honest_kernel(dtype: torch.dtype, magnitude: float) -> None:
    """PyTorch's fused kernel passes in every dtype; a lost key does not, nor a wrong scale."""
    recipe = InputsRecipe(
        Shape(2, 2, 65, 130, 64, 64, 2, 2), str(dtype).removeprefix("torch."), magnitude=magnitude
    )
    q, k, v = recipe.build()
    reference = reference_attention(q, k, v)
    sizes = {"head_dim": 64, "n_keys": 130, "score_scale": 20 * magnitude}

    out = F.scaled_dot_product_attention(q, k, v)
    assert_close_to_reference(out, None, reference, dtype, **sizes)

    wrong = [out.clone(), F.scaled_dot_product_attention(q, k[:, :, :64], v[:, :, :64])]
    wrong[0][1, 0, 3, 5] += 0.2
    for each in wrong:
        with pytest.raises(AssertionError, match=r"out\[.* is .* the reference"):
            assert_close_to_reference(each, None, reference, dtype, **sizes)


def test_tolerance_is_exact_about_empty_rows() -> None:
    """A row without a key must be 0 and -inf; NaN is no number close to any other."""
    q, k, v = InputsRecipe(Shape()).build()
    reference = reference_attention(q, k, v, mask=lambda b, h, q_idx, kv_idx: kv_idx < q_idx)
    out, lse = reference.out.float(), reference.lse.float()
    assert_close_to_reference(out, lse, reference, torch.float32)

    for row, value in ((0, 1e-30), (0, math.nan), (3, math.nan), (3, math.inf)):
        broken = out.clone()
        broken[0, 0, row, 2] = value
        with pytest.raises(AssertionError):
            assert_close_to_reference(broken, lse, reference, torch.float32)
    for row, value in ((0, -1e30), (3, -math.inf)):
        broken = lse.clone()
        broken[0, 0, row] = value
        with pytest.raises(AssertionError):
            assert_close_to_reference(out, broken, reference, torch.float32)


def test_the_toolkit_is_an_attribute_that_alone_needs_hypothesis() -> None:
    """`import attnc` is enough for `attnc.testing.check`, and does not import hypothesis."""
    program = """
import sys, attnc, attnc.trace, attnc.simplify
print("testing" in dir(attnc), "hypothesis" in sys.modules, attnc.testing.check.__module__)
"""

    result = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )

    assert result.stdout == "True False attnc.testing.checking\n", result.stderr
