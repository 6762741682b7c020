"""Systems that cut images into windows that see themselves; what joins windows differs."""

from __future__ import annotations

from typing import Any

from attnc import library
from examples.systems.catalogue import Parts, normal, system

_DAVIT = "DaViT: Dual Attention Vision Transformers, arXiv:2204.03645"


@system("DaViT, spatial windows", source=_DAVIT, shape=(1, 2, 147, 147))
def davit() -> Parts:
    """Windows of 7 x 7 cells."""
    return Parts(library.windows((7, 21), 7))


@system(
    "DaViT, channel groups",
    source=_DAVIT,
    shape=(2, 1, 96, 96),
    from_memory="that groups of channels are told apart by a mask, not by heads",
)
def davit_channels() -> Parts:
    """Channels are the tokens, cells of the image their features; groups of channels see theirs."""
    return Parts(library.chunked(24))


@system(
    "Twins, local groups",
    source="Twins: Revisiting the Design of Spatial Attention in Vision Transformers, "
    "arXiv:2104.13840",
    shape=(1, 2, 150, 150),
)
def twins() -> Parts:
    """Windows; in every other layer all cells see a sub-sampled map, which needs no mask."""
    return Parts(library.windows((10, 15), 5))


@system(
    "LaMamba-Diff",
    source="LaMamba-Diff: Linear-Time High-Fidelity Diffusion Models Based on Local Attention and "
    "Mamba, arXiv:2408.02615",
    shape=(1, 2, 150, 150),
)
def lamamba_diff() -> Parts:
    """Windows, shifted in every other layer, with a learned table; a state-space model joins them."""
    grid, table = (10, 15), normal(2, 9, 9, seed=201)
    return Parts(
        library.windows(grid, 5, shift=2),
        library.relative_bias_2d(table, grid),
        {"table": table},
        learned=("table",),
    )


@system(
    "Efficient-VQGAN",
    source="Efficient-VQGAN: Towards High-Resolution Image Generation with Efficient Vision "
    "Transformers, arXiv:2310.05400",
    shape=(1, 2, 144, 153),
    from_memory="that all windows' means are keys beside the window's own cells",
)
def efficient_vqgan() -> Parts:
    """The cells of the own window, and one mean of each of the nine windows, the last keys."""
    n_cells, windows = 144, library.windows((12, 12), 4)

    def mean(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return kv_idx >= n_cells

    return Parts(windows | mean)


@system(
    "ARBEx",
    source="ARBEx: Attentive Feature Extraction with Reliability Balancing for Robust Facial "
    "Expression Learning, arXiv:2305.01486",
    shape=(2, 2, 126, 126),
)
def arbex() -> Parts:
    """Keys from the windows of an image; queries from landmarks, the same ones in each window."""
    grid, table = (14, 9), normal(2, 13, 5, seed=200)
    return Parts(
        library.windows(grid, (7, 3)),
        library.relative_bias_2d(table, grid),
        {"table": table},
        learned=("table",),
    )
