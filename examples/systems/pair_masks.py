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
    from_memory="order of queries, and that only those of prompts may see nothing",
)
def seem_masks() -> Parts:
    """Object queries see the predicted regions, the prompts after them the regions drawn."""
    n_objects, n_prompts = 24, 9
    predicted = flags(0.2, 2, n_objects, 144, seed=231)
    drawn = flags(0.1, 2, n_prompts, 144, seed=232)
    drawn[:, 4] = False

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        of_object = predicted[b, torch.clamp(q_idx, max=n_objects - 1), kv_idx]
        of_prompt = drawn[b, torch.clamp(q_idx - n_objects, min=0), kv_idx]
        return torch.where(q_idx < n_objects, of_object, of_prompt)

    return Parts(mask, data={"predicted": predicted, "drawn": drawn})


@system(
    "ACMIL",
    source="Attention-Challenging Multiple Instance Learning for Whole Slide Image "
    "Classification, arXiv:2311.07125",
    shape=(1, 2, 5, 300),
    from_memory="that every branch hides a random share of its own largest instances",
)
def acmil() -> Parts:
    """A few pooling queries over many patches; of those each liked best, some are hidden from it."""
    n_best = 20
    liked = normal(1, 5, 300, seed=233)
    least = liked.topk(n_best, dim=-1).values[..., -1:]
    hidden = (liked >= least) & flags(0.6, 1, 5, 300, seed=234)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return ~hidden[b, q_idx, kv_idx]

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
