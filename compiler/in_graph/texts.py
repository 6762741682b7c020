"""What the arguments of the operator say: texts, numbers and tiles of a block mask."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from attnc import checks
from attnc.block_mask.arguments import check_lists
from attnc.block_mask.fixed import listed_mod
from attnc.block_mask.lists import table_of_lists
from attnc.block_mask.mask import LARGE_BLOCK
from attnc.errors import (
    BlockMaskLengthError,
    BlockMaskShapeError,
    GraphArgumentError,
    SymbolicNumberError,
)
from attnc.in_graph.check import require_well_formed, slots_of_tensors
from attnc.ir import TRUE, Const, DType, Expr, Param, SlotType, walk
from attnc.parser import parse_expr
from attnc.run_table import RunTable
from attnc.runtime.dispatch import TracedProgram
from attnc.storage import require_memory, resolved
from attnc.trace import SlotTable, trace_mask
from attnc.trace.slots import INT32_MAX, INT32_MIN
from attnc.trace.symbols import Symbol

#: Dtypes of the arrays of a ``RunTable``.
_OF_RUNS = (torch.int64, torch.int32, torch.int32, torch.int8)


def program_of(
    q: torch.Tensor,
    k: torch.Tensor,
    captured: Sequence[torch.Tensor],
    blocks: Sequence[torch.Tensor],
    mask: str,
    score: str,
    numbers: Sequence[int],
    block_geometry: Sequence[int],
) -> TracedProgram:
    """The program of a call of the operator; for its arguments see ``operators``.

    It may have more tensors than are captured: the tiles of a block mask that no kernel follows.
    """
    values = tuple(numbers)
    slots = SlotTable(q.device)
    float_dtype = DType.FLOAT64 if q.dtype is torch.float64 else DType.FLOAT32
    known = slots_of_tensors(captured)
    require_memory(**{f"captured tensor {n}": tensor for n, tensor in enumerate(captured)})
    slots.tensors += [resolved(tensor) for tensor in captured]
    slots.types += [SlotType(str(t.dtype).removeprefix("torch."), t.dim()) for t in captured]
    mask_expr, score_expr = expr_of(mask, values), expr_of(score, values)
    require_well_formed("mask", mask_expr, known, float_dtype)
    require_well_formed("score", score_expr, known, float_dtype)
    table = table_of(blocks, block_geometry, q, k) if block_geometry else None
    if table is not None and (table.block_m % 16 or table.block_n % 16):
        mask_expr, table = _as_mask(table, mask_expr, slots), None  # no kernel has such tiles
    return TracedProgram(mask_expr, score_expr, slots.tensors, slots.types, table)


@lru_cache(maxsize=4096)
def expr_of(text: str, numbers: tuple[int, ...]) -> Expr | None:
    """The expression with its numbers in place; None for no text."""
    if not text:
        return None
    expr = parse_expr(text)
    done: dict[Expr, Expr] = {}
    for node in walk(expr):
        if isinstance(node, Param):
            if node.number >= len(numbers):
                problem = f"has {len(numbers)} values, but a text reads p{node.number}"
                raise GraphArgumentError(operator="attention", argument="numbers", problem=problem)
            value = numbers[node.number]
            if not INT32_MIN <= value <= INT32_MAX:
                raise SymbolicNumberError(value=value)
            done[node] = Const(value, node.dtype)
        else:
            operands = tuple(done[child] for child in node.children)
            done[node] = node if operands == node.children else node.rebuild(operands)
    return done[expr]


def table_of(
    blocks: Sequence[torch.Tensor],
    geometry: Sequence[int],
    q: torch.Tensor,
    k: torch.Tensor,
) -> RunTable | None:
    """The tiles of a block mask, or None where the mask implies them; see ``operators``."""
    lengths = (q.shape[2], k.shape[2])
    _check_blocks(blocks, geometry)
    if len(geometry) == 4:
        n_queries, n_keys, *block = geometry
        if block == [LARGE_BLOCK, LARGE_BLOCK]:  # "no blocks": it fits any lengths
            n_queries, n_keys = lengths
        full = (blocks[2], blocks[3]) if len(blocks) == 4 else None
        table = table_of_lists(
            (blocks[0], blocks[1]), full, (n_queries, n_keys), (block[0], block[1])
        )
        _check_sizes((table.n_batch, table.n_heads, n_queries, n_keys), q, k)
        return table
    n_batch, n_heads, n_queries, n_keys, block_m, block_n = geometry
    _check_sizes((n_batch, n_heads, n_queries, n_keys), q, k)
    if not blocks:
        return None
    offsets, starts, stops, kinds = (
        tensor.cpu().to(dtype).numpy() for tensor, dtype in zip(blocks, _OF_RUNS, strict=True)
    )
    table = RunTable(
        offsets, starts, stops, kinds, n_batch, n_heads, n_queries, n_keys, block_m, block_n
    )
    _check_runs(table)
    return table


def _check_blocks(blocks: Sequence[torch.Tensor], geometry: Sequence[int]) -> None:
    """Raises GraphArgumentError unless there are as many numbers and tensors as it takes."""
    if len(geometry) not in (4, 6) or min(geometry) < 0 or min(geometry[-2:]) < 1:
        raise _wrong("block_geometry", f"is {list(geometry)}, no lengths and blocks")
    if len(blocks) not in ((2, 4) if len(geometry) == 4 else (0, 4)):
        raise _wrong("blocks", f"has {len(blocks)} tensors, which make no block mask")
    if len(geometry) == 4:
        check_lists(*blocks, *(None,) * (4 - len(blocks)))
    elif any(b.dim() != 1 or b.dtype not in checks.INTEGERS for b in blocks):
        raise _wrong("blocks", "are not one row of integers each")


def _check_runs(table: RunTable) -> None:
    """Raises GraphArgumentError unless every run of ``table`` is within the mask."""
    offsets, starts, stops, kinds = table.offsets, table.starts, table.stops, table.kinds
    n_rows = table.n_batch * table.n_heads * table.n_q_blocks
    n_runs = len(starts)
    are_whole = (
        len(offsets) == n_rows + 1
        and len(stops) == len(kinds) == n_runs
        and int(offsets[0]) == 0
        and int(offsets[-1]) == n_runs
        and bool((offsets[1:] >= offsets[:-1]).all())
    )
    if not are_whole:
        raise _wrong("blocks", "do not fit the lengths: a row of runs is missing")
    if n_runs and not (
        bool((starts >= 0).all() and (starts < stops).all() and (stops <= table.n_kv_blocks).all())
        and set(kinds.tolist()) <= {1, 2}
    ):
        raise _wrong("blocks", "hold a run that is not in the mask")


def _wrong(argument: str, problem: str) -> GraphArgumentError:
    return GraphArgumentError(operator="attention", argument=argument, problem=problem)


def _check_sizes(sizes: tuple[int, int, int, int], q: torch.Tensor, k: torch.Tensor) -> None:
    n_batch, n_heads, n_queries, n_keys = sizes
    lengths = (q.shape[2], k.shape[2])
    if (n_queries, n_keys) != lengths:
        raise BlockMaskLengthError(
            mask_q=n_queries, mask_kv=n_keys, n_queries=lengths[0], n_keys=lengths[1]
        )
    for axis, size, wanted in zip("BH", (n_batch, n_heads), q.shape[:2], strict=True):
        if size not in (1, wanted):
            raise BlockMaskShapeError(axis=axis, mask_size=size, size=wanted)


def _as_mask(table: RunTable, inside: Expr | None, slots: SlotTable) -> Expr:
    """The mask that says the same as a table and what holds inside its partial blocks."""

    def inside_mod(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return Symbol(b.context, TRUE if inside is None else inside, DType.BOOL)

    return trace_mask(listed_mod(table, inside_mod, slots.device), slots).expr
