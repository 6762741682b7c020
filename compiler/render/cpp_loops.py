"""C++ loops over the scores of a tile: what each schedule computes, and where."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace

from attnc.gathers import tile_of
from attnc.ir import DType, Expr, Gather, Index, IndexName, Level, Ref, Score, level_of, walk
from attnc.plan import Spec
from attnc.render.cpp_expressions import CPP_TYPES, STORAGE_TYPES, Block, placed
from attnc.schedule import Let, Schedule


@dataclass(frozen=True)
class Array:
    """A value kept per row or column: its name and the C++ type of an element."""

    name: str
    element: str


@dataclass(frozen=True)
class ValueText:
    """A value: what is declared before, and its text."""

    lines: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class IndexText:
    """One index of a run: its value at column ``j``, factor of kv_idx, and the tensor's size."""

    value: ValueText
    slope: int
    size: str


@dataclass(frozen=True)
class TileText:
    """Where all pairs of a tile find their elements: strides and sizes of the two dimensions that
    q_idx and kv_idx are an index of, and the offset that the others make."""

    uniform: ValueText
    q_stride: str
    q_size: str
    kv_stride: str
    kv_size: str


@dataclass(frozen=True)
class PlaceText:
    """Where the pairs of a row find their elements of a captured tensor, as offsets into it.

    Attributes:
        row: What is the same in the row.
        rest: What comes to it at column ``j``, of C++ type ``offset``.
        run: Of a run: the indices that change, else none.
        step: Of a run: from one column to the next.
        tile: Of a run: where its tile may be transposed, else None.
    """

    row: ValueText
    rest: ValueText
    offset: str
    run: tuple[IndexText, ...]
    step: str
    tile: TileText | None


@dataclass(frozen=True)
class ReadText:
    """Elements of a captured tensor, read for all columns of a row before they are used."""

    name: str
    element: str
    tensor: str
    storage: str
    place: PlaceText


@dataclass(frozen=True)
class LoopText:
    """A loop over the scores of a tile: what it fills per column, and its body.

    ``reads`` are made in their order, once per row.
    """

    column_arrays: tuple[Array, ...]
    column_lines: tuple[str, ...]
    diagonal_arrays: tuple[Array, ...]
    diagonal_lines: tuple[str, ...]
    row_lines: tuple[str, ...]
    reads: tuple[ReadText, ...]
    element_lines: tuple[str, ...]
    leaves: frozenset[Expr]


def loop_text(spec: Spec, parts: Sequence[Schedule | None], result: str) -> LoopText:
    """A loop that puts the values of ``parts``, or the plain score for None, into ``result``."""
    elements = Elements(spec, parts)
    values = [
        "row[j]" if part is None else elements.block.value(part.result) for part in elements.parts
    ]
    elements.block.lines.append(result.format(*values))
    return elements.loop()


class Elements:
    """The scope of a loop's body, and what is computed before it at other levels."""

    def __init__(self, spec: Spec, parts: Sequence[Schedule | None]) -> None:
        self.spec = spec
        self.parts = parts
        self.lets = [let for part in parts if part is not None for let in part.at(Level.ELEMENT)]
        self.read_names = {let.name for let in self.lets if isinstance(let.expr, Gather)}
        self.block = Block(spec.slots)
        self.leaves: set[Expr] = set()  # of blocks that are done
        self.reads: list[ReadText] = []
        for let in self.lets:
            if isinstance(let.expr, Gather):
                self.reads.append(self._read(let, let.expr))
            else:
                self.block.declare(let.name, let.expr)

    def loop(self) -> LoopText:
        """The loop, with what has been written to ``block`` as its body."""
        spec, parts = self.spec, self.parts
        element_lines = self._lines(self.block)
        diagonals = Block(spec.slots)
        diagonal_arrays = arrays_at(self.leaves, Level.DIAGONAL)
        if diagonal_arrays:
            _declare(diagonals, parts, Level.DIAGONAL)
        columns = Block(spec.slots)
        column_arrays = arrays_at(self.leaves | diagonals.reads, Level.COLUMN)
        if column_arrays:
            _declare(columns, parts, Level.COLUMN)
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
            row_lines=(*q_line(self.leaves), *_inputs(self.leaves, Level.ROW)),
            reads=tuple(self.reads),
            element_lines=element_lines,
            leaves=frozenset(self.leaves | columns.reads | diagonals.reads),
        )

    def place(
        self,
        slot: int,
        indices: Sequence[Expr],
        strides: Sequence[str],
        run: tuple[int, ...] | None,
    ) -> PlaceText:
        """Where ``indices``, which are leaves or per element, lie in a tensor of these strides."""
        wide = self.spec.wide_index
        sizes = [f"t{slot}_size{n}" for n in range(len(indices))]
        in_row = [level_of(index) in (Level.UNIFORM, Level.ROW) for index in indices]
        row, rest = (
            self._value(
                [index for index, is_row in zip(indices, in_row, strict=True) if is_row is wanted],
                [
                    placed("{}", size, stride, wide or wanted)
                    for size, stride, is_row in zip(sizes, strides, in_row, strict=True)
                    if is_row is wanted
                ],
            )
            for wanted in (True, False)
        )
        changing = [n for n, slope in enumerate(run or ()) if slope]
        return PlaceText(
            row=row,
            rest=rest,
            offset="int64_t" if wide else "int32_t",
            run=tuple(
                IndexText(self._value([indices[n]], ["{}"]), run[n], sizes[n])
                for n in changing
                if run
            ),
            step=" + ".join(f"{run[n]} * ({strides[n]})" for n in changing if run),
            tile=self._tile(indices, sizes, strides),
        )

    def _tile(
        self, indices: Sequence[Expr], sizes: Sequence[str], strides: Sequence[str]
    ) -> TileText | None:
        # Rows of few queries may belong to several heads.
        found = None if self.spec.short_queries else tile_of(indices)
        if found is None:
            return None
        q_at, kv_at = found
        others = [n for n in range(len(indices)) if n not in found]
        places = [placed("{}", sizes[n], strides[n], wide=True) for n in others]
        return TileText(
            uniform=self._value([indices[n] for n in others], places),
            q_stride=strides[q_at],
            q_size=sizes[q_at],
            kv_stride=strides[kv_at],
            kv_size=sizes[kv_at],
        )

    def _value(self, exprs: Sequence[Expr], terms: Sequence[str]) -> ValueText:
        """The sum of ``terms``, each with the value of an expression in the place of ``{}``."""
        block = Block(self.spec.slots)
        for let in _needed(self.lets, exprs):
            block.declare(let.name, let.expr)
        values = [block.value(expr) for expr in exprs]
        text = " + ".join(term.format(x) for term, x in zip(terms, values, strict=True))
        return ValueText(self._lines(block), text or "0")

    def _read(self, let: Let, gather: Gather) -> ReadText:
        tensor = f"t{gather.slot}"
        strides = [f"{tensor}_stride{n}" for n in range(len(gather.indices))]
        self.leaves.add(gather)
        place = self.place(gather.slot, gather.indices, strides, let.run)
        if gather.dtype is not self.spec.float_dtype:  # tiles are transposed as vectors of reals
            place = replace(place, tile=None)
        return ReadText(
            name=let.name,
            element=_element_type(gather.dtype),
            tensor=tensor,
            storage=STORAGE_TYPES[self.spec.slots[gather.slot].storage],
            place=place,
        )

    def _lines(self, block: Block) -> tuple[str, ...]:
        """The lines of ``block``, with declarations of what they read per column."""
        reads = block.reads
        self.leaves |= reads
        inputs = [*_inputs(reads, Level.COLUMN), *_inputs(reads, Level.DIAGONAL)]
        for ref in refs_at(reads, Level.ELEMENT):
            if ref.name in self.read_names:
                inputs.append(f"const {CPP_TYPES[ref.dtype]} {ref.name} = {ref.name}_values[j];")
        if any(isinstance(leaf, Score) for leaf in reads):
            inputs.append("const real score = row[j];")
        return (*kv_line(reads), *inputs, *block.lines)


def _needed(lets: Sequence[Let], exprs: Sequence[Expr]) -> list[Let]:
    """Those of ``lets`` that ``exprs`` are computed from, without what has been read ahead."""
    known = {let.name: let for let in lets if not isinstance(let.expr, Gather)}
    needed: set[str] = set()
    pending = list(exprs)
    while pending:
        for node in walk(pending.pop()):
            if isinstance(node, Ref) and node.name in known and node.name not in needed:
                needed.add(node.name)
                pending.append(known[node.name].expr)
    return [let for let in lets if let.name in needed]


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
        f"const {_element_type(a.dtype)} {a.name} = {a.name}_{_PLACES[level]};"
        for a in refs_at(reads, level)
    ]


def _stores(arrays: Sequence[Array], place: str) -> list[str]:
    return [f"{array.name}_{place} = {array.name};" for array in arrays]


def refs_at(reads: set[Expr] | frozenset[Expr], level: Level) -> list[Ref]:
    refs = [leaf for leaf in reads if isinstance(leaf, Ref) and leaf.level is level]
    return sorted(refs, key=_place_of)


def _place_of(ref: Ref) -> tuple[str, int]:
    """The prefix and the number that ``schedule`` made its name of."""
    prefix = ref.name.rstrip(string.digits)
    return prefix, int(ref.name[len(prefix) :])


def arrays_at(reads: set[Expr] | frozenset[Expr], level: Level) -> tuple[Array, ...]:
    return tuple(Array(ref.name, _element_type(ref.dtype)) for ref in refs_at(reads, level))


def _element_type(dtype: DType) -> str:
    # Truth values are kept as wide as the numbers they are used with: loops over both stay vectors.
    return "int32_t" if dtype is DType.BOOL else CPP_TYPES[dtype]


def q_line(reads: set[Expr]) -> list[str]:
    is_read = Index(IndexName.Q) in reads
    return ["const int32_t q_idx = (int32_t)item.q_start + (i - first_row);"] if is_read else []


def kv_line(reads: set[Expr]) -> list[str]:
    is_read = Index(IndexName.KV) in reads
    return ["const int32_t kv_idx = (int32_t)kv_block * BLOCK_N + j;"] if is_read else []
