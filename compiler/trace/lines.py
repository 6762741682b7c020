"""Expressions as lines of text, which a graph carries as a constant, read back.

``GraphTracer`` writes them: a line for each value, by the names of its fields, and at the end the
name of the value that is meant.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from attnc.ir import (
    Binary,
    BinaryOp,
    Cast,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    Gather,
    Index,
    IndexName,
    Param,
    Reduce,
    ReduceOp,
    RowIndex,
    Score,
    Select,
    Unary,
    UnaryOp,
)
from attnc.printer import format_expr


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # PyTorch's
def shown_lines(text: str) -> str:
    """The expression of ``read_lines`` for a message; dynamo calls this instead of tracing it."""
    return format_expr(read_lines(text), max_length=100)


def read_lines(text: str) -> Expr:
    """The expression that ``GraphTracer.text`` wrote."""
    *lines, last = text.split("\n")
    nodes: dict[str, Expr] = {}
    for number, line in enumerate(lines):
        nodes[f"x{number}"] = _read(line.split(" "), nodes)
    return nodes[last]


def _read(fields: list[str], nodes: Mapping[str, Expr]) -> Expr:
    def operands(first: int) -> tuple[Expr, ...]:
        return tuple(nodes[name] for name in fields[first:])

    match fields[0]:
        case "Binary":
            return Binary(BinaryOp[fields[1]], *operands(2))
        case "Compare":
            return Compare(CompareOp[fields[1]], *operands(2))
        case "Index":
            return Index(IndexName[fields[1]])
        case "Const":
            return _constant(DType[fields[1]], fields[2])
        case "Gather":
            return Gather(int(fields[2]), operands(3), DType[fields[1]])
        case "Unary":
            return Unary(UnaryOp[fields[1]], *operands(2))
        case "Select":
            return Select(*operands(1))
        case "Cast":
            return Cast(nodes[fields[2]], DType[fields[1]])
        case "Score":
            return Score(DType[fields[1]])
        case "Param":
            return Param(int(fields[2]), DType[fields[1]])
        case "RowIndex":
            return RowIndex(int(fields[1]))
        case "Reduce":
            return Reduce(ReduceOp[fields[1]], int(fields[2]), int(fields[3]), *operands(4))
    raise AssertionError(fields)


def _constant(dtype: DType, text: str) -> Const:
    if dtype is DType.BOOL:
        return Const(text == "True", dtype)
    return Const(float(text) if dtype.is_float else int(text), dtype)
