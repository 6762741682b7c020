"""A decorated function is a function, a kernel, and composes with others."""

import copy
import functools
import operator
import pickle

import pytest
import torch

import attnc
from attnc.errors import (
    KernelCallError,
    KernelOperatorError,
    KernelPartsError,
    ModSignatureError,
    NotAModError,
    WrongModKindError,
)
from attnc.runtime.reference import reference_attention


@attnc.kernel
def causal(b, h, q_idx, kv_idx):
    """No key after its query."""
    return q_idx >= kv_idx


@attnc.kernel
def near(b, h, q_idx, kv_idx):
    return abs(q_idx - kv_idx) < 20


@attnc.kernel(mask=causal, scale=0.2)
def soft(score, b, h, q_idx, kv_idx):
    return 10 * torch.tanh(score / 10)


def decay(score, b, h, q_idx, kv_idx):
    return score - 0.01 * abs(q_idx - kv_idx)


def inputs(n=100):
    torch.manual_seed(1)
    return torch.randn(3, 2, 2, n, 16)


def close(result, **expected):
    q, k, v = inputs()
    reference = reference_attention(q, k, v, **expected).out
    torch.testing.assert_close(result.double(), reference, atol=1e-5, rtol=1e-5)


def test_three_tensors_run_it() -> None:
    """f(q, k, v) is attention with f as its mask."""
    close(causal(*inputs()), mask=causal.fn)


def test_four_or_five_indices_call_the_function() -> None:
    """A Kernel serves wherever a mod does."""
    assert causal(0, 0, 3, 2) is True
    assert causal.fn(0, 0, 2, 3) is False
    assert decay(1.0, 0, 0, 3, 2) == attnc.kernel(decay)(1.0, 0, 0, 3, 2)
    assert causal.__name__ == "causal"
    assert causal.__doc__ == "No key after its query."


def test_decorator_arguments_hold_for_each_run() -> None:
    """mask= and scale= belong to the kernel; the call may override them."""
    close(soft(*inputs()), mask=causal.fn, score=soft.fn, scale=0.2)
    close(soft(*inputs(), scale=0.5), mask=causal.fn, score=soft.fn, scale=0.5)


@pytest.mark.parametrize(
    ("combined", "same"),
    [
        (causal & near, lambda b, h, q, k: (q >= k) & (abs(q - k) < 20)),
        (causal | near, lambda b, h, q, k: (q >= k) | (abs(q - k) < 20)),
        (~near | causal, lambda b, h, q, k: (abs(q - k) >= 20) | (q >= k)),
        (causal & (lambda b, h, q, k: k > 3), lambda b, h, q, k: (q >= k) & (k > 3)),
        ((lambda b, h, q, k: k > 3) | near, lambda b, h, q, k: (abs(q - k) < 20) | (k > 3)),
    ],
)
def test_masks_compose(combined, same) -> None:
    """&, | and ~ of kernels and functions are masks."""
    assert isinstance(combined, attnc.Kernel)
    close(combined(*inputs()), mask=same)


def test_scores_compose() -> None:
    """then applies one after the other, where adds a mask."""
    both = attnc.kernel(decay).then(soft.fn).where(near)

    def expected(score, b, h, q_idx, kv_idx):
        return soft.fn(decay(score, b, h, q_idx, kv_idx), b, h, q_idx, kv_idx)

    close(both(*inputs()), score=expected, mask=near.fn)
    masked = soft.where(near)
    close(masked(*inputs()), score=soft.fn, scale=0.2, mask=(causal & near).fn)


@pytest.mark.parametrize(
    "operation",
    [operator.add, operator.sub, operator.xor, operator.lt, operator.matmul, operator.mod],
)
def test_other_operators_name_what_there_is(operation) -> None:
    """`f + g` is a TypeError that says `f & g`."""
    with pytest.raises(KernelOperatorError, match=r"Masks combine with `f & g`"):
        operation(causal, near)
    with pytest.raises(KernelOperatorError, match=r"scores with `s.then\(t\)`"):
        operation(3, soft)


def test_masks_and_scores_do_not_mix() -> None:
    """A score has no &, a mask no then."""
    with pytest.raises(KernelOperatorError):
        operator.and_(soft, causal)
    with pytest.raises(KernelOperatorError):
        operator.invert(soft)
    with pytest.raises(KernelOperatorError):
        causal.then(soft)
    with pytest.raises(WrongModKindError, match="but mask must be a mask_mod"):
        attnc.attention(*inputs(), mask=decay)
    with pytest.raises(WrongModKindError, match="but score must be a score_mod"):
        attnc.attention(*inputs(), score=near)


@pytest.mark.parametrize(
    "use",
    [
        lambda: attnc.attention(*inputs(), score=soft),
        lambda: attnc.flex_attention(*inputs(), score_mod=soft),
        lambda: attnc.attention(*inputs(), mask=attnc.kernel(score=decay)(causal.fn)),
        lambda: attnc.kernel(decay).then(soft),
        lambda: attnc.kernel(decay).where(attnc.kernel(scale=2.0)(causal.fn)),
        lambda: causal & attnc.kernel(score=decay)(near.fn),
        lambda: attnc.kernel(mask=attnc.kernel(score=decay)(near.fn))(decay),
    ],
)
def test_parts_of_a_kernel_are_never_dropped(use) -> None:
    """As a mod a Kernel is its function; where it has a mask, score or scale too, that is said."""
    with pytest.raises(KernelPartsError, match=r"is a kernel with .*only \w+\(q, k, v\) applies"):
        use()


def test_masks_with_the_same_score_combine() -> None:
    """What both operands run with is kept."""
    first, second = (attnc.kernel(score=decay, scale=0.3)(mask.fn) for mask in (causal, near))
    close((first & second)(*inputs()), mask=(causal & near).fn, score=decay, scale=0.3)


def test_a_call_may_replace_the_other_part() -> None:
    """A mask runs with another score for one call, not as another mask."""
    close(causal(*inputs(), score=decay), mask=causal.fn, score=decay)
    with pytest.raises(KernelCallError, match="mask="):
        causal(*inputs(), mask=near)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mask": True}, "mask is True, not a function. Pass a mask_mod"),
        ({"mask": "causal"}, "mask is 'causal', not a function."),
        ({"mask": torch.ones(9, 9)}, r"a Tensor of shape \(9, 9\).* tensor\[q_idx, kv_idx\]"),
        ({"score": torch.ones(9, 9)}, r"score \+ tensor\[q_idx, kv_idx\]"),
        (
            {"score": attnc.create_block_mask(causal, None, None, 9, 9)},
            "Pass a BlockMask as mask= of attention",
        ),
    ],
)
def test_what_is_no_function_is_named(given, message) -> None:
    """The usual slips have their own advice."""
    with pytest.raises(NotAModError, match=message):
        attnc.attention(*inputs(), **given)


def test_wrong_signatures_and_calls_are_named() -> None:
    """Three parameters make neither; two tensors make no call."""
    with pytest.raises(ModSignatureError, match="takes 3 parameters without default"):
        attnc.kernel(lambda a, b, c: a)
    with pytest.raises(KernelCallError, match=r"causal\(tensor\(2, 2, 100, 16\)\)"):
        causal(inputs()[0])
    with pytest.raises(TypeError, match="no option 'sacle'"):
        attnc.kernel(sacle=1.0)


def test_defaults_and_partials_do_not_count_as_parameters() -> None:
    """functools.partial and default values bind what is not an index."""

    def window(b, h, q_idx, kv_idx, size=20):
        return abs(q_idx - kv_idx) < size

    close(attnc.kernel(window)(*inputs()), mask=near.fn)
    close(attnc.kernel(functools.partial(window, size=20))(*inputs()), mask=near.fn)


def test_deepcopy_and_pickle() -> None:
    """A kernel of a module comes back as itself, a composed one as its equal."""
    assert pickle.loads(pickle.dumps(causal)) is causal
    wrapped = attnc.Kernel(decay, mask=causal)
    for other in (copy.deepcopy(wrapped), pickle.loads(pickle.dumps(wrapped))):
        assert torch.equal(other(*inputs()), wrapped(*inputs()))


def test_kernels_are_truthy() -> None:
    """`mask or default` works as it does with functions."""
    assert (causal or near) is causal


def test_functions_of_any_number_of_arguments_are_what_their_role_says() -> None:
    """`lambda *indices` is a mask_mod as mask=, a score_mod as score=, and neither by itself."""
    close(attnc.attention(*inputs(), mask=lambda *at: at[2] >= at[3]), mask=causal.fn)
    close(attnc.attention(*inputs(), score=lambda *at: decay(*at)), score=decay)
    with pytest.raises(ModSignatureError):
        attnc.kernel(lambda *at: at[2] >= at[3])
