"""Abstract interpretation: what a predicate can be on a box of indices."""

from attnc.intervals.truth import (
    Boxes,
    Facts,
    Truth,
    may_wrap,
    never_wraps,
    truth_of,
    truths_of,
)

__all__ = ["Boxes", "Facts", "Truth", "may_wrap", "never_wraps", "truth_of", "truths_of"]
