"""Which pairs of its tiles a CPU kernel computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from attnc.analysis.counts import n_pairs_by_kind
from attnc.evaluate import evaluate
from attnc.ir import Expr
from attnc.plan import Plan
from attnc.run_table import Kind, RunTable
from attnc.target import CpuTarget

Ints = NDArray[np.int64]

_MAX_SAMPLED = 256


class Pairs(NamedTuple):
    """Pairs of the visited tiles of a call, over all batches and heads.

    Attributes:
        full, partial: In FULL tiles and in PARTIAL ones, ragged tiles by their true size.
        live: Of the latter, those that the kernel computes: it leaves out columns that some rows
            next to each other do not see.
        spanned: The same where all rows of a tile take the columns that any of them takes.
        rows: Rows of PARTIAL tiles that the kernel computes, once for each tile.
    """

    full: float
    partial: float
    live: float
    spanned: float
    rows: float


def pairs_of(
    table: RunTable, mask: Expr, tensors: Sequence[torch.Tensor], plan: Plan, repeats: int
) -> Pairs:
    """Pairs in the tiles of ``table``, ``repeats`` times.

    ``mask`` is simplified, its constants in place. Where there are many PARTIAL tiles, the columns
    that they compute are those of a sample, evenly spread.
    """
    full, partial = n_pairs_by_kind(table)
    shares = _live_shares(table, *_sampled_tiles(table), mask, tensors, plan)
    computed = (partial * repeats * share for share in shares)
    return Pairs(float(full * repeats), float(partial * repeats), *computed)


def _sampled_tiles(table: RunTable) -> tuple[Ints, Ints]:
    """Rows and key blocks of at most ``_MAX_SAMPLED`` PARTIAL tiles, evenly spread."""
    runs = np.flatnonzero(table.kinds == Kind.PARTIAL)
    starts = table.starts[runs].astype(np.int64)
    ends = (table.stops[runs].astype(np.int64) - starts).cumsum()
    n_tiles = int(ends[-1]) if len(ends) else 0
    number = np.linspace(0, n_tiles - 1, min(n_tiles, _MAX_SAMPLED)).astype(np.int64)
    run = np.searchsorted(ends, number, "right")
    before = np.append(0, ends)[run]
    return table.run_rows()[runs[run]], starts[run] + number - before


def _live_shares(
    table: RunTable,
    row: Ints,
    column: Ints,
    mask: Expr,
    tensors: Sequence[torch.Tensor],
    plan: Plan,
) -> tuple[float, float, float]:
    """Of the pairs in some tiles: the shares that are computed, as in ``Pairs``, and the rows that
    are, per pair."""
    if not len(row):
        return 1.0, 1.0, 0.0
    group, q_block = np.divmod(row, table.n_q_blocks)
    b, h = np.divmod(group, table.n_heads)
    q_idx = q_block[:, None] * table.block_m + np.arange(table.block_m)
    kv_idx = column[:, None] * table.block_n + np.arange(table.block_n)

    def indices(values: Ints, *shape: int) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.int32)).reshape(shape)

    seen = evaluate(
        mask,
        b=indices(b, -1, 1, 1),
        h=indices(h, -1, 1, 1),
        q_idx=indices(np.minimum(q_idx, table.n_queries - 1), len(row), -1, 1),
        kv_idx=indices(np.minimum(kv_idx, table.n_keys - 1), len(row), 1, -1),
        tensors=[tensor.cpu() for tensor in tensors],
    ).expand(len(row), table.block_m, table.block_n)
    inside = (q_idx < table.n_queries)[:, :, None] & (kv_idx < table.n_keys)[:, None, :]
    visible = seen.numpy() & inside
    n_rows, n_columns = _granularity(plan)
    by_group = visible.reshape(len(row), table.block_m // n_rows, n_rows, -1, n_columns)
    groups: NDArray[np.bool_] = np.any(by_group, axis=(2, 4))
    first = groups.argmax(2)
    stop = groups.shape[2] - groups[:, :, ::-1].argmax(2)
    is_live: NDArray[np.bool_] = np.any(groups, axis=2)
    spans = np.where(is_live, stop - first, 0).sum() * n_rows * n_columns
    union: NDArray[np.bool_] = np.any(groups, axis=1)
    whole = union.shape[1] - union[:, ::-1].argmax(1) - union.argmax(1)
    heights = np.minimum(table.block_m, table.n_queries - q_block * table.block_m)
    wholes = (np.where(np.any(union, axis=1), whole, 0) * heights).sum() * n_columns
    n_pairs = inside.sum()
    rows = is_live.sum() * n_rows / n_pairs
    return float(min(spans / n_pairs, 1.0)), float(min(wholes / n_pairs, 1.0)), float(rows)


def _granularity(plan: Plan) -> tuple[int, int]:
    """Rows that share their columns, and how many columns are taken or left together."""
    target = plan.spec.target
    assert isinstance(target, CpuTarget)
    if plan.multiplies_pairs and target.isa == "amx":
        return 16, 32
    return 4, target.vector_bytes // (8 if plan.spec.dtype == "float64" else 4)
