"""Systems whose queries and keys are two streams that run at rates of their own."""

from __future__ import annotations

from typing import Any

import torch

from examples.systems.catalogue import Parts, integers, system


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
    shape=(2, 2, 22, 132),
)
def synch_transformer_captions() -> Parts:
    """Each word sees the frames around the mean place of its attention without this mask."""
    reach = 15
    place = integers(0, 132, 2, 2, 22, seed=30).sort(dim=-1).values

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return torch.abs(kv_idx - place[b, h, q_idx]) <= reach

    return Parts(mask, data={"place": place})


_UNIAVGEN = (
    "UniAVGen: Unified Audio and Video Generation with Asymmetric Cross-Modal Interactions, "
    "arXiv:2511.03334"
)
_N_PATCHES, _N_SOUNDS = 16, 25  # tokens of a frame of video, and of audio in the same time


@system(
    "UniAVGen, audio to video",
    source=_UNIAVGEN,
    shape=(1, 2, 96, 150),
    from_memory="how many frames a window holds",
)
def uniavgen_to_video() -> Parts:
    """Video reads the audio of its own frame and of those next to it."""

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return torch.abs(q_idx // _N_PATCHES - kv_idx // _N_SOUNDS) <= 1

    return Parts(mask)


@system(
    "UniAVGen, video to audio",
    source=_UNIAVGEN,
    shape=(1, 2, 150, 96),
    from_memory="that audio between two frames sees both, instead of their interpolation",
)
def uniavgen_to_audio() -> Parts:
    """Audio reads the frame that is shown and the next one."""

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        ahead = kv_idx // _N_PATCHES - q_idx // _N_SOUNDS
        return (ahead == 0) | (ahead == 1)

    return Parts(mask)
