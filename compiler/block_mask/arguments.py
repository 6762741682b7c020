"""What may be given to a BlockMask, and how it is indexed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from attnc.errors import BlockMaskDimensionsError, BlockMaskListsError


def check_lists(
    kv_num_blocks: torch.Tensor,
    kv_indices: torch.Tensor,
    full_kv_num_blocks: torch.Tensor | None,
    full_kv_indices: torch.Tensor | None,
) -> None:
    """Raises unless lists can be those of key blocks.

    Raises:
        BlockMaskDimensionsError: There are no rows.
        BlockMaskListsError: One list of a pair is missing.
    """
    if kv_indices.dim() < 2:
        raise BlockMaskDimensionsError(n_dims=kv_indices.dim())
    if kv_num_blocks is None:
        raise BlockMaskListsError(one="kv_num_blocks", other="kv_indices")
    if (full_kv_num_blocks is None) != (full_kv_indices is None):
        raise BlockMaskListsError(one="full_kv_num_blocks", other="full_kv_indices")


def kept_index(index: Any, sizes: Sequence[int]) -> tuple[Any, ...]:
    """An index of (batch, head, q_block) that keeps dimensions where it gives a number."""
    given = index if isinstance(index, tuple) else (index,)
    if (n_missing := 4 - len(given)) > 0 and Ellipsis in [i for i in given if i is Ellipsis]:
        at = next(place for place, i in enumerate(given) if i is Ellipsis)
        given = (*given[:at], *[slice(None)] * n_missing, *given[at + 1 :])
    padded = (*given, slice(None), slice(None), slice(None))[:3]
    return tuple(
        (slice(i + n, i + n + 1) if -n <= i < 0 else slice(i, i + 1)) if isinstance(i, int) else i
        for i, n in zip(padded, (*sizes, 0, 0, 0), strict=False)
    )
