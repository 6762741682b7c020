"""Dense twins of captured score tensors: products with one-hot matrices, gather."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from gallery.harness import Data, Dense, dense


@dense
def attention_at(data: Data) -> Dense:
    return Dense(None, lambda scores: scores + data["perturbation"].reshape(2, 1, 1, 150))


@dense
def attention_vat(data: Data) -> Dense:
    return Dense(None, lambda scores: scores + 0.1 * data["direction"].unsqueeze(2))


@dense
def maft(data: Data) -> Dense:
    """Bins as one-hot vectors: (1, 3, 24, 100, 7)."""
    bins = F.one_hot(data["offset"].long(), 7).double()

    def placed(scores: torch.Tensor) -> torch.Tensor:
        scores = scores + torch.einsum("bhqar,baqkr->bhqk", data["of_queries"], bins)
        return scores + torch.einsum("bhkar,baqkr->bhqk", data["of_keys"], bins)

    return Dense(None, placed)


@dense
def attention_regulation(data: Data) -> Dense:
    """Hills as an image for each centre; columns of target words are edited and put back."""
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    hills = [torch.exp(-((y - i) ** 2 + (x - j) ** 2) / 4) for i in (2, 5) for j in (2, 5)]
    edit = torch.tensordot(data["height"].double(), torch.stack(hills).double().flatten(1), 1).mT
    targets = torch.tensor([[2, 5, 9], [1, 3, 4]])

    def edited(scores: torch.Tensor) -> torch.Tensor:
        columns = targets[:, None, None].expand(2, 2, 64, 3)
        return scores.scatter(-1, columns, scores.gather(-1, columns) + edit)

    return Dense(None, edited)
