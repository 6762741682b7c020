"""Systems that capture what each query sees of each key: masks of pairs, and what gives them."""

from __future__ import annotations

from typing import Any

import torch

from attnc import library
from examples.systems.catalogue import Parts, flags, normal, system


@system(
    "Mask2Former",
    source="Masked-attention Mask Transformer for Universal Image Segmentation, arXiv:2112.01527",
    shape=(2, 2, 20, 144),
)
def mask2former() -> Parts:
    """Queries of objects see the region that the last layer predicted, all if there is none."""
    logits = normal(2, 20, 144, seed=230) - 1.0
    logits[:, 3] = -2.0
    is_empty = (logits < 0).all(dim=-1)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (logits[b, q_idx, kv_idx] >= 0) | is_empty[b, q_idx]

    return Parts(mask, data={"logits": logits, "is_empty": is_empty})


@system(
    "SEEM, predicted masks",
    source="Segment Everything Everywhere All at Once, arXiv:2304.06718",
    shape=(2, 2, 33, 144),
)
def seem_masks() -> Parts:
    """As Mask2Former; memory, the last rows, sees the region that the last round selected."""
    n_queries, n_memory = 24, 9
    predicted = flags(0.2, 2, n_queries, 144, seed=231)
    predicted[0, 7] = False
    selected = flags(0.1, 2, 1, 144, seed=232)
    selected[1] = False
    is_empty = ~torch.cat([predicted, selected.expand(2, n_memory, 144)], dim=1).any(dim=-1)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        of_query = predicted[b, torch.clamp(q_idx, max=n_queries - 1), kv_idx]
        seen = torch.where(q_idx < n_queries, of_query, selected[b, 0, kv_idx])
        return seen | is_empty[b, q_idx]

    return Parts(mask, data={"predicted": predicted, "selected": selected, "is_empty": is_empty})


@system(
    "ACMIL",
    source="Attention-Challenging Multiple Instance Learning for Whole Slide Image "
    "Classification, arXiv:2311.07125",
    shape=(1, 2, 5, 300),
)
def acmil() -> Parts:
    """A few pooling queries over many patches; of those each likes best some are hidden from it."""
    n_best, n_hidden = 20, 12
    best = normal(1, 2, 5, 300, seed=233).topk(n_best).indices
    drawn = normal(1, 2, 5, n_best, seed=234).argsort()[..., :n_hidden]
    hidden = torch.zeros(1, 2, 5, 300, dtype=torch.bool).scatter(3, best.gather(3, drawn), True)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return ~hidden[b, h, q_idx, kv_idx]

    return Parts(mask, data={"hidden": hidden})


@system(
    "CMAI",
    source="Enhancing Instruction-Following Capability of Visual-Language Models by Reducing Image "
    "Redundancy, arXiv:2411.15453",
    shape=(2, 2, 115, 115),
    from_memory="the threshold; that text follows the image; merging of image tokens (VMTC) is "
    "done before attention and left out",
)
def cmai() -> Parts:
    """Causal; text does not see image tokens on which too little of earlier attention came."""
    n_image, n_text, least = 75, 40, 0.012
    to_text = normal(2, n_text, n_text, seed=235).softmax(dim=-1)
    to_image = (2.0 * normal(2, n_text, n_image, seed=236)).softmax(dim=-1)
    focus = to_text @ to_image

    def is_in_focus(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        text, place = torch.clamp(q_idx - n_image, min=0), torch.clamp(kv_idx, max=n_image - 1)
        return (q_idx < n_image) | (kv_idx >= n_image) | (focus[b, text, place] >= least)

    return Parts(library.causal() & is_in_focus, data={"focus": focus})
