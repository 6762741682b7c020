"""``attnc show``: the picture of a mask."""

from __future__ import annotations

import shutil

import torch

from attnc.analysis import LEGEND
from attnc.cli.console import write
from attnc.cli.options import of_user_code, parsed_shape
from attnc.cli.target import load_target
from attnc.errors import OptionValueError
from attnc.evaluate import evaluate
from attnc.ir import TRUE
from attnc.stages import Inspection

_MAX_ELEMENTS = 64
_LABEL_WIDTH = 8
_SCREEN = (80, 44)  # columns and lines, where output goes to no terminal
_OTHER_LINES = 5  # title, scale, legend, counts, and the prompt after them
_LEAST = 8


def run(
    target: str | None,
    expression: str | None,
    shape: str,
    block: int,
    batch: int,
    head: int,
    tile: str | None,
) -> None:
    """Prints the tiles of one batch and head, or the pairs of a small mask; or why one tile is
    of its class, for ``tile`` "q_block,kv_block"."""
    sizes = parsed_shape(shape)
    for option, value, size in (("--batch", batch, sizes[0]), ("--head", head, sizes[1])):
        if not 0 <= value < size:
            problem = f"--shape {shape} has {size}; use 0 to {size - 1}."
            raise OptionValueError(option=option, value=value, problem=problem)
    if block < 1:
        raise OptionValueError(option="--block", value=block, problem="use 1 or more.")
    mod = load_target(target, expression)
    inspection = of_user_code(
        target or "--expr", lambda: Inspection.of(mod, shape=sizes, target="cpu-generic")
    )
    if tile is not None:
        _show_why(inspection, block, batch, head, tile)
    elif max(sizes[2:4]) <= _MAX_ELEMENTS and inspection.table is None:
        _show_pairs(inspection, batch, head)
    else:
        _show_tiles(inspection, block, batch, head)


def _show_why(inspection: Inspection, block: int, batch: int, head: int, tile: str) -> None:
    try:
        q_block, kv_block = (int(part) for part in tile.split(","))
    except ValueError:
        problem = "write the numbers of a tile, row and column from 0, as in 3,2."
        raise OptionValueError(option="--why", value=tile, problem=problem) from None
    write(str(inspection.analysis(block).why(q_block, kv_block, batch, head)))


def _show_tiles(inspection: Inspection, block: int, batch: int, head: int) -> None:
    analysis = inspection.analysis(block)
    table = analysis.table
    screen = shutil.get_terminal_size(_SCREEN)
    width, height = screen.columns - _LABEL_WIDTH, screen.lines - _OTHER_LINES
    picture = analysis.drawn(max(width, _LEAST), max(height, _LEAST), batch, head)
    write(f"{table.n_queries} queries x {table.n_keys} keys in tiles of {block} x {block}")
    for number, line in enumerate(picture.lines):
        write(f"{number * picture.row_step * block:>{_LABEL_WIDTH - 1}} {line}")
    if picture.scale:
        write(picture.scale)
    write(LEGEND)
    whole = f" of {table.n_tiles:,} tiles, {analysis.flops_saved:.1%} of the work saved"
    write(
        f"{analysis.n_full:,} full, {analysis.n_partial:,} partial, {analysis.n_empty:,} empty"
        + whole
    )


def _show_pairs(inspection: Inspection, batch: int, head: int) -> None:
    _, _, n_queries, n_keys, _ = inspection.shape
    mask = inspection.program.mask
    visible = evaluate(
        TRUE if mask is None else mask,
        b=torch.tensor(batch, dtype=torch.int32),
        h=torch.tensor(head, dtype=torch.int32),
        q_idx=torch.arange(n_queries, dtype=torch.int32)[:, None],
        kv_idx=torch.arange(n_keys, dtype=torch.int32),
        tensors=inspection.program.tensors,
    ).expand(n_queries, n_keys)
    for q_idx, row in enumerate(visible.tolist()):
        write(f"{q_idx:>3} " + "".join("██" if seen else "··" for seen in row))
    write(f"{int(visible.sum())} of {visible.numel()} pairs are visible")
