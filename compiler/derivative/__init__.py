"""Derivatives of score_mods: of the score, and of every element of a captured tensor."""

from attnc.derivative.reverse import Derivative, Scatter, differentiate

__all__ = ["Derivative", "Scatter", "differentiate"]
