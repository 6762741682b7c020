"""Systems whose masks are windows and neighbourhoods of images and videos."""

from __future__ import annotations

from attnc import library
from examples.systems.catalogue import Parts, normal, system


@system(
    "Swin",
    source="Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, "
    "arXiv:2103.14030",
    shape=(1, 2, 144, 144),
)
def swin() -> Parts:
    table = normal(2, 7, 7, seed=3)
    return Parts(
        library.windows((12, 12), 4, shift=2),
        library.relative_bias_2d(table, (12, 12)),
        {"table": table},
        learned=("table",),
    )
