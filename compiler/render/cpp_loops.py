"""C++ loops over the scores of a tile: what each schedule computes, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnc.ir import DType, Expr, Index, IndexName, Level, Ref, Score, SlotType
from attnc.render.cpp_expressions import CPP_TYPES, Block
from attnc.schedule import Schedule


@dataclass(frozen=True)
class Array:
    """A value kept per row or column: its name and the C++ type of an element."""

    name: str
    element: str


@dataclass(frozen=True)
class LoopText:
    """A loop over the scores of a tile: what it fills per column, and its body."""

    column_arrays: tuple[Array, ...]
    column_lines: tuple[str, ...]
    diagonal_arrays: tuple[Array, ...]
    diagonal_lines: tuple[str, ...]
    row_lines: tuple[str, ...]
    element_lines: tuple[str, ...]
    reads: frozenset[Expr]


def loop_text(
    slots: tuple[SlotType, ...], parts: Sequence[Schedule | None], result: str
) -> LoopText:
    """A loop that puts the values of ``parts``, or the plain score for None, into ``result``."""
    elements = Block(slots)
    values = []
    for part in parts:
        _declare(elements, [part], Level.ELEMENT)
        values.append("row[j]" if part is None else elements.value(part.result))
    elements.lines.append(result.format(*values))

    diagonals = Block(slots)
    diagonal_arrays = arrays_at(elements.reads, Level.DIAGONAL)
    if diagonal_arrays:
        _declare(diagonals, parts, Level.DIAGONAL)
    columns = Block(slots)
    column_arrays = arrays_at(elements.reads | diagonals.reads, Level.COLUMN)
    if column_arrays:
        _declare(columns, parts, Level.COLUMN)

    inputs = [*_inputs(elements.reads, Level.COLUMN), *_inputs(elements.reads, Level.DIAGONAL)]
    if any(isinstance(leaf, Score) for leaf in elements.reads):
        inputs.append("const real score = row[j];")
    return LoopText(
        column_arrays=column_arrays,
        column_lines=(
            *kv_line(columns.reads),
            *columns.lines,
            *_stores(column_arrays, "column[j]"),
        ),
        diagonal_arrays=diagonal_arrays,
        diagonal_lines=(
            *q_line(diagonals.reads),
            *kv_line(diagonals.reads),
            *_inputs(diagonals.reads, Level.ROW),
            *_inputs(diagonals.reads, Level.COLUMN),
            *diagonals.lines,
            *_stores(diagonal_arrays, "diagonal[n]"),
        ),
        row_lines=(*q_line(elements.reads), *_inputs(elements.reads, Level.ROW)),
        element_lines=(*kv_line(elements.reads), *inputs, *elements.lines),
        reads=frozenset(elements.reads | columns.reads | diagonals.reads),
    )


# Where an array of each level has the value for row i and column j.
_PLACES = {
    Level.ROW: "row[i]",
    Level.COLUMN: "column[j]",
    Level.DIAGONAL: "diagonal[BLOCK_M - 1 - i + j]",
}


def _declare(block: Block, parts: Sequence[Schedule | None], level: Level) -> None:
    for part in parts:
        for let in () if part is None else part.at(level):
            block.declare(let.name, let.expr)


def _inputs(reads: set[Expr], level: Level) -> list[str]:
    return [
        f"const {CPP_TYPES[a.dtype]} {a.name} = {a.name}_{_PLACES[level]};"
        for a in refs_at(reads, level)
    ]


def _stores(arrays: Sequence[Array], place: str) -> list[str]:
    return [f"{array.name}_{place} = {array.name};" for array in arrays]


def refs_at(reads: set[Expr] | frozenset[Expr], level: Level) -> list[Ref]:
    refs = [leaf for leaf in reads if isinstance(leaf, Ref) and leaf.level is level]
    return sorted(refs, key=lambda ref: (ref.name[0], int(ref.name[1:])))


def arrays_at(reads: set[Expr] | frozenset[Expr], level: Level) -> tuple[Array, ...]:
    # Truth values are kept as wide as the numbers they are used with: loops over both stay vectors.
    return tuple(
        Array(ref.name, "int32_t" if ref.dtype is DType.BOOL else CPP_TYPES[ref.dtype])
        for ref in refs_at(reads, level)
    )


def q_line(reads: set[Expr]) -> list[str]:
    is_read = Index(IndexName.Q) in reads
    return ["const int32_t q_idx = (int32_t)item.q_start + (i - first_row);"] if is_read else []


def kv_line(reads: set[Expr]) -> list[str]:
    is_read = Index(IndexName.KV) in reads
    return ["const int32_t kv_idx = (int32_t)kv_block * BLOCK_N + j;"] if is_read else []
