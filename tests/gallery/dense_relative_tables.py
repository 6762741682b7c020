"""Dense twins of relative tables: shifts of padded matrices, rolled tables, one-hot products."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from gallery.harness import Data, Dense, dense


@dense
def mvpa(data: Data) -> Dense:
    """Axes of times and channels; each step back in time and each channel is written at once."""
    visible = torch.ones(12, 12).tril().repeat_interleave(11, 0).repeat_interleave(11, 1).bool()
    near = torch.ones(12, 12).triu(-3).repeat_interleave(11, 0).repeat_interleave(11, 1)

    def placed(scores: torch.Tensor) -> torch.Tensor:
        of_time = data["of_time"].reshape(2, 12, 11, 12)
        of_channel = data["of_channel"].reshape(2, 12, 11, 21)
        bias = scores.new_zeros(2, 12, 11, 12, 11)
        for time in range(12):
            steps = of_time[:, time].flip(-1)[..., 11 - time :]  # keys at times 0 to ``time``
            bias[:, time, :, : time + 1] += steps[..., None]
        for channel in range(11):
            across = of_channel[:, :, channel].flip(-1)[..., 10 - channel : 21 - channel]
            bias[:, :, channel] += across[:, :, None, :]
        return scores * near + bias.reshape(2, 132, 132)

    return Dense(visible, placed)


@dense
def rcmha(data: Data) -> Dense:
    """Transformer-XL's shift: pad a column, read the rows one element later."""

    def shifted(x: torch.Tensor) -> torch.Tensor:
        padded = F.pad(x, (1, 0))
        return padded.reshape(*x.shape[:2], 102, 101)[:, :, 1:]

    def placed(scores: torch.Tensor) -> torch.Tensor:
        # Transformer-XL orders distances from the longest to 0.
        by_distance = (data["of_query"] + data["of_distance"][:, None]).flip(-1)
        return scores + shifted(by_distance) + data["of_key"][:, :, None]

    return Dense(torch.ones(101, 101).tril().bool(), placed)


@dense
def spin_wave_functions(data: Data) -> Dense:
    """The table, rolled to the place of each query."""
    places = [(y, x) for y in range(10) for x in range(10)]
    rolled = [data["table"].roll(place, dims=(1, 2)).flatten(1) for place in places]
    weights = torch.stack(rolled, dim=1)
    return Dense(None, lambda scores: weights.expand_as(scores))


@dense
def transnext(data: Data) -> Dense:
    """Nine shifted images of cell numbers, the pooled keys beside them."""
    numbers = F.pad(torch.arange(120).reshape(10, 12), (1, 1, 1, 1), value=-1)
    visible = torch.ones(120, 132, dtype=torch.bool)
    visible[:, :120] = False
    near = data["of_offset"].new_zeros(2, 120, 120)
    for y in range(3):
        for x in range(3):
            seen = numbers[y : y + 10, x : x + 12].flatten()
            queries = (seen >= 0).nonzero().flatten()
            visible[queries, seen[queries]] = True
            near[:, queries, seen[queries]] = data["of_offset"][:, y, x, None]
    bias = torch.cat([near, data["of_pooled"]], dim=-1)
    heat = torch.log(1 + torch.exp(data["heat"])).reshape(2, 1, 1)
    length = visible.sum(-1, keepdim=True).double().log()
    return Dense(visible, lambda scores: scores * heat * length + bias)
