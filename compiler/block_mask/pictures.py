"""Block masks as text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def block_pictures(dense: NDArray[np.int32], grid_size: int | tuple[int, int], limit: int) -> str:
    """A picture per batch and head of visited blocks: dark, light where mixed, or blank.

    ``dense``: (..., n_q_blocks, n_kv_blocks), 1 where a block is visited. ``grid_size``: rows and
    columns at the most, -1 for all. ``limit``: pictures at the most.
    """
    n_rows, n_columns = dense.shape[-2:]
    rows, columns = (grid_size, grid_size) if isinstance(grid_size, int) else grid_size
    row_step = 1 if rows == -1 else max(1, -(-n_rows // max(1, rows)))
    column_step = 1 if columns == -1 else max(1, -(-n_columns // max(1, columns)))
    positions = list(np.ndindex(dense.shape[:-2]))
    pictures = []
    for position in positions[:limit]:
        lines = [str(position)] if position else []
        for row in range(0, n_rows, row_step):
            shares = (
                float(dense[position][row : row + row_step, column : column + column_step].mean())
                for column in range(0, n_columns, column_step)
            )
            lines.append("".join(2 * {0.0: " ", 1.0: "█"}.get(share, "░") for share in shares))
        pictures.append("\n".join(lines))
    if len(positions) > limit:
        n_more = len(positions) - limit
        pictures.append(f"... {n_more} more: to_string(limit=N), or index the mask by [b, h]")
    return "\n".join(pictures)
