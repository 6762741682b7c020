"""How large a call may be whose tiles are counted, drawn and told the cost of."""

from __future__ import annotations

from attnc.errors import InspectionOptionError
from attnc.ir import Expr, IndexName, indices_of

#: Seconds, and a GiB of memory.
MOST_ROWS = 1 << 19


def require_few_rows(
    shape: tuple[int, int, int, int, int], mask: Expr | None, block_m: int
) -> None:
    """Raises unless the rows of tiles of a mask are few enough to be classified in seconds.

    Args:
        shape: (B, H, n_queries, n_keys, head_dim).
        mask: The predicate, or None; batches and heads that it tells apart have rows of their own.
        block_m: Queries per tile.

    Raises:
        InspectionOptionError: They are more than ``MOST_ROWS``.
    """
    n_batch, n_heads, n_queries, _, _ = shape
    read = frozenset() if mask is None else indices_of(mask)
    n_copies = (n_batch if IndexName.B in read else 1) * (n_heads if IndexName.H in read else 1)
    n_rows = n_copies * -(-n_queries // block_m)
    if n_rows <= MOST_ROWS:
        return
    of_each = f" of each of {n_copies:,} batches and heads" if n_copies > 1 else ""
    most = MOST_ROWS // n_copies * block_m
    smaller = f"{most:,} queries" if most else f"{MOST_ROWS:,} batches and heads"
    problem = (
        f"its {n_queries:,} queries{of_each} are {n_rows:,} rows of tiles of {block_m} queries, but "
        f"tiles are counted and drawn for {MOST_ROWS:,} rows at the most. Take a smaller shape, of "
        f"{smaller} at the most; the stages math, plan and cpp, and kernels, are for any length."
    )
    raise InspectionOptionError(option="shape", value=shape, problem=problem)
