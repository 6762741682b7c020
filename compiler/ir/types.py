"""Types, coordinates and operators of the intermediate representation."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class DType(Enum):
    """Type of a scalar value in a kernel."""

    BOOL = "bool"
    INT32 = "int32"
    INT64 = "int64"
    FLOAT32 = "float32"
    FLOAT64 = "float64"

    @property
    def is_float(self) -> bool:
        return self in (DType.FLOAT32, DType.FLOAT64)

    @property
    def is_int(self) -> bool:
        return self in (DType.INT32, DType.INT64)


class IndexName(Enum):
    """The four coordinates of a score."""

    B = "b"
    H = "h"
    Q = "q_idx"
    KV = "kv_idx"


class Level(Enum):
    """How often a value changes inside a tile: the innermost index it depends on.

    UNIFORM depends on ``b, h`` only, ROW on ``q_idx`` too, COLUMN on ``kv_idx`` too, DIAGONAL on
    ``q_idx - kv_idx`` too, ELEMENT on both or on the score.
    """

    UNIFORM = "uniform"
    ROW = "row"
    COLUMN = "column"
    DIAGONAL = "diagonal"
    ELEMENT = "element"

    def join(self, other: Level) -> Level:
        """The least level that holds values of both."""
        if self is other or other is Level.UNIFORM:
            return self
        return other if self is Level.UNIFORM else Level.ELEMENT


class UnaryOp(Enum):
    NEG = "-"
    NOT = "~"  # logical for bool, bitwise for integers
    ABS = "abs"
    EXP = "exp"
    EXP2 = "exp2"
    EXPM1 = "expm1"
    LOG = "log"
    LOG2 = "log2"
    LOG1P = "log1p"
    SQRT = "sqrt"
    RSQRT = "rsqrt"
    SIN = "sin"
    COS = "cos"
    TANH = "tanh"
    SIGMOID = "sigmoid"
    ERF = "erf"
    FLOOR = "floor"
    CEIL = "ceil"
    TRUNC = "trunc"
    ROUND = "round"  # to even, as torch.round
    ISNAN = "isnan"  # result is bool


class BinaryOp(Enum):
    """Operators of two operands of one dtype; the result has it too."""

    ADD = "+"
    SUB = "-"
    MUL = "*"
    DIV = "/"  # floats only
    FLOORDIV = "//"  # rounds towards minus infinity, as Python
    MOD = "%"  # sign of the divisor, as Python
    POW = "**"
    MIN = "min"  # NaN wins, as torch.minimum
    MAX = "max"
    AND = "&"  # logical for bool, bitwise for integers
    OR = "|"
    XOR = "^"
    SHL = "<<"
    SHR = ">>"  # arithmetic


class CompareOp(Enum):
    EQ = "=="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="


class ReduceOp(Enum):
    SUM = "sum"
    MAX = "max"
    MIN = "min"


class SlotType(NamedTuple):
    """What a kernel knows of a captured tensor: storage dtype and rank; sizes come at run time.

    ``storage`` is a torch dtype's short name, such as ``"bfloat16"``, ``"uint8"`` or ``"bool"``.
    """

    storage: str
    rank: int
