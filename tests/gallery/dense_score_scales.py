"""Dense twins of scales: whole score matrices times vectors and outer products."""

from __future__ import annotations

import math

import torch
from gallery.harness import Data, Dense, dense


@dense
def entropy_abf(data: Data) -> Dense:
    """As released: queries beyond the trained length are scaled."""
    gains = torch.tensor([math.log(i, 16) if i > 16 else 1.0 for i in range(1, 97)]).double()
    return Dense(torch.ones(96, 96).tril().bool(), lambda scores: gains.diag() @ scores)


@dense
def attention_modulation(data: Data) -> Dense:
    return Dense(None, lambda scores: scores * (10 / 7))


@dense
def attention_modulation_words(data: Data) -> Dense:
    """One object after the other opens its words to its region."""
    visible = torch.zeros(2, 1, 100, 77, dtype=torch.bool)
    for row in range(2):
        words, pixels = data["owner"][row], data["region"][row]
        visible[row, :, :, words == 0] = True
        for thing in range(1, 4):
            visible[row, 0] |= torch.outer(pixels == thing, words == thing)
    weights = torch.diag_embed(data["weight"].double())[:, None]
    return Dense(visible, lambda scores: scores @ weights)


@dense
def lvlm_head_modulation(data: Data) -> Dense:
    extra = torch.einsum("bk,h->bhk", data["emphasis"].double(), data["gain"].double())

    def amplified(scores: torch.Tensor) -> torch.Tensor:
        return scores + torch.einsum("bhqk,bhk->bhqk", scores, extra)

    return Dense(torch.ones(120, 120).tril().bool(), amplified)
