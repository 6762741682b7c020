"""Systems that multiply scores: by temperatures, lengths, gains of heads and of tokens."""

from __future__ import annotations

from typing import Any

import torch

from attnc import library
from examples.systems.catalogue import Parts, integers, normal, system

_MODULATION = (
    "Towards Better Text-to-Image Generation Alignment via Attention Modulation, arXiv:2404.13899"
)


@system(
    "Entropy-ABF",
    source="Extending LLMs' Context Window with 100 Samples, arXiv:2401.07004",
    shape=(1, 2, 96, 96),
)
def entropy_abf() -> Parts:
    """Scores grow with the log of the position beyond the trained length."""
    return Parts(score=library.log_n_scaling(16), mask=library.causal())


@system(
    "Attention modulation, self-attention",
    source=_MODULATION,
    shape=(2, 2, 100, 100),
    from_memory="the value of the temperature",
)
def attention_modulation() -> Parts:
    """Early steps sharpen self-attention by a temperature."""
    temperature = 0.7

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return s / temperature

    return Parts(score=score)


@system(
    "Attention modulation, cross-attention",
    source=_MODULATION,
    shape=(2, 2, 100, 77),
    from_memory="that weights multiply scores, and how words belong to regions",
)
def attention_modulation_words() -> Parts:
    """Words of an object are for its region only; a weight of each word for the current phase."""
    region, owner = integers(1, 4, 2, 100, seed=50), integers(0, 4, 2, 77, seed=51)
    weight = 1.0 + 0.3 * normal(2, 77, seed=52)

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return s * weight[b, kv_idx]

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (owner[b, kv_idx] == 0) | (owner[b, kv_idx] == region[b, q_idx])

    return Parts(mask, score, {"region": region, "owner": owner, "weight": weight})


@system(
    "LVLM head modulation",
    source="Fixing Imbalanced Attention to Mitigate In-Context Hallucination of Large "
    "Vision-Language Model, arXiv:2501.12206",
    shape=(2, 4, 120, 120),
    from_memory="that the emphasis multiplies scores",
)
def lvlm_head_modulation() -> Parts:
    """Selected visual tokens are emphasised, more so by heads that are sensitive to vision."""
    emphasis = torch.zeros(2, 120)
    emphasis[:, 10:80] = normal(2, 70, seed=53).relu()
    gain = normal(4, seed=54).abs()

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return s * (1.0 + gain[h] * emphasis[b, kv_idx])

    return Parts(library.causal(), score, {"emphasis": emphasis, "gain": gain})
