"""What Triton calls dtypes, shapes, operators and constants."""

from __future__ import annotations

import math

from attnc.ir import BinaryOp, DType, Level, ReduceOp, UnaryOp

_TYPES = {DType.BOOL: "tl.int1"}
SHAPES = {
    Level.UNIFORM: "()",
    Level.ROW: "(BLOCK_M, 1)",
    Level.COLUMN: "(1, BLOCK_N)",
    Level.ELEMENT: "(BLOCK_M, BLOCK_N)",
}
TRANSPOSED_SHAPES = {
    Level.UNIFORM: "()",
    Level.ROW: "(1, KEYS_M)",
    Level.COLUMN: "(KEYS_N, 1)",
    Level.ELEMENT: "(KEYS_N, KEYS_M)",
}
BITS = {DType.INT32: 32, DType.INT64: 64}

UNARY_CALLS = {
    UnaryOp.ABS: "tl.abs",
    UnaryOp.EXP: "tl.exp",
    UnaryOp.EXP2: "tl.exp2",
    UnaryOp.LOG: "tl.log",
    UnaryOp.LOG2: "tl.log2",
    UnaryOp.SIN: "tl.sin",
    UnaryOp.COS: "tl.cos",
    UnaryOp.ERF: "tl.erf",
    UnaryOp.FLOOR: "tl.floor",
    UnaryOp.CEIL: "tl.ceil",
}
# With a twin for float64: series are longer there, and sqrt and division have other names.
UNARY_FUNCTIONS = {
    UnaryOp.EXPM1: "expm1",
    UnaryOp.LOG1P: "log1p",
    UnaryOp.TANH: "tanh",
    UnaryOp.SQRT: "square_root",
    UnaryOp.RSQRT: "reciprocal_root",
    UnaryOp.SIGMOID: "logistic",
}
INFIX = {
    BinaryOp.ADD: "+",
    BinaryOp.SUB: "-",
    BinaryOp.MUL: "*",
    BinaryOp.AND: "&",
    BinaryOp.OR: "|",
    BinaryOp.XOR: "^",
}
BOOL_INFIX = {
    BinaryOp.ADD: "|",
    BinaryOp.MAX: "|",
    BinaryOp.MUL: "&",
    BinaryOp.MIN: "&",
    BinaryOp.AND: "&",
    BinaryOp.OR: "|",
    BinaryOp.XOR: "^",
}
REDUCE = {
    ReduceOp.SUM: BinaryOp.ADD,
    ReduceOp.MAX: BinaryOp.MAX,
    ReduceOp.MIN: BinaryOp.MIN,
}


def type_name(dtype: DType) -> str:
    """Triton's name of ``dtype``."""
    return _TYPES.get(dtype, f"tl.{dtype.value}")


def neutral(op: ReduceOp, dtype: DType) -> int | float:
    """What a reduction starts with."""
    if op is ReduceOp.SUM:
        return 0.0 if dtype.is_float else 0
    if dtype.is_float:
        return -math.inf if op is ReduceOp.MAX else math.inf
    half = 1 << (BITS[dtype] - 1)
    return -half if op is ReduceOp.MAX else half - 1


def literal(value: bool | float) -> str:
    """Python's spelling of a constant."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def bare(text: str) -> str:
    """``text`` without parentheses around the whole of it."""
    if not (text.startswith("(") and text.endswith(")")):
        return text
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and place < len(text) - 1:
            return text
    return text[1:-1]
