"""Comparing loop bounds in closed form with the elements of every tile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from attnc.bounds import ClosedForm
from attnc.evaluate import evaluate
from attnc.ir import Expr
from attnc.run_table import Kind


def visible_of(
    mask: Expr,
    params: Sequence[int | float],
    tensors: Sequence[torch.Tensor],
    lengths: tuple[int, int],
    b: int,
    h: int,
) -> NDArray[np.bool_]:
    n_queries, n_keys = lengths
    values = evaluate(
        mask,
        b=b,
        h=h,
        q_idx=torch.arange(n_queries).view(-1, 1),
        kv_idx=torch.arange(n_keys),
        tensors=tensors,
        params=params,
    )
    return values.expand(n_queries, n_keys).numpy()


def check_tiles(
    form: ClosedForm,
    mask: Expr,
    lengths: tuple[int, int],
    params: Sequence[int | float],
    tensors: Sequence[torch.Tensor],
    *,
    exact_empty: bool,
    exact_full: bool,
) -> None:
    """Asserts that the tiles of every row are what the bounds say.

    ``exact_empty``: no EMPTY tile is visited; ``exact_full``: every FULL one is called FULL; both
    but for a ragged last key block.
    """
    n_queries, n_keys = lengths
    n_kv_blocks = -(-n_keys // form.block_n)
    for b, h in [(0, 0), (1, 1), (2, 0)]:
        visible = visible_of(mask, params, tensors, lengths, b, h)
        at = {"b": b, "h": h, "q_idx": 0, "kv_idx": 0, "tensors": tensors, "params": params}
        uniforms = {name: int(evaluate(e, **at)) for name, e in form.uniforms.items()}
        for q_block in range(-(-n_queries // form.block_m)):
            kinds = np.zeros(n_kv_blocks, np.int8)
            last = 0
            for start, stop, kind in form.evaluate(q_block, *lengths, params, uniforms):
                assert last <= start < stop <= n_kv_blocks
                kinds[start:stop], last = kind, stop
            rows = visible[q_block * form.block_m : (q_block + 1) * form.block_m]
            for block, kind in enumerate(kinds):
                tile = rows[:, block * form.block_n : (block + 1) * form.block_n]
                assert kind != Kind.EMPTY or not tile.any()
                assert kind != Kind.FULL or tile.all()
                if (block + 1) * form.block_n > n_keys:
                    continue
                assert not exact_empty or (kind == Kind.EMPTY) == (not tile.any())
                assert not exact_full or (kind == Kind.FULL) == tile.all()
