"""Dense twins of masks by head: a matrix for each, put together one head after the other."""

from __future__ import annotations

import torch
from gallery.harness import Data, Dense, dense


@dense
def mw_mae(data: Data) -> Dense:
    """Blocks along the diagonal; one of the whole length for a head that sees all."""
    heads = [
        torch.block_diag(*[torch.ones(size, size)] * (125 // size)) for size in (2, 5, 25, 125)
    ]
    # 125 is odd: the last token is a window of its own for windows of two.
    heads[0] = torch.block_diag(heads[0], torch.ones(1, 1))
    return Dense(torch.stack(heads).bool())


@dense
def moa(data: Data) -> Dense:
    """Bands from two triangles, and first columns."""
    causal = torch.ones(150, 150).tril()
    heads = []
    for left, n_sinks in ((82, 1), (33, 4), (40, 2), (31, 16)):
        band = causal - torch.ones(150, 150).tril(-left - 1)
        band[:, :n_sinks] = causal[:, :n_sinks]
        heads.append(band)
    return Dense(torch.stack(heads).bool())


@dense
def sasa(data: Data) -> Dense:
    """The third head: scene by scene, all pairs of its words."""
    visible = torch.ones(2, 4, 90, 90, dtype=torch.bool)
    for b, scenes in enumerate(data["scenes"].tolist()):
        visible[b, 2] = torch.eye(90)
        for scene in range(4):
            words = torch.tensor([i for i, of in enumerate(scenes) if of >> scene & 1])
            visible[b, 2, words[:, None], words] = True
    return Dense(visible)


@dense
def pattern_injection(data: Data) -> Dense:
    visible = torch.ones(2, 4, 93, 93, dtype=torch.bool)
    word, sentence = (
        torch.nn.functional.one_hot(data[name].long()).float() for name in ("word", "sentence")
    )
    visible[:, 0] = (word @ word.mT).bool()
    visible[:, 1] = (sentence @ sentence.mT).bool()
    beside = torch.ones(92)
    visible[:, 2] = (torch.eye(93) + beside.diag(1) + beside.diag(-1)).bool()
    return Dense(visible)


@dense
def s2_attention(data: Data) -> Dense:
    """Columns of blocks are switched on from the one each head starts with."""
    layout = torch.zeros(4, 32, 32)
    for head in range(4):
        layout[head, :, 3 - head :: 4] = 1
        layout[head] += torch.eye(32) + torch.ones(31).diag(-1)
    blocks = torch.kron(layout, torch.ones(4, 4))
    return Dense(blocks.tril().bool())


@dense
def sparse_videogen(data: Data) -> Dense:
    """A spatial and a temporal matrix of the video, a frame of text around both."""
    ones = torch.ones(144, 144)
    spatial = ones.triu(-47).tril(47)
    temporal = torch.ones(24, 24).triu(-7).tril(7).repeat(6, 6)
    heads = torch.stack([spatial, temporal, temporal, spatial])
    return Dense(torch.nn.functional.pad(heads, (19, 0, 19, 0), value=1.0).bool())
