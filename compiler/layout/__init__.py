"""Orders of tokens: the same attention in fewer tiles.

>>> from attnc import layout, library
>>> found = layout.search(library.windows((64, 64), 8), grid=(64, 64))
>>> found.best.name
'tiles of 8 x 8'

``attnc.attention(q, k, v, mask=..., layout=found.best)`` then permutes q, k and v, asks the mask
about the tokens that stand at each place, and puts the output back into the tokens' own order.
"""

from attnc.layout.order import Layout, from_order
from attnc.layout.orders import dilated, morton, raster, sorted_by, tiled, transposed
from attnc.layout.search import Candidate, Search, search

__all__ = [
    "Candidate",
    "Layout",
    "Search",
    "dilated",
    "from_order",
    "morton",
    "raster",
    "search",
    "sorted_by",
    "tiled",
    "transposed",
]
