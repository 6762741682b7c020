"""Dense twins of graphs of tokens: adjacency matrices, joined and filled edge by edge."""

from __future__ import annotations

import torch
from gallery.harness import Data, Dense, dense


@dense
def fastmetro(data: Data) -> Dense:
    """As released: joints before and above the adjacency. Here from the edges of the triangles."""
    rows, columns = 9, 11
    vertices = torch.eye(rows * columns)
    number = torch.arange(rows * columns).reshape(rows, columns)
    edges = [(number[:-1], number[1:]), (number[:, :-1], number[:, 1:])]
    edges.append((number[:-1, :-1], number[1:, 1:]))
    for one, other in edges:
        vertices[one.flatten(), other.flatten()] = 1
        vertices[other.flatten(), one.flatten()] = 1
    right = torch.cat([torch.ones(rows * columns, 14), vertices], dim=1)
    return Dense(torch.cat([torch.ones(14, 14 + rows * columns), right]).bool())


@dense
def syntax_guided(data: Data) -> Dense:
    visible = torch.eye(75).bool().repeat(2, 1, 1)
    for b, heads in enumerate(data["head"].tolist()):
        for word, head in enumerate(heads):
            visible[b, word, head] = visible[b, head, word] = True
    return Dense(visible.unsqueeze(1))
