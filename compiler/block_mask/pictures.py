"""Block masks as text, character for character as PyTorch draws them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attnc import checks
from attnc.errors import BlockMaskSizeError


def block_pictures(dense: NDArray[np.int32], grid_size: int | tuple[int, int], limit: int) -> str:
    """A picture per batch and head of visited blocks: dark, light where mixed, or blank.

    ``dense``: (..., n_q_blocks, n_kv_blocks), 1 where a block is visited. ``grid_size``: rows and
    columns at the most, -1 for all. ``limit``: pictures at the most.
    """
    n_rows, n_columns = dense.shape[-2:]
    given = checks.items(grid_size)
    sizes = [checks.whole_number(n) for n in ([grid_size] * 2 if given is None else given)]
    if len(sizes) != 2 or any(n is None or n < -1 or n == 0 for n in sizes):
        wanted = "a number above 0 or two of them, (rows, columns); -1 for all"
        raise BlockMaskSizeError(name="grid_size", size=grid_size, wanted=wanted)
    if checks.whole_number(limit) is None:
        raise BlockMaskSizeError(name="limit", size=limit, wanted="a number of pictures")
    rows, columns = (n or 1 for n in sizes)
    row_step, column_step = _step(n_rows, rows), _step(n_columns, columns)
    pictures = []
    for number, position in enumerate(np.ndindex(dense.shape[:-2])):
        if number == limit:
            pictures += [
                "...",
                "To print out more, set BlockMask.to_string(limit=N)",
                "You can also index (BlockMask[batch, head]) to choose a specific batch or head",
            ]
            break
        lines = [str(position)]
        for row in range(0, n_rows, row_step):
            shares = (
                float(dense[position][row : row + row_step, column : column + column_step].mean())
                for column in range(0, n_columns, column_step)
            )
            lines.append("".join(2 * {0.0: " ", 1.0: "█"}.get(share, "░") for share in shares))
        pictures.append("\n".join(lines) + "\n")
    return "\n".join(pictures)


def _step(n_blocks: int, most: int) -> int:
    """Blocks per character."""
    return max(1, -(-n_blocks // most))
