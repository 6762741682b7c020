"""Laws of what is not seen: it does not matter, NaN included."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from attnc.testing.case import Case
from attnc.testing.laws.forward import same_bits
from attnc.testing.laws.registry import Failure, law

#: Tiles of all kernels divide blocks of so many queries and keys.
_BLOCK = 128


def _has_unseen(case: Case) -> bool:
    return any(
        bool(_unseen_keys(each, rows).any()) for each in case.variants for rows in _rows(each)
    )


@law(
    "unseen",
    "{kernel} gives the same bits whatever lies in tiles that are not seen, NaN included",
    applies=_has_unseen,
)
def unseen(case: Case) -> Iterator[Failure]:
    for each in case.variants:
        for rows in _rows(each):
            hidden = _unseen_keys(each, rows)
            if bool(hidden.any()):
                yield from _changed(each, rows, hidden)


def _changed(case: Case, rows: slice, hidden: torch.Tensor) -> Iterator[Failure]:
    q, k, v = case.inputs
    spoiled = [torch.where(hidden[..., None], math.nan, x) for x in (k, v)]
    is_all = rows == slice(0, case.shape.n_queries)
    whose = "no query" if is_all else f"no query from {rows.start} to {rows.stop - 1}"
    for backend in case.backends:
        outcomes = case.outcome(backend), case.run(backend, (q, spoiled[0], spoiled[1]))
        before, after = ((each.out[:, :, rows], each.lse[:, :, rows]) for each in outcomes)
        # Other queries see these keys: what these get is theirs alone in the gradient of q.
        first, again = (
            each.gradients if is_all else tuple(x[:, :, rows] for x in each.gradients[:1])
            for each in outcomes
        )
        if not same_bits(before, after):
            yield Failure(f"NaN in keys and values that {whose} sees changed it.", None, backend)
        # The reference differentiates densely: it has no tiles that it could skip.
        elif backend != "reference" and not same_bits(first, again):
            what = "gradients" if is_all else "the gradient of q"
            yield Failure(
                f"NaN in keys and values that {whose} sees changed {what}.", None, backend
            )


def _rows(case: Case) -> list[slice]:
    """All queries, and those of one block."""
    n_queries = case.shape.n_queries
    n_blocks = -(-n_queries // _BLOCK)
    found = [slice(0, n_queries)]
    if n_blocks > 1:
        start = case.recipe.seed % n_blocks * _BLOCK
        found.append(slice(start, min(start + _BLOCK, n_queries)))
    return found


def _unseen_keys(case: Case, rows: slice) -> torch.Tensor:
    """(Bkv, Hkv, n_keys) bool: keys in whole blocks that the mask hides from these queries."""
    shape = case.shape
    seen = case.mask_values[:, :, rows].any(dim=2)
    seen = torch.unflatten(seen, 1, (shape.n_kv_heads, -1)).any(dim=2)
    if shape.n_kv_batch != shape.n_batch:
        seen = seen.any(dim=0, keepdim=True)
    blocks = torch.nn.functional.pad(seen, (0, -shape.n_keys % _BLOCK))
    hidden = ~torch.unflatten(blocks, 2, (-1, _BLOCK)).any(dim=3)
    return hidden.repeat_interleave(_BLOCK, dim=2)[..., : shape.n_keys]
