"""The tiles that a block mask lists, in place of those that a mask implies."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from attnc.errors import AnalysisArgumentError
from attnc.ir import TRUE, Expr
from attnc.mods import Mod
from attnc.run_table import RunTable


class Given(NamedTuple):
    """What a block mask says: ``table``, and ``mod`` inside PARTIAL tiles, or None for everything.

    Without a table it says what ``mod`` or, if that is None, ``expr`` implies.
    """

    table: RunTable | None
    mod: Mod | None
    expr: Expr


def given_by(mask: Any, shape: tuple[int, int, int, int], blocks: tuple[int, int]) -> Given | None:
    """What a block mask says for (B, H, n_queries, n_keys), in tiles of ``blocks``; None for
    anything else.

    Raises:
        AnalysisArgumentError: ``blocks`` do not divide those of the block mask.
        BlockMaskLengthError, BlockMaskShapeError: It was made for other lengths, batches or heads.
    """
    from attnc.block_mask.fixed import as_fixed

    n_batch, n_heads, n_queries, n_keys = shape
    one = torch.empty(1)
    q, k = (one.expand(n_batch, n_heads, length, 1) for length in (n_queries, n_keys))
    fixed = as_fixed(mask, q, k)
    if fixed is None:
        return None
    if fixed.expr is not None:
        return Given(None, None, fixed.expr)
    table = fixed.table
    if table is not None:
        if table.block_m % blocks[0] or table.block_n % blocks[1]:
            problem = f"it must divide the block mask's {table.block_m} x {table.block_n}"
            raise AnalysisArgumentError(name="BLOCK_SIZE", value=blocks, problem=problem)
        table = table.refine(*blocks)
    return Given(table, fixed.mod, TRUE)
