"""Block masks: the tiles of a mask, known ahead of the call; a drop-in for PyTorch's."""

from attnc.block_mask.builders import create_block_mask, create_mask
from attnc.block_mask.mask import BlockMask

__all__ = ["BlockMask", "create_block_mask", "create_mask"]
