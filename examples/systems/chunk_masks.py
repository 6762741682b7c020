"""Systems whose tokens come in chunks, whole ones visible: blocks, scales, segments."""

from __future__ import annotations

from typing import Any

import torch

from attnc import library
from examples.systems.catalogue import Parts, system

_TITANS = "Titans: Learning to Memorize at Test Time, arXiv:2501.00663"


@system(
    "EnerVerse",
    source="EnerVerse: Envisioning Embodied Future Space for Robotics Manipulation, "
    "arXiv:2501.01895",
    shape=(1, 2, 149, 149),
    from_memory="that frames of memory stand first, and read each other only",
)
def enerverse() -> Parts:
    """Both directions inside a chunk, backwards between chunks; all see a sparse memory."""
    n_memory, chunk = 29, 40

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        earlier = (q_idx - n_memory) // chunk >= (kv_idx - n_memory) // chunk
        return (kv_idx < n_memory) | earlier

    return Parts(mask)


@system(
    "Fast-dLLM v2",
    source="Fast-dLLM v2: Efficient Block-Diffusion LLM, arXiv:2509.26328",
    shape=(1, 2, 132, 132),
)
def fast_dllm() -> Parts:
    """Noised tokens see their block and the clean blocks before it; clean ones are block-causal."""
    return Parts(library.block_diffusion(66, 11))


@system(
    "M-VAR",
    source="M-VAR: Decoupled Scale-wise Autoregressive Modeling for High-Quality Image Generation, "
    "arXiv:2411.10433",
    shape=(1, 2, 140, 140),
)
def m_var() -> Parts:
    """Each scale of an image sees itself; what joins scales is no attention there."""
    sides = torch.arange(1, 8, dtype=torch.int32)  # 1 x 1 to 7 x 7
    scale = torch.repeat_interleave(sides, sides * sides)
    return Parts(library.documents(scale), data={"scale": scale})


@system("Titans, memory as gate", source=_TITANS, shape=(1, 2, 150, 150))
def titans() -> Parts:
    """A causal window, and learned tokens at the front that all see."""
    n_persistent, window = 6, 40

    def persistent(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return kv_idx < n_persistent

    return Parts(library.sliding_window(window - 1) | persistent)


@system(
    "Titans, memory as context",
    source=_TITANS,
    shape=(1, 2, 147, 147),
    from_memory="that learned and retrieved tokens of a segment see each other in both directions",
)
def titans_context() -> Parts:
    """Segments behind learned and retrieved tokens of their own, which all of a segment see."""
    segment, n_memory = 49, 13

    def of_memory(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return kv_idx % segment < n_memory

    return Parts(library.chunked(segment) & (library.causal() | of_memory))
