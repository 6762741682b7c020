"""Values of expressions at positions of tiles, by evaluation."""

from __future__ import annotations

import numpy as np
import torch

from attnc.blocks.geometry import Geometry, Ints, Rectangles
from attnc.evaluate import evaluate
from attnc.intervals import Facts
from attnc.ir import Expr


def positions(tiles: Rectangles, geometry: Geometry) -> tuple[Ints, Ints]:
    """Queries (n_tiles, block_m) and keys (n_tiles, block_n) of tiles, in tokens.

    Beyond a length its last position is repeated.
    """
    rows, columns = np.arange(geometry.block_m), np.arange(geometry.block_n)
    q_idx = np.minimum(tiles.row[:, None] * geometry.block_m + rows, geometry.n_queries - 1)
    kv_idx = np.minimum(tiles.column[:, None] * geometry.block_n + columns, geometry.n_keys - 1)
    return q_idx, kv_idx


def evaluated(
    expr: Expr, group: Ints, q_idx: Ints, kv_idx: Ints, geometry: Geometry, facts: Facts
) -> torch.Tensor:
    """Value of ``expr`` on positions; on the CPU.

    ``group``: (n,), (batch, head) number of each line of ``q_idx`` and ``kv_idx`` along their first
    axis.
    """
    shape = np.broadcast_shapes(q_idx.shape, kv_idx.shape)
    b, h = np.divmod(group, geometry.n_heads)
    lines = (len(group),) + (1,) * (len(shape) - 1)
    # Numbers on the CPU go with tensors of any device.
    devices = (t.device for t in facts.tensors if t.dim() or t.device.type != "cpu")
    device = next(devices, torch.device("cpu"))
    coordinates = [
        torch.from_numpy(x.astype(np.int32)).to(device)
        for x in (b.reshape(lines), h.reshape(lines), q_idx, kv_idx)
    ]
    values = evaluate(
        expr,
        b=coordinates[0],
        h=coordinates[1],
        q_idx=coordinates[2],
        kv_idx=coordinates[3],
        tensors=facts.tensors,
        params=facts.params or (),
    )
    return values.expand(shape).cpu()
