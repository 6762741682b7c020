"""Classes of the tiles of a mask, without visiting all tiles."""

from attnc.blocks.geometry import Geometry
from attnc.blocks.split import Classification, classify

__all__ = ["Classification", "Geometry", "classify"]
