"""Dense twins of groups of tokens: rows filled group by group, pairs from sets, released loops."""

from __future__ import annotations

from itertools import product

import torch
from gallery.harness import Data, Dense, dense


@dense
def bamm(data: Data) -> Dense:
    """As released: a causal matrix, columns of conditions opened, their rows closed elsewhere."""
    visible = torch.ones(99, 99).tril().bool().repeat(2, 1, 1)
    for row, condition in zip(visible, data["condition"], strict=True):
        row[condition] = False
        row[:, condition] = True
    return Dense(visible.unsqueeze(1))


@dense
def m2t(data: Data) -> Dense:
    """Group by group: what is revealed so far."""
    group = data["group"]
    visible = torch.zeros(144, 144, dtype=torch.bool)
    revealed: list[int] = []
    for number in range(6):
        members = (group == number).nonzero().flatten().tolist()
        revealed += members
        visible[torch.tensor(members)[:, None], torch.tensor(revealed)] = True
    return Dense(visible)


@dense
def masactrl(data: Data) -> Dense:
    """As released: foreground of the source for one pass, its background for the other, blended."""
    target, source = data["target"], data["source"]
    foreground = target[:, :, None] * source[:, None]
    background = target.logical_not()[:, :, None] * source.logical_not()[:, None]
    return Dense((foreground + background).unsqueeze(1))


@dense
def bounded_attention(data: Data) -> Dense:
    """As released: all pairs, less those of boxes with what is only in other boxes."""
    boxes = data["boxes"].tolist()
    visible = torch.ones(2, 100, 100, dtype=torch.bool)
    members = [
        [{subject for subject in range(3) if box >> subject & 1} for box in row] for row in boxes
    ]
    for b, q, kv in product(range(2), range(100), range(100)):
        own, other = members[b][q], members[b][kv]
        if own and other and own.isdisjoint(other):
            visible[b, q, kv] = False
    return Dense(visible.unsqueeze(1))


@dense
def seem_groups(data: Data) -> Dense:
    """As released: blocks opened by name, then rows and columns of padding closed."""
    sizes = {"objects": 25, "texts": 25, "places": 25, "text": 12, "place": 8, "memory": 6}
    stops = torch.tensor(list(sizes.values())).cumsum(0).tolist()
    spans = {
        name: slice(stop - size, stop)
        for (name, size), stop in zip(sizes.items(), stops, strict=True)
    }
    visible = torch.zeros(2, 101, 101, dtype=torch.bool)
    for reader, read in (
        ("objects", "objects"),
        ("texts", "texts text"),
        ("places", "places place memory"),
        ("text", "texts text"),
        ("place", "place"),
        ("memory", "memory"),
    ):
        for name in read.split():
            visible[:, spans[reader], spans[name]] = True
    for b, token in data["is_padding"].nonzero().tolist():
        visible[b, token] = visible[b, :, token] = False
    return Dense(visible.unsqueeze(1))


@dense
def tlm(data: Data) -> Dense:
    """As released: one row after the other, replaced where its token was drawn."""
    visible = data["kept"][:, None].repeat(1, 97, 1)
    everything, itself = torch.ones(97).bool(), torch.eye(97).bool()
    for b, q in (~data["kept"]).nonzero().tolist():
        visible[b, q] = itself[q] if data["alone"][b, q] else everything ^ itself[q]
    return Dense(visible.unsqueeze(1))
