"""Abstract interpretation: what a predicate can be on a box of indices."""

from attnc.intervals.boxes import Boxes, Products, Side
from attnc.intervals.facts import Facts
from attnc.intervals.truth import may_wrap, never_wraps, truth_of, truths_of
from attnc.intervals.values import Truth

__all__ = [
    "Boxes",
    "Facts",
    "Products",
    "Side",
    "Truth",
    "may_wrap",
    "never_wraps",
    "truth_of",
    "truths_of",
]
