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
        for let in () if part is None else part.at(Level.ELEMENT):
            elements.declare(let.name, let.expr)
        values.append("row[j]" if part is None else elements.value(part.result))
    elements.lines.append(result.format(*values))

    columns = Block(slots)
    arrays = arrays_at(elements.reads, Level.COLUMN)
    if arrays:
        for part in parts:
            for let in () if part is None else part.at(Level.COLUMN):
                columns.declare(let.name, let.expr)
    stores = [f"{array.name}_column[j] = {array.name};" for array in arrays]
    inputs = [
        f"const {CPP_TYPES[a.dtype]} {a.name} = {a.name}_column[j];"
        for a in refs_at(elements.reads, Level.COLUMN)
    ]
    if any(isinstance(leaf, Score) for leaf in elements.reads):
        inputs.append("const real score = row[j];")
    rows = [
        f"const {CPP_TYPES[a.dtype]} {a.name} = {a.name}_row[i];"
        for a in refs_at(elements.reads, Level.ROW)
    ]
    return LoopText(
        column_arrays=arrays,
        column_lines=(*kv_line(columns.reads), *columns.lines, *stores),
        row_lines=(*q_line(elements.reads), *rows),
        element_lines=(*kv_line(elements.reads), *inputs, *elements.lines),
        reads=frozenset(elements.reads | columns.reads),
    )


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
