"""The masks and scores of the GPU benchmarks.

A function may take the tensors it captures as further arguments, so that they can be handed to a
compiler one by one; ``mods`` binds them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.cases import causal, softcap

WINDOW = 512
# Where documents of very different lengths begin, as parts of the whole length.
DOCUMENT_STARTS = (0.1, 0.17, 0.4, 0.6, 0.85)

Mod = Callable[..., Any]


def window(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return (q_idx >= kv_idx) & (q_idx - kv_idx < WINDOW)


def same_document(b: Any, h: Any, q_idx: Any, kv_idx: Any, ids: Any) -> Any:
    return ids[q_idx] == ids[kv_idx]


def alibi(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score + torch.exp2(-(h + 1) * 0.5) * (kv_idx - q_idx)


def document_ids(length: int, device: str) -> torch.Tensor:
    """(length,) int32: the document of each token."""
    starts = torch.tensor(DOCUMENT_STARTS) * length
    ids = torch.searchsorted(starts, torch.arange(length).float(), right=True)
    return ids.to(torch.int32).to(device)


@dataclass(frozen=True)
class Case:
    """A mask_mod and a score_mod; the mask's further arguments are made by ``captured``."""

    name: str
    mask: Mod | None
    score: Mod | None = None
    captured: tuple[Callable[[int, str], torch.Tensor], ...] = ()

    def tensors(self, length: int, device: str) -> tuple[torch.Tensor, ...]:
        return tuple(make(length, device) for make in self.captured)

    def bound_mask(self, tensors: tuple[torch.Tensor, ...]) -> Mod | None:
        """The mask as a mask_mod of four arguments that captures ``tensors``."""
        if self.mask is None or not tensors:
            return self.mask
        mask = self.mask

        def captures(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return mask(b, h, q_idx, kv_idx, *tensors)

        return captures

    def n_visible(self, length: int) -> int:
        """Pairs of a query and a key that the mask lets see each other."""
        n = torch.arange(length)
        match self.name:
            case "full":
                return length * length
            case "window":
                return int(torch.clamp(n + 1, max=WINDOW).sum())
            case "documents":
                return int((torch.bincount(document_ids(length, "cpu")) ** 2).sum())
            case _:
                return length * (length + 1) // 2


CASES = (
    Case("full", None),
    Case("causal", causal),
    Case("window", window),
    Case("documents", same_document, captured=(document_ids,)),
    Case("ALiBi", causal, alibi),
    Case("softcap", causal, softcap),
)
