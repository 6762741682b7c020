"""Dense twins of edges: lists of them, scattered into matrices."""

from __future__ import annotations

import torch
from gallery.harness import Data, Dense, dense


@dense
def coulgat(data: Data) -> Dense:
    """The potential in logarithms."""
    distance = data["distance"].double()
    visible = torch.zeros(103, 103, dtype=torch.bool)
    for query, row in enumerate(data["distance"].tolist()):
        visible[query, [key for key, apart in enumerate(row) if apart <= 3.0]] = True
    screening, power = (data[name].reshape(2, 1, 1) for name in ("screening", "power"))
    potential = (-screening * distance - power * distance.log()).exp()
    return Dense(visible, lambda scores: torch.maximum(scores, 0.2 * scores) * potential)


@dense
def graph_transformer(data: Data) -> Dense:
    """Weights of edges, in the order of a list of them, put where their nodes meet."""
    queries, keys = data["edge"].nonzero(as_tuple=True)
    weight = data["weight"][:, 1:]
    assert weight.shape[1] == len(queries)
    factors = weight.new_zeros(2, 99, 99)
    factors[:, queries, keys] = weight
    visible = torch.zeros(99, 99, dtype=torch.bool)
    visible[queries, keys] = True
    return Dense(visible, lambda scores: scores * factors)
