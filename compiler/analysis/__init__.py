"""What is known about a mask at given lengths, without running a kernel: ``attnc.analyze``."""

from attnc.analysis.analysis import Analysis, analyze
from attnc.analysis.names import captured_names
from attnc.analysis.picture import LEGEND, Picture
from attnc.analysis.tile import ValueRange
from attnc.analysis.why import Term, Why

__all__ = [
    "LEGEND",
    "Analysis",
    "Picture",
    "Term",
    "ValueRange",
    "Why",
    "analyze",
    "captured_names",
]
