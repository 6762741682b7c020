"""Systems with windows whose place is captured."""

from __future__ import annotations

from typing import Any

import torch

from examples.systems.catalogue import Parts, integers, system

_MONOTONIC = "A study of latent monotonic attention variants, arXiv:2103.16710"


def _forward_steps(seed: int, n_queries: int, n_keys: int) -> torch.Tensor:
    """(2, n_queries): places among keys that only move forward."""
    steps = integers(0, 5, 2, n_queries, seed=seed)
    return steps.cumsum(dim=1).clamp(max=n_keys - 1).int()


@system(
    "Latent monotonic attention, windows",
    source=_MONOTONIC,
    shape=(2, 2, 50, 120),
    from_memory="the reach of the window",
)
def monotonic_windows() -> Parts:
    """Each query sees a window around its place, which only moves forward."""
    reach = 5
    place = _forward_steps(270, 50, 120)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return torch.abs(kv_idx - place[b, q_idx]) <= reach

    return Parts(mask, data={"place": place})


@system(
    "Latent monotonic attention, segments",
    source=_MONOTONIC,
    shape=(2, 2, 50, 120),
    from_memory="that a segment starts after the place of the query before",
)
def monotonic_segments() -> Parts:
    """Each query sees what lies between the place of the query before it and its own."""
    stop = _forward_steps(271, 50, 120) + 1
    start = torch.cat([torch.zeros(2, 1, dtype=torch.int32), stop[:, :-1]], dim=1)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (kv_idx >= start[b, q_idx]) & (kv_idx < stop[b, q_idx])

    return Parts(mask, data={"start": start, "stop": stop})


@system(
    "Adaptive polyphase anchoring",
    source="Reviving Shift Equivariance in Vision Transformers, arXiv:2306.07470",
    shape=(3, 2, 120, 120),
    from_memory="that windows go around at the border",
)
def polyphase_anchoring() -> Parts:
    """Windows of 5 x 4 on a grid that is anchored elsewhere in each image."""
    rows, columns, height, width = 10, 12, 5, 4
    anchor = torch.tensor([[0, 3], [2, 1], [4, 0]], dtype=torch.int32)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        def window(i: Any) -> tuple[Any, Any]:
            row, column = i // columns - anchor[b, 0], i % columns - anchor[b, 1]
            return row % rows // height, column % columns // width

        (q_row, q_column), (kv_row, kv_column) = window(q_idx), window(kv_idx)
        return (q_row == kv_row) & (q_column == kv_column)

    return Parts(mask, data={"anchor": anchor})
