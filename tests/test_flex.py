"""flex_attention answers as PyTorch's does."""

import pytest
import torch
from torch.nn.attention import flex_attention as torch_flex

from attnc import AuxRequest, create_block_mask, flex_attention
from attnc.errors import AuxRequestError, KernelOptionError


def alibi(score, b, h, q_idx, kv_idx):
    return score - 0.1 * (h + 1) * (q_idx - kv_idx)


def causal(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


def inputs(dtype=torch.float64):
    torch.manual_seed(0)
    q = torch.randn(2, 4, 129, 24, dtype=dtype)
    k = torch.randn(2, 2, 150, 24, dtype=dtype)
    v = torch.randn(2, 2, 150, 40, dtype=dtype)
    return q, k, v


def test_results_are_those_of_pytorch() -> None:
    """Output, log-sum-exp and row maximum, with score_mod, mask, GQA and scale."""
    q, k, v = inputs()
    ours = create_block_mask(causal, None, None, 129, 150)
    theirs = torch_flex.create_block_mask(causal, None, None, 129, 150, device="cpu")

    out, aux = flex_attention(
        q,
        k,
        v,
        alibi,
        ours,
        0.3,
        enable_gqa=True,
        return_aux=AuxRequest(lse=True, max_scores=True),
    )
    expected, expected_aux = torch_flex.flex_attention(
        q,
        k,
        v,
        alibi,
        theirs,
        0.3,
        enable_gqa=True,
        return_aux=torch_flex.AuxRequest(lse=True),
    )

    # PyTorch computes 0.1 * (h + 1) in float32 even here; ours is float64 throughout.
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(aux.lse, expected_aux.lse, atol=1e-5, rtol=1e-6)
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k.repeat_interleave(2, 1)) * 0.3
    h, i, j = (torch.arange(n, dtype=torch.float64) for n in (4, 129, 150))
    biased = scores - 0.1 * (h[:, None, None] + 1) * (i[:, None] - j)
    visible = biased.masked_fill(i[:, None] < j, -torch.inf)
    torch.testing.assert_close(aux.max_scores, visible.amax(-1))


def test_the_deprecated_argument_still_works() -> None:
    """return_lse gives a pair and the warning that PyTorch gives."""
    q, k, v = inputs()
    with pytest.warns(FutureWarning, match="return_lse is deprecated"):
        out, lse = flex_attention(q, k, v, enable_gqa=True, return_lse=True)
    assert out.shape == (2, 4, 129, 40)
    assert lse.shape == (2, 4, 129)
    with pytest.raises(AuxRequestError):
        flex_attention(q, k, v, return_lse=True, return_aux=AuxRequest(lse=True))


def test_pytorchs_request_and_unrequested_parts() -> None:
    """PyTorch's own AuxRequest serves; what was not asked for is None."""
    q, k, v = inputs()
    out, aux = flex_attention(q, k, v, enable_gqa=True, return_aux=torch_flex.AuxRequest())
    assert aux == (None, None)
    assert out.dtype is torch.float64


def test_kernel_options_are_hints() -> None:
    """Known names are accepted, a misspelt one is named."""
    q, k, v = inputs()
    plain = flex_attention(q, k, v, enable_gqa=True)
    hinted = flex_attention(
        q, k, v, enable_gqa=True, kernel_options={"BLOCK_M": 64, "fwd_num_warps": 8}
    )
    assert torch.equal(plain, hinted)
    with pytest.raises(KernelOptionError, match="unknown kernel option 'BLOK_M'"):
        flex_attention(q, k, v, enable_gqa=True, kernel_options={"BLOK_M": 64})


@pytest.mark.filterwarnings("ignore")  # dynamo warns of what is its own business
def test_torch_compile_around_it_is_harmless() -> None:
    """Every user of PyTorch's has it wrapped so."""
    q, k, v = inputs()
    compiled = torch.compile(flex_attention)
    for slope in (0.5, 2.0):  # a closure's constant changes between calls

        def score(score, b, h, q_idx, kv_idx, slope=slope):
            return score - slope * (q_idx - kv_idx).abs()

        result = compiled(q, k, v, score, enable_gqa=True)
        torch.testing.assert_close(result, flex_attention(q, k, v, score, enable_gqa=True))
