"""One self-contained HTML page about a kernel: its mask, every stage, what it costs."""

from attnc.report.page import page_of, write

__all__ = ["page_of", "write"]
