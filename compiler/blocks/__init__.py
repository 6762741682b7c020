"""Classes of the tiles of a mask, without visiting all tiles."""

from attnc.blocks.split import Classification, classify
from attnc.blocks.geometry import Geometry

__all__ = ["Classification", "Geometry", "classify"]
