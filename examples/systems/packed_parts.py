"""Systems that pack what they encode apart into one row: prefixes, chunks of a context."""

from __future__ import annotations

from typing import Any

import torch

from attnc import library
from examples.systems.catalogue import Parts, system


@system(
    "ENTP",
    source="ENTP: Encoder-only Next Token Prediction, arXiv:2410.01600",
    shape=(1, 2, 120, 120),
)
def entp() -> Parts:
    """Each prefix of a text is encoded anew, without causality: 15 prefixes, one after another."""
    n_tokens = 15
    prefix = torch.arange(n_tokens).repeat_interleave(torch.arange(1, n_tokens + 1))
    return Parts(library.documents(prefix), data={"prefix": prefix})


@system(
    "Parallel context encoding",
    source="Attention Entropy is a Key Factor: An Analysis of Parallel Context Encoding with "
    "Full-attention-based Pre-trained Language Models, arXiv:2412.16545",
    shape=(2, 2, 128, 128),
    from_memory="sizes of parts; that the question chooses whole chunks, the same for all its "
    "tokens; positions of chunks, which start anew, go into Q and K",
)
def parallel_context() -> Parts:
    """Shared first tokens, chunks that do not see each other, a question that chooses among them."""
    sizes = torch.tensor([[8, 20, 25, 22, 21, 32], [8, 30, 13, 35, 12, 30]])
    question = 5
    part = torch.stack([torch.arange(6).repeat_interleave(row) for row in sizes])
    chosen = torch.tensor([[1, 0, 1, 1, 0, 1], [1, 1, 1, 0, 0, 1]]).bool()

    def reads(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        own, other = part[b, q_idx], part[b, kv_idx]
        return (own == other) | (other == 0) | ((own == question) & chosen[b, other])

    return Parts(library.causal() & reads, data={"part": part, "chosen": chosen})
