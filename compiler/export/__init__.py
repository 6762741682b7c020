"""Modules that stand alone: an attention function's kernels without attnc."""

from __future__ import annotations

from attnc.checks import DTYPES
from attnc.export.module import Exported, export
from attnc.export.request import TARGETS, Request

__all__ = ["DTYPES", "TARGETS", "Exported", "Request", "export"]
