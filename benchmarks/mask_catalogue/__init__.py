"""Masks of published systems at the lengths they run at: what ``benchmarks.analysis`` asks about.

Each entry restates the pattern of one paper. A *static* one is known from its numbers alone, small
tables per head or batch included; the others depend on captured data for each token.
"""

from benchmarks.mask_catalogue.data import data_masks
from benchmarks.mask_catalogue.entry import Entry
from benchmarks.mask_catalogue.grids import grid_masks
from benchmarks.mask_catalogue.text import text_masks

__all__ = ["Entry", "all_masks"]


def all_masks() -> list[Entry]:
    return [*text_masks(), *grid_masks(), *data_masks()]
