"""Tracing: from a Python function to an expression, by running it once on symbols."""

from attnc.trace.location import Location
from attnc.trace.slots import SlotTable
from attnc.trace.traced import Traced, trace_mask, trace_score

__all__ = ["Location", "SlotTable", "Traced", "trace_mask", "trace_score"]
