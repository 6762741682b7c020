"""Dense twins of masks by order and distance: one row after the other, from sets and slices."""

from __future__ import annotations

import math

import torch
from gallery.harness import Data, Dense, dense


def rows(n_keys: int, seen: list[set[int]]) -> torch.Tensor:
    """(n_queries, n_keys) bool from the keys that each query sees."""
    visible = torch.zeros(len(seen), n_keys, dtype=torch.bool)
    for query, keys in enumerate(seen):
        visible[query, sorted(keys)] = True
    return visible


@dense
def perceiver_ar(data: Data) -> Dense:
    """The last rows of causal attention over everything."""
    return Dense(torch.ones(160, 160).tril()[-48:].bool())


@dense
def power_attention(data: Data) -> Dense:
    n, block = 160, 4
    steps = [0] + [2**power for power in range(8)]
    seen = []
    for query in range(n):
        keys = set(range(query - 7, query)) | {0, 1, 2, 3, query}
        for step in steps:
            first = (query // block - step) * block
            keys |= set(range(first, first + block))
        seen.append({key for key in keys if 0 <= key <= query})
    return Dense(rows(n, seen))


@dense
def synch_transformer(data: Data) -> Dense:
    """A band: what is left of all pairs without both corners."""
    every = torch.ones(118, 118)
    return Dense((every.tril(9) - every.tril(-10)).bool())


@dense
def sener_arrow(data: Data) -> Dense:
    seen = [set(range(max(i - 12, 0), min(i + 13, 131))) | {0} for i in range(131)]
    seen[0] = set(range(131))
    gains = torch.ones(131, 1, dtype=torch.float64)
    gains[0] = math.log(131, 64)
    return Dense(rows(131, seen), lambda scores: scores * gains)


@dense
def equivariant_image_modeling(data: Data) -> Dense:
    return Dense(rows(120, [set(range(max(i - 23, 0), i + 1)) for i in range(120)]))
