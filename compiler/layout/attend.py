"""Attention in another order of tokens."""

from __future__ import annotations

from typing import Any

import torch

from attnc.errors import LayoutArgumentError, LayoutLengthError, LayoutOfBlockMaskError
from attnc.layout.order import Layout, shown
from attnc.mods import Mod, require_alone
from attnc.runtime.dispatch import Outputs

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def require_layout(layout: Any, q: torch.Tensor, k: torch.Tensor, mask: Any) -> None:
    """Raises unless ``layout`` fits the tensors, (B, H, n, head_dim) each, and a mask function.

    Raises:
        LayoutArgumentError: It is no Layout.
        LayoutLengthError: It is of another number of tokens.
        LayoutOfBlockMaskError: The mask is a block mask.
    """
    if not isinstance(layout, Layout):
        problem = "give a Layout, as attnc.layout.tiled or the best of attnc.layout.search"
        raise LayoutArgumentError(argument="layout", value=shown(layout), problem=problem)
    if hasattr(mask, "kv_num_blocks"):
        raise LayoutOfBlockMaskError(name=layout.name)
    if q.shape[2] != layout.n_tokens or k.shape[2] != layout.n_tokens:
        raise LayoutLengthError(
            name=layout.name,
            n_tokens=layout.n_tokens,
            n_queries=q.shape[2],
            n_keys=k.shape[2],
        )


def arranged(
    layout: Layout,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: Mod | None,
    score: Mod | None,
) -> tuple[Tensors, Mod | None, Mod | None]:
    """q, k and v, the mask and the score, of places instead of tokens."""
    for part, role in ((mask, "mask"), (score, "score")):
        require_alone(part, role)
    tensors = (layout.arrange(q), layout.arrange(k), layout.arrange(v))
    return (
        tensors,
        None if mask is None else layout.mask(mask),
        None if score is None else layout.score(score),
    )


def restored(layout: Layout, outputs: Outputs) -> Outputs:
    """Outputs of places as outputs of tokens."""
    lse, largest = outputs.lse, outputs.max_scores
    return Outputs(
        layout.restore(outputs.out),
        None if lse is None else layout.restore(lse),
        None if largest is None else layout.restore(largest),
    )
