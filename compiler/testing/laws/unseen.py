"""Laws of what is not seen: it does not matter, NaN included."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from attnc.testing.case import Case
from attnc.testing.laws.forward import same_bits
from attnc.testing.laws.registry import Failure, law

#: Tiles of all kernels divide blocks of so many keys.
_BLOCK = 128


def _has_unseen(case: Case) -> bool:
    return any(bool(_unseen_keys(each).any()) for each in _variants(case))


@law(
    "unseen",
    "{kernel} gives the same bits whatever lies in tiles that no query sees, NaN included",
    applies=_has_unseen,
)
def unseen(case: Case) -> Iterator[Failure]:
    for each in _variants(case):
        hidden = _unseen_keys(each)
        if not bool(hidden.any()):
            continue
        q, k, v = each.inputs
        spoiled = [torch.where(hidden[..., None], math.nan, x) for x in (k, v)]
        for backend in case.backends:
            clean = each.outcome(backend)
            found = each.run(backend, (q, spoiled[0], spoiled[1]))
            if not same_bits((clean.out, clean.lse), (found.out, found.lse)):
                yield Failure("NaN in unseen keys and values changed it.", backend=backend)
            # The reference differentiates densely: it has no tiles that it could skip.
            elif backend != "reference" and not same_bits(clean.gradients, found.gradients):
                yield Failure("NaN in unseen keys and values changed gradients.", backend=backend)


def _variants(case: Case) -> list[Case]:
    return [each for each in (case, case.padded) if each is not None]


def _unseen_keys(case: Case) -> torch.Tensor:
    """(Bkv, Hkv, n_keys) bool: keys in whole blocks that the mask hides from all queries."""
    shape = case.shape
    seen = torch.unflatten(case.mask_values.any(dim=2), 1, (shape.n_kv_heads, -1)).any(dim=2)
    if shape.n_kv_batch != shape.n_batch:
        seen = seen.any(dim=0, keepdim=True)
    blocks = torch.nn.functional.pad(seen, (0, -shape.n_keys % _BLOCK))
    hidden = ~torch.unflatten(blocks, 2, (-1, _BLOCK)).any(dim=3)
    return hidden.repeat_interleave(_BLOCK, dim=2)[..., : shape.n_keys]
