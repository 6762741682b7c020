"""Systems whose tokens are nodes of a graph, and whose edges change scores."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from examples.systems.catalogue import Parts, flags, normal, system


@system(
    "CoulGAT",
    source="CoulGAT: An Experiment on Interpretability of Graph Attention Networks, "
    "arXiv:1912.08409",
    shape=(1, 2, 103, 103),
    from_memory="that the potential multiplies scores of neighbours; the released code mixes with "
    "it what keys are made of, before attention, and rectifies scores",
)
def coulgat() -> Parts:
    """A screened Coulomb potential of distances, with learned exponents, on rectified scores."""
    point = 2.0 * normal(103, 3, seed=360)
    distance = torch.cdist(point, point).fill_diagonal_(0.0).clamp(min=0.2)
    distance.fill_diagonal_(1.0)
    cutoff = 3.0
    power, screening = normal(2, seed=361).abs(), normal(2, seed=362).abs()

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        apart = distance[q_idx, kv_idx]
        potential = torch.exp(-screening[h] * apart) / apart ** power[h]
        return F.leaky_relu(s, 0.2) * potential

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return distance[q_idx, kv_idx] <= cutoff

    data = {"distance": distance, "power": power, "screening": screening}
    return Parts(mask, score, data, learned=("power", "screening"))


@system(
    "Graph Transformer",
    source="A Generalization of Transformer Networks to Graphs, arXiv:2012.09699",
    shape=(1, 2, 99, 99),
    from_memory="that an edge gives one number for each head; there it gives one for each channel",
)
def graph_transformer() -> Parts:
    """Neighbours only; scores times a learned projection of the edge, which has two directions."""
    n = 99
    linked = flags(0.06, n, n, seed=363)
    edge = torch.where(linked, linked.flatten().cumsum(0).reshape(n, n), 0).int()  # 0: none
    weight = normal(2, int(edge.max()) + 1, seed=364)

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return s * weight[h, edge[q_idx, kv_idx]]

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return edge[q_idx, kv_idx] != 0

    return Parts(mask, score, {"edge": edge, "weight": weight}, learned=("weight",))
