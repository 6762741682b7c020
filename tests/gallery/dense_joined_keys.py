"""Dense twins of joined keys: a matrix for each image, side by side."""

from __future__ import annotations

import torch
from gallery.harness import Data, Dense, dense


@dense
def max4zero(data: Data) -> Dense:
    """As released: extended rows inside the painted region, plain ones outside."""
    target = torch.ones(2, 81, 81, dtype=torch.bool)
    reference = torch.zeros(2, 81, 81, dtype=torch.bool)
    for rows, painted, garment in zip(reference, data["painted"], data["garment"], strict=True):
        rows[painted] = garment
    return Dense(torch.cat([target, reference], dim=2).unsqueeze(1))


@dense
def diffuhaul(data: Data) -> Dense:
    """Object by object, background included."""
    source = torch.zeros(2, 80, 80, dtype=torch.bool)
    for b, shown in enumerate(data["shown"]):
        for thing in range(4):
            there = data["shown_in_source"][b] == thing
            source[b] |= torch.outer(shown == thing, there)
    target = torch.ones(2, 80, 80, dtype=torch.bool)
    return Dense(torch.cat([target, source], dim=2).unsqueeze(1))


@dense
def dreamvideo_2(data: Data) -> Dense:
    """Logarithms of a mask whose boxes are cut out by slices, beside zeros for the frame itself."""
    blended = torch.full((3, 8, 8), 0.2, dtype=torch.float64)
    blended[0, 0:4, 0:3] = blended[1, 1:5, 3:6] = blended[2, 4:8, 4:7] = 1.0
    of_reference = blended.reshape(3, 1, 64, 1).log().expand(3, 1, 64, 36)
    bias = torch.cat([torch.zeros(3, 1, 64, 64, dtype=torch.float64), of_reference], dim=3)
    return Dense(score=lambda scores: scores + bias)


@dense
def ir_diffusion(data: Data) -> Dense:
    """Pairs of different subjects, one pair after the other, taken out of a matrix of ones."""
    visible = torch.ones(2, 80, 152, dtype=torch.bool)
    for b, subject in enumerate(data["subject"]):
        for own, other in ((1, 2), (2, 1)):
            queries = (subject[:80] == own).nonzero()
            visible[b, queries, (subject == other).nonzero().flatten()] = False
    return Dense(visible.unsqueeze(1))


@dense
def freecustom(data: Data) -> Dense:
    """As released: the mask as a number, minus infinity outside the concepts."""
    inside = data["keep"][64:]
    added = torch.zeros(192, dtype=torch.float64)
    added[64:] = torch.where(inside, 3.0, -torch.inf)
    return Dense((added > -torch.inf).expand(64, 192), lambda scores: scores + added)


@dense
def ouroboros(data: Data) -> Dense:
    """Frame by frame: the subject of its segment, then itself; the last segment is one frame."""
    visible = torch.zeros(2, 1, 140, 140, dtype=torch.bool)
    for segment in ([0, 1, 2], [3, 4, 5], [6]):
        others = slice(20 * segment[0], 20 * (segment[-1] + 1))
        for frame in segment:
            own = slice(20 * frame, 20 * (frame + 1))
            visible[:, 0, own, others] = data["is_subject"][:, None, others]
            visible[:, 0, own, own] = True
    return Dense(visible)
