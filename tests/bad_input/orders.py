"""Calls of ``attnc.layout``."""

from __future__ import annotations

CALLS = {
    "layout.raster": "layout.raster(<grid:(4, 5)>)",
    "layout.tiled": "layout.tiled(<grid:(4, 6)>, tile=<2>, axes=<(0, 1)>, shift=<1>)",
    "layout.transposed": "layout.transposed(<grid:(4, 5)>, axes=<(1, 0)>)",
    "layout.dilated": "layout.dilated(<grid:(4, 6)>, dilation=<2>)",
    "layout.morton": "layout.morton(<grid:(4, 4)>)",
    "layout.sorted_by": "layout.sorted_by(<ids:IDS>, name=<'x'>)",
    "layout.from_order": "layout.from_order(<order:torch.arange(20)>, name=<'x'>)",
    "layout.search": (
        "layout.search(<mask:causal>, grid=<(4, 5)>, B=<1>, H=<1>, BLOCK_SIZE=<16>, "
        "candidates=<[ORDER]>)"
    ),
    "layout.mask": "ORDER.mask(<mask_mod:causal>)",
    "layout.score": "ORDER.score(<score_mod:decay>)",
    "layout.arrange": "ORDER.arrange(<x:Q>)",
    "layout.restore": "ORDER.restore(<x:Q>)",
}
