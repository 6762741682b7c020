"""Dense twins of mixed orders: a causal matrix, opened block by block."""

from __future__ import annotations

import torch
from gallery.harness import Data, Dense, dense


def _causal(n: int) -> torch.Tensor:
    return torch.ones(n, n, dtype=torch.bool).tril()


@dense
def croc(data: Data) -> Dense:
    """Both images of both samples, by where they lie."""
    visible = _causal(130).repeat(2, 1, 1, 1)
    for sample, start, stop in ((0, 11, 51), (0, 60, 90), (1, 0, 64), (1, 94, 127)):
        visible[sample, :, start:stop, start:stop] = True
    return Dense(visible)


@dense
def univoice(data: Data) -> Dense:
    causal, full = _causal(100), torch.ones(100, 100, dtype=torch.bool)
    return Dense(torch.stack([causal, full, causal]).unsqueeze(1))


@dense
def moda(data: Data) -> Dense:
    """Tables as products with one-hot rows of kinds."""
    kind = torch.nn.functional.one_hot(data["kind"].long(), 3).float()
    allowed = torch.einsum("bqi,hij,bkj->bhqk", kind, data["reads"].float(), kind)
    return Dense(allowed.bool().tril())


@dense
def pine(data: Data) -> Dense:
    """Documents lie at 21, 51 and 76, the last one ends at 121."""
    visible = _causal(151)
    borders = [(21, 51), (51, 76), (76, 121)]
    for number, (start, stop) in enumerate(borders):
        for later_start, later_stop in borders[number + 1 :]:
            visible[start:stop, later_start:later_stop] = True
    return Dense(visible)


@dense
def dcal(data: Data) -> Dense:
    """Blocks of images, where the graph of partners has an edge or a loop."""
    images = torch.eye(4)
    images[torch.arange(4), data["partner"].long()] = 1
    return Dense(torch.kron(images, torch.ones(37, 37)).bool())
