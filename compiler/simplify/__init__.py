"""Rewriting expressions into smaller ones of equal value."""

from attnc.simplify.rewrite import simplify

__all__ = ["simplify"]
