"""Systems whose queries and keys are two streams that run at rates of their own."""

from __future__ import annotations

from typing import Any

import torch

from examples.systems.catalogue import Parts, system


@system(
    "FaceFormer, alignment",
    source="FaceFormer: Speech-Driven 3D Facial Animation with Transformers, arXiv:2112.05329",
    shape=(1, 2, 64, 128),
)
def faceformer_alignment() -> Parts:
    """Each frame of motion sees its own two frames of audio."""
    n_audio = 2

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return kv_idx // n_audio == q_idx

    return Parts(mask)


@system(
    "Synch-Transformer, captions",
    source="Transformer with Controlled Attention for Synchronous Motion Captioning, "
    "arXiv:2409.09177",
    shape=(1, 2, 22, 132),
    from_memory="the form of the mask, a band along the diagonal; the losses that make attention "
    "monotonic are left out",
)
def synch_transformer_captions() -> Parts:
    """Each word sees the frames around its share of the motion."""
    n_frames, reach = 6, 15  # frames per word; frames seen on either side

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return torch.abs(kv_idx - q_idx * n_frames) <= reach

    return Parts(mask)
