"""Systems that attend causally or both ways by what a token, a segment or a sample is."""

from __future__ import annotations

from typing import Any

import torch

from attnc import library
from examples.systems.catalogue import Parts, integers, system


@system(
    "Croc",
    source="Croc: Pretraining Large Multimodal Models with Cross-Modal Comprehension, "
    "arXiv:2410.14332",
    shape=(2, 2, 130, 130),
    from_memory="that images of one row do not look ahead into each other",
)
def croc() -> Parts:
    """Text is causal; the tokens of an image see each other in both directions."""
    text, first, second = 0, 1, 2
    runs = torch.tensor([text, first, text, second, text], dtype=torch.int32)
    lengths = torch.tensor([[11, 40, 9, 30, 40], [0, 64, 30, 33, 3]])
    image = torch.stack([torch.repeat_interleave(runs, row) for row in lengths])

    def same_image(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (image[b, q_idx] == image[b, kv_idx]) & (image[b, q_idx] != text)

    return Parts(library.causal() | same_image, data={"image": image})


@system(
    "UniVoice",
    source="UniVoice: Unifying Autoregressive ASR and Flow-Matching based TTS with Large Language "
    "Models, arXiv:2510.04593",
    shape=(3, 2, 100, 100),
)
def univoice() -> Parts:
    """Samples that recognise speech are causal; those that synthesise it see both directions."""
    synthesises = torch.tensor([False, True, False])

    def both_ways(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return synthesises[b]

    return Parts(library.causal() | both_ways, data={"synthesises": synthesises})


@system(
    "MODA",
    source="MODA: MOdular Duplex Attention for Multimodal Perception, Cognition, and Emotion "
    "Understanding, arXiv:2507.04635",
    shape=(2, 3, 110, 110),
    from_memory="that there is a table for each head, and that it is combined with causal order",
)
def moda() -> Parts:
    """A table for each head says which kind of token may read which; all are causal."""
    kind = integers(0, 3, 2, 110, seed=300)  # text, image, sound
    reads = torch.tensor(
        [
            [[1, 1, 1], [1, 1, 1], [1, 1, 1]],  # all
            [[1, 0, 0], [0, 1, 0], [0, 0, 1]],  # within a kind
            [[1, 1, 1], [0, 1, 0], [1, 0, 1]],  # text reads all, sound reads text
        ]
    ).bool()

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return reads[h, kind[b, q_idx], kind[b, kv_idx]]

    return Parts(library.causal() & mask, data={"kind": kind, "reads": reads})


@system(
    "PINE",
    source="Eliminating Position Bias of Language Models: A Mechanistic Approach, arXiv:2407.01100",
    shape=(1, 2, 151, 151),
)
def pine() -> Parts:
    """Causal inside documents, in both directions between them; what follows reads all."""
    text = 0
    lengths = torch.tensor([21, 30, 25, 45, 30])
    document = torch.repeat_interleave(torch.tensor([text, 1, 2, 3, text]).int(), lengths)

    def between(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        own, other = document[q_idx], document[kv_idx]
        return (own != text) & (other != text) & (own != other)

    return Parts(library.causal() | between, data={"document": document})


@system(
    "DCAL, pairs of images",
    source="Dual Cross-Attention Learning for Fine-Grained Visual Categorization and Object "
    "Re-Identification, arXiv:2205.02151",
    shape=(1, 2, 148, 148),
    from_memory="that the images of a batch stand in one row, each with any partner",
)
def dcal() -> Parts:
    """Queries of an image see its own keys and, in training, those of a distracting partner."""
    n_tokens = 37
    partner = torch.tensor([2, 0, 3, 1], dtype=torch.int32)

    def distractor(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return partner[q_idx // n_tokens] == kv_idx // n_tokens

    return Parts(library.chunked(n_tokens) | distractor, data={"partner": partner})
