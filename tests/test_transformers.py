"""attnc as an attention implementation of transformers, against transformers' own eager one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="the integration needs transformers")

from transformers import (
    BertConfig,
    BertModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from attnc.errors import AttentionDropoutError, AttentionMaskTypeError, PagedCacheError
from attnc.integrations.transformers import attention_forward, register

SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}


def pair(model_class: Any, config: Any) -> tuple[Any, Any]:
    """Twice the same random model: with eager attention and with attnc's."""
    torch.manual_seed(0)
    models = []
    for implementation in ("eager", register()):
        config._attn_implementation = implementation
        models.append(model_class._from_config(config, attn_implementation=implementation).eval())
    eager, ours = models
    ours.load_state_dict(eager.state_dict())
    return eager, ours


def bert() -> tuple[Any, Any]:
    sizes = {
        name: size
        for name, size in SIZES.items()
        if name not in ("num_key_value_heads", "head_dim")
    }
    return pair(BertModel, BertConfig(**sizes))


DECODERS = {
    "causal": (LlamaForCausalLM, LlamaConfig, {}),
    "sliding window": (MistralForCausalLM, MistralConfig, {"sliding_window": 7}),
    "window and soft cap": (
        Gemma2ForCausalLM,
        Gemma2Config,
        {"sliding_window": 7, "attn_logit_softcapping": 5.0},
    ),
    "window and sinks": (
        GptOssForCausalLM,
        GptOssConfig,
        {"sliding_window": 7, "num_local_experts": 2, "num_experts_per_tok": 1},
    ),
}


@pytest.fixture(params=list(DECODERS))
def decoder(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    model_class, config_class, more = DECODERS[request.param]
    return pair(model_class, config_class(**SIZES, **more))


def tokens(batch: int, length: int) -> torch.Tensor:
    return torch.randint(
        3, SIZES["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(1)
    )


@torch.inference_mode()
def test_encoder_ignores_padding() -> None:
    """BERT gives each token what eager attention gives it, with padding on the right and without."""
    eager, ours = bert()
    ids = tokens(3, 70)
    padding = torch.arange(70) < torch.tensor([[70], [33], [1]])

    for mask in (padding, None):
        expected = eager(ids, attention_mask=mask).last_hidden_state
        actual = ours(ids, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(actual[padding], expected[padding], **TOLERANCE)


@torch.inference_mode()
def test_decoder_equals_eager(decoder: tuple[Any, Any]) -> None:
    """A whole prompt, longer than the window, without padding."""
    eager, ours = decoder
    ids = tokens(2, 70)

    torch.testing.assert_close(ours(ids).logits, eager(ids).logits, **TOLERANCE)


@torch.inference_mode()
def test_decoder_ignores_padding_on_the_left(decoder: tuple[Any, Any]) -> None:
    """Prompts of different lengths, right aligned as for generation."""
    eager, ours = decoder
    ids = tokens(3, 40)
    padding = torch.arange(40) >= torch.tensor([[0], [13], [38]])

    expected = eager(ids, attention_mask=padding.long()).logits
    actual = ours(ids, attention_mask=padding.long()).logits

    torch.testing.assert_close(actual[padding], expected[padding], **TOLERANCE)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@torch.inference_mode()
def test_generation_with_a_cache_gives_the_same_tokens(
    decoder: tuple[Any, Any], cache: str
) -> None:
    """Greedy decoding past the window, one query at a time against the cached keys."""
    eager, ours = decoder
    ids = tokens(2, 9)
    padding = torch.arange(9) >= torch.tensor([[0], [4]])
    options = {
        "attention_mask": padding.long(),
        "max_new_tokens": 8,
        "do_sample": False,
        "cache_implementation": cache,
    }

    expected = eager.generate(ids, **options)

    assert torch.equal(ours.generate(ids, **options), expected)


@torch.inference_mode()
def test_own_mask_is_joined_with_that_of_the_model() -> None:
    """Two packed prompts, kept apart by ``mask_mod``, equal the prompts alone."""
    _, ours = pair(LlamaForCausalLM, LlamaConfig(**SIZES))
    first, second = tokens(1, 30), tokens(1, 17)
    doc = torch.tensor([0] * 30 + [1] * 17)
    positions = torch.cat([torch.arange(30), torch.arange(17)])[None]

    packed = ours(
        torch.cat([first, second], 1),
        position_ids=positions,
        attention_mask=torch.ones(1, 47),
        mask_mod=lambda b, h, q_idx, kv_idx: doc[q_idx] == doc[kv_idx],
    ).logits

    torch.testing.assert_close(packed[:, :30], ours(first).logits, **TOLERANCE)
    torch.testing.assert_close(packed[:, 30:], ours(second).logits, **TOLERANCE)


@torch.inference_mode()
def test_packed_sequences_are_found_by_their_positions() -> None:
    """transformers itself keeps sequences apart whose positions restart; its mask function is used."""
    eager, ours = pair(LlamaForCausalLM, LlamaConfig(**SIZES))
    ids = tokens(1, 47)
    positions = torch.cat([torch.arange(30), torch.arange(17)])[None]

    expected = eager(ids, position_ids=positions, use_cache=False).logits
    actual = ours(ids, position_ids=positions, use_cache=False).logits

    torch.testing.assert_close(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("additive", [False, True])
@torch.inference_mode()
def test_dense_masks_are_taken_as_they_are(additive: bool) -> None:
    """A mask of 4 dimensions, boolean or to be added, restricts as in eager attention."""
    eager, ours = bert()
    ids = tokens(2, 21)
    visible = torch.rand(2, 1, 21, 21, generator=torch.Generator().manual_seed(2)) < 0.5
    visible |= torch.eye(21, dtype=torch.bool)
    bias = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)

    expected = eager(ids, attention_mask=bias).last_hidden_state
    actual = ours(ids, attention_mask=bias if additive else visible).last_hidden_state

    torch.testing.assert_close(actual, expected, **TOLERANCE)


def forward(**options: Any) -> Any:
    q = torch.zeros(1, 2, 3, 16)
    return attention_forward(SimpleNamespace(), q, q, q, **{"attention_mask": None, **options})


def test_causal_counts_without_a_mask() -> None:
    """Models that make no mask and pass ``is_causal`` get a causal one."""
    value = torch.eye(3).expand(1, 2, 3, 3)
    q = torch.zeros(1, 2, 3, 16)

    out, _ = attention_forward(SimpleNamespace(), q, q, value, None, is_causal=True)

    expected = torch.tensor([[1, 0, 0], [1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]])
    torch.testing.assert_close(out, expected[None, :, None].expand(1, 3, 2, 3))


def test_dropout_is_refused() -> None:
    """A model in training mode is told so."""
    with pytest.raises(AttentionDropoutError) as error:
        forward(dropout=0.1)
    assert str(error.value) == (
        "SimpleNamespace asks for attention dropout 0.1, which attnc kernels do not have. "
        "Call model.eval(), or set the dropout of attention to 0 in the model's config."
    )


def test_foreign_mask_is_refused() -> None:
    """What is neither a tensor nor from transformers' own mask functions."""
    with pytest.raises(AttentionMaskTypeError) as error:
        forward(attention_mask=[[1]])
    assert str(error.value) == (
        "SimpleNamespace was given an attention_mask of class list. Pass a tensor of 2 (padding) "
        "or 4 dimensions, or a function as mask_mod=...: model(input_ids, mask_mod=f)."
    )


def test_paged_cache_is_refused() -> None:
    """Keys that are not in the call cannot be attended to."""
    with pytest.raises(PagedCacheError) as error:
        forward(cache=object())
    assert str(error.value) == (
        "SimpleNamespace keeps its keys in a paged cache (continuous batching), which attnc does "
        "not read. Use model.generate with the default cache."
    )
