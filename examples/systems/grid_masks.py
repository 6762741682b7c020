"""Systems whose masks are windows and neighbourhoods of images and videos."""

from __future__ import annotations

from typing import Any

import torch

from attnc import library
from examples.systems.catalogue import Parts, normal, system


@system(
    "Swin",
    source="Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, "
    "arXiv:2103.14030",
    shape=(1, 2, 144, 144),
)
def swin() -> Parts:
    """Windows, shifted in every other layer, and a learned table of relative positions."""
    table = normal(2, 7, 7, seed=3)
    return Parts(
        library.windows((12, 12), 4, shift=2),
        library.relative_bias_2d(table, (12, 12)),
        {"table": table},
        learned=("table",),
    )


@system(
    "Audio-MAE, shifted windows of the decoder",
    source="Masked Autoencoders that Listen, arXiv:2207.06405",
    shape=(1, 2, 160, 160),
)
def audio_mae() -> Parts:
    """Local windows of a spectrogram, shifted along time in every other layer."""
    return Parts(library.windows((20, 8), 4, shift=(2, 0)))


@system(
    "DITO, shifted-window learning",
    source="Detection-Oriented Image-Text Pretraining for Open-Vocabulary Detection, "
    "arXiv:2310.00161",
    shape=(1, 2, 144, 144),
    from_memory="that windows join what the roll brings together",
)
def dito() -> Parts:
    """Windows of a map that is rolled by half a window, without a mask at the seams."""
    rows, columns, size, shift = 12, 12, 4, 2

    def window(i: Any) -> tuple[Any, Any]:
        row, column = (i // columns - shift) % rows, (i % columns - shift) % columns
        return row // size, column // size

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        (q_row, q_column), (kv_row, kv_column) = window(q_idx), window(kv_idx)
        return (q_row == kv_row) & (q_column == kv_column)

    return Parts(mask)


_ZITS = (
    "Incremental Transformer Structure Enhanced Image Inpainting with Masking Positional Encoding, "
    "arXiv:2203.00867"
)


def _relative_bias_along(axis: int, grid: tuple[int, int], table: torch.Tensor) -> Any:
    """Adds ``table[h, distance]`` for distances along an axis; the middle is distance 0."""
    columns, length = grid[1], grid[axis]

    def score(s: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        if axis == 0:
            return s + table[h, kv_idx // columns - q_idx // columns + length - 1]
        return s + table[h, kv_idx % columns - q_idx % columns + length - 1]

    return score


@system("ZITS, rows", source=_ZITS, shape=(1, 2, 108, 108))
def zits_rows() -> Parts:
    """Each cell sees its own row, with a learned bias; added to the output for columns."""
    grid, table = (9, 12), normal(2, 23, seed=4)
    score = _relative_bias_along(1, grid, table)
    return Parts(library.axial(grid, 1), score, {"table": table}, learned=("table",))


@system("ZITS, columns", source=_ZITS, shape=(1, 2, 108, 108))
def zits_columns() -> Parts:
    """Each cell sees its own column, with a learned bias; added to the output for rows."""
    grid, table = (9, 12), normal(2, 17, seed=5)
    score = _relative_bias_along(0, grid, table)
    return Parts(library.axial(grid, 0), score, {"table": table}, learned=("table",))


_FNA = (
    "Faster Neighborhood Attention: Reducing the O(n^2) Cost of Self Attention at the "
    "Threadblock Level, arXiv:2403.04690"
)


@system("FNA, dilated", source=_FNA, shape=(1, 2, 130, 130))
def fna() -> Parts:
    """The nearest 3 x 3 cells of an image among those two apart; windows move inwards at borders."""
    return Parts(library.neighborhood((10, 13), 3, dilation=2))


@system("FNA, causal along one axis", source=_FNA, shape=(1, 2, 140, 140))
def fna_causal() -> Parts:
    """Frames up to the own one, and a neighbourhood within them."""
    return Parts(library.neighborhood((5, 4, 7), (3, 3, 5), is_causal=(True, False, False)))


@system(
    "GNA",
    source="Generalized Neighborhood Attention: Multi-dimensional Sparse Attention at the Speed of "
    "Light, arXiv:2504.16922",
    shape=(1, 2, 144, 144),
)
def gna() -> Parts:
    """A neighbourhood of a video whose windows move by strides: cells share that of a leader."""
    return Parts(library.neighborhood((4, 6, 6), (3, 4, 3), stride=(1, 2, 1)))


@system(
    "FreeSwim",
    source="FreeSwim: Revisiting Sliding-Window Attention Mechanisms for Training-Free "
    "Ultra-High-Resolution Video Generation",
    shape=(1, 2, 96, 96),
)
def freeswim() -> Parts:
    """All frames, in each a window that keeps its size: at borders it moves inwards."""
    n_frames, rows, columns = 2, 6, 8
    return Parts(library.neighborhood((n_frames, rows, columns), (n_frames, 3, 5)))


@system(
    "VWFormer",
    source="Multi-Scale Representations by Varying Window Attention for Semantic Segmentation, "
    "arXiv:2404.16573",
    shape=(1, 2, 144, 144),
    from_memory="that windows move inwards at borders; pooling of the context to the number of "
    "queries is left out, it happens to K and V before attention",
)
def vwformer() -> Parts:
    """Query windows of 4 x 4 cells see a context window of 8 x 8 around them."""
    return Parts(library.neighborhood((12, 12), 8, stride=4))


@system(
    "CLEAR",
    source="CLEAR: Conv-Like Linearization Revs Pre-Trained Diffusion Transformers Up, "
    "arXiv:2412.16112",
    shape=(1, 2, 149, 149),
)
def clear() -> Parts:
    """Cells within a circle around the own one; text, which comes first, sees all and is seen."""
    n_text, columns, radius = 17, 12, 4

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        dy = (q_idx - n_text) // columns - (kv_idx - n_text) // columns
        dx = (q_idx - n_text) % columns - (kv_idx - n_text) % columns
        return (q_idx < n_text) | (kv_idx < n_text) | (dy * dy + dx * dx < radius * radius)

    return Parts(mask)


@system(
    "Inf-DiT",
    source="Inf-DiT: Upsampling Any-Resolution Image with Memory-Efficient Diffusion Transformer, "
    "arXiv:2405.04312",
    shape=(1, 2, 135, 135),
)
def inf_dit() -> Parts:
    """Blocks of 3 x 3 cells see themselves and the blocks left, above, and left above."""
    columns, block = 15, 3

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        down = q_idx // columns // block - kv_idx // columns // block
        right = q_idx % columns // block - kv_idx % columns // block
        return (down >= 0) & (down <= 1) & (right >= 0) & (right <= 1)

    return Parts(mask)


@system(
    "RASM",
    source="Regional Attention for Shadow Removal, arXiv:2411.14201",
    shape=(1, 2, 143, 143),
    from_memory="that no table of relative places is added, as some versions of NATTEN do",
)
def rasm() -> Parts:
    """Every second place around each, in shadow or not: where it is, is a channel of the input."""
    return Parts(library.neighborhood((11, 13), 5, dilation=2))
