"""Masks of packed rows: documents, shared prefixes, trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from attnc import checks
from attnc.library.entry import (
    argument_error,
    entry,
    require_device,
    require_sizes,
    require_tensor,
)
from attnc.mods import Mod

_FAMILY = "packing"
_MAX_CONTEXT = 1 << 26  # two numbers are kept for each


@entry(
    _FAMILY,
    example="documents(torch.tensor([0, 0, 1, 1, 1, 2, 2, 2]).repeat_interleave(6)) & causal()",
    shape=(1, 1, 48, 48),
    source="Krell et al. 2021 (packing), arXiv:2107.02027",
)
def documents(ids: torch.Tensor) -> Mod:
    """Each token sees the tokens of its own document.

    Args:
        ids: Number of each token's document: (n,) or (B, n), integers. Sorted ids, as packing
            gives them, are analysed fastest; any are right. Lengths as in ``cu_seqlens``: see
            ``attnc.interchange``.
    """
    require_tensor("documents", "ids", ids, (1, 2), "(n,) or (B, n)", integers=True)
    if ids.dim() == 1:

        def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return ids[q_idx] == ids[kv_idx]

        return mask

    def mask_by_row(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return ids[b, q_idx] == ids[b, kv_idx]

    return mask_by_row


@entry(
    _FAMILY,
    example=(
        "shared_prefix(torch.tensor([0, 0, 1, 1, 1, 2, 2, 2]).repeat_interleave(6), 0) & causal()"
    ),
    shape=(1, 1, 48, 48),
    source="Juravsky et al. 2024 (Hydragen), arXiv:2402.05099",
)
def shared_prefix(ids: torch.Tensor, prefix: int = 0) -> Mod:
    """As ``documents``, and every token sees the document ``prefix``, which sees itself only.

    Args:
        ids: Number of each token's document: (n,), integers.
        prefix: Number of the document that all share, as a prompt with many answers.
    """
    require_tensor("shared_prefix", "ids", ids, (1,), "(n,)", integers=True)
    if checks.whole_number(prefix) is None:
        raise argument_error("shared_prefix", "prefix", prefix, "give the number of a document")

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (ids[kv_idx] == prefix) | (ids[q_idx] == ids[kv_idx])

    return mask


@entry(
    _FAMILY,
    example="tree([-1, 0, 0, 1, 1, 2, 3, 3, 5], n_context=6)",
    shape=(1, 1, 9, 15),
    source="Miao et al. 2023 (SpecInfer), arXiv:2305.09781; Medusa, arXiv:2401.10774",
)
def tree(
    parents: Sequence[int] | torch.Tensor,
    n_context: int = 0,
    *,
    device: torch.device | str | None = None,
) -> Mod:
    """Each node of a tree of draft tokens sees the context, its ancestors and itself.

    Args:
        parents: For each node the number of its parent, which comes before it; -1 for a root.
        n_context: Keys before the tree, seen by all: query i is key ``n_context + i``.
        device: Of q, k and v.
    """
    numbers = checks.items(parents)
    if numbers is None or any(checks.whole_number(parent) is None for parent in numbers):
        raise argument_error("tree", "parents", parents, "give an int for each node")
    require_sizes("tree", 0, _MAX_CONTEXT, n_context=n_context)
    require_device("tree", device)
    for node, parent in enumerate(numbers):
        if not -1 <= parent < node:
            raise argument_error(
                "tree",
                "parents",
                numbers,
                f"node {node} has the parent {parent}; parents come before their children",
            )
    # In preorder the descendants of a node are an interval, so ancestry is two comparisons.
    n_below = [1] * len(numbers)
    for node in reversed(range(len(numbers))):
        if numbers[node] >= 0:
            n_below[numbers[node]] += n_below[node]
    next_free, enter, n_roots = [0] * len(numbers), [0] * len(numbers), 0
    for node, parent in enumerate(numbers):
        if parent < 0:
            enter[node], n_roots = n_roots, n_roots + n_below[node]
        else:
            enter[node] = next_free[parent]
            next_free[parent] += n_below[node]
        next_free[node] = enter[node] + 1
    leave = [first + n for first, n in zip(enter, n_below, strict=True)]
    opens = torch.tensor([0] * n_context + enter, dtype=torch.int32, device=device)
    closes = torch.tensor([len(numbers)] * n_context + leave, dtype=torch.int32, device=device)
    place = torch.tensor(enter, dtype=torch.int32, device=device)

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (opens[kv_idx] <= place[q_idx]) & (place[q_idx] < closes[kv_idx])

    return mask
