"""Dense twins of regions tied to tokens: columns of maps, one for each object or speaker."""

from __future__ import annotations

import torch
from gallery.harness import Data, Dense, dense


@dense
def ale_edit(data: Data) -> Dense:
    """Maps of all objects, the first all ones, chosen by tokens."""
    maps = torch.stack([data["region"] == thing for thing in range(4)], dim=1)
    maps[:, 0] = True
    columns = [row[named.long()] for row, named in zip(maps, data["token_object"], strict=True)]
    return Dense(torch.stack(columns).mT.unsqueeze(1))


@dense
def bounded_attention_text(data: Data) -> Dense:
    """How many subjects a place and a token have in common, from their one-hot sets."""
    places, tokens = (
        torch.stack([(data[name] >> subject) % 2 for subject in range(3)], dim=-1).float()
        for name in ("boxes", "subjects")
    )
    in_common = places @ tokens.mT
    in_common[(tokens.sum(-1) == 0)[:, None].expand_as(in_common)] = 1.0
    return Dense((in_common > 0.5).unsqueeze(1))


@dense
def primecomposer(data: Data) -> Dense:
    """Regions cut out by slices, as columns of the subject's tokens."""
    region = torch.zeros(2, 11, 11, dtype=torch.bool)
    for image, shape, (top, left, bottom, right) in zip(
        region, data["shape"], data["box"].tolist(), strict=True
    ):
        image[top:bottom, left:right] = shape[: bottom - top, : right - left]
    visible = torch.ones(2, 121, 77, dtype=torch.bool)
    for b, token in data["is_subject"].nonzero().tolist():
        visible[b, :, token] = region[b].flatten()
    return Dense(visible.unsqueeze(1))


@dense
def magicinfinite(data: Data) -> Dense:
    """The areas of two speakers, repeated over frames and over their tokens."""
    areas = [(data["area"] == speaker).flatten(1) for speaker in (1, 2)]
    columns = [area.repeat(1, 4)[..., None].expand(2, 144, 30) for area in areas]
    return Dense(torch.cat(columns, dim=2).unsqueeze(1))
