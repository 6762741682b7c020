"""The intermediate representation: typed scalar expressions over attention indices.

Nodes are frozen and interned: two expressions with equal structure are one object, so ``is``
and ``hash`` are the structural comparison. A node never holds a tensor; a captured tensor is a
numbered *slot*, and the tensors travel beside the expression (see ``trace``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

_T = TypeVar("_T")
_nodes: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()


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

    UNIFORM depends on ``b, h`` only, ROW on ``q_idx`` too, COLUMN on ``kv_idx`` too,
    ELEMENT on both or on the score.
    """

    UNIFORM = "uniform"
    ROW = "row"
    COLUMN = "column"
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


class _Interned(type):
    """Makes a class return its existing instance when built again with equal fields."""

    def __call__(cls: type[_T], *args: Any) -> _T:
        # Constants are keyed by repr: 1 == 1.0 == True and 0.0 == -0.0, but they differ here.
        key = (cls, repr(args[0]), args[1]) if cls is Const else (cls, args)
        node = _nodes.get(key)
        if node is None:
            made = cast(Any, super()).__call__(*args)
            object.__setattr__(made, "_dtype", made.dtype)
            node = _nodes.setdefault(key, made)
        return cast(_T, node)


class _Typed:
    """Holds the dtype once known, so that asking for it does not descend to the leaves."""

    __slots__ = ("_dtype",)
    _dtype: DType


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Expr(_Typed, metaclass=_Interned):
    """A scalar value; see the subclasses."""

    @property
    def dtype(self) -> DType:
        raise NotImplementedError

    @property
    def children(self) -> tuple[Expr, ...]:
        """Operands, in order."""
        return tuple(f for f in self.parts() if isinstance(f, Expr))

    def parts(self) -> tuple[Any, ...]:
        """All fields, flat: the identity of the node."""
        raise NotImplementedError

    def rebuild(self, children: tuple[Expr, ...]) -> Expr:
        """The same node over other operands."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickle through the constructor, so that a loaded node is interned again.
        return (type(self), tuple(getattr(self, name) for name in self.__dataclass_fields__))


class Leaf(Expr):
    """An expression without operands."""

    __slots__ = ()

    def rebuild(self, children: tuple[Expr, ...]) -> Expr:
        assert not children
        return self


@dataclass(frozen=True, eq=False, slots=True)
class Index(Leaf):
    """One of the four coordinates, int32."""

    name: IndexName

    @property
    def dtype(self) -> DType:
        return DType.INT32

    def parts(self) -> tuple[Any, ...]:
        return (self.name,)


@dataclass(frozen=True, eq=False, slots=True)
class Score(Leaf):
    """The scaled score q . k * scale, in the dtype of accumulation."""

    float_dtype: DType

    @property
    def dtype(self) -> DType:
        return self.float_dtype

    def parts(self) -> tuple[Any, ...]:
        return (self.float_dtype,)


@dataclass(frozen=True, eq=False, slots=True)
class Const(Leaf):
    """A number known when the kernel is planned; ``value`` has the Python type of the dtype."""

    value: bool | int | float
    value_dtype: DType

    @property
    def dtype(self) -> DType:
        return self.value_dtype

    def parts(self) -> tuple[Any, ...]:
        return (self.value, self.value_dtype)


@dataclass(frozen=True, eq=False, slots=True)
class Param(Leaf):
    """A constant lifted to a run-time argument of the kernel (see ``lift``)."""

    number: int
    value_dtype: DType

    @property
    def dtype(self) -> DType:
        return self.value_dtype

    def parts(self) -> tuple[Any, ...]:
        return (self.number, self.value_dtype)


@dataclass(frozen=True, eq=False, slots=True)
class RowIndex(Leaf):
    """The variable of the enclosing ``Reduce`` with the same number, int32."""

    number: int

    @property
    def dtype(self) -> DType:
        return DType.INT32

    def parts(self) -> tuple[Any, ...]:
        return (self.number,)


@dataclass(frozen=True, eq=False, slots=True)
class Ref(Leaf):
    """A value that a ``Schedule`` computed earlier, by name (see ``schedule``)."""

    name: str
    value_dtype: DType
    level: Level

    @property
    def dtype(self) -> DType:
        return self.value_dtype

    def parts(self) -> tuple[Any, ...]:
        return (self.name, self.value_dtype, self.level)


@dataclass(frozen=True, eq=False, slots=True)
class Unary(Expr):
    """``op(x)``; the result has the dtype of ``x``, except for ISNAN (bool)."""

    op: UnaryOp
    x: Expr

    @property
    def dtype(self) -> DType:
        return DType.BOOL if self.op is UnaryOp.ISNAN else self.x._dtype

    def parts(self) -> tuple[Any, ...]:
        return (self.op, self.x)

    def rebuild(self, children: tuple[Expr, ...]) -> Expr:
        return Unary(self.op, *children)


@dataclass(frozen=True, eq=False, slots=True)
class Binary(Expr):
    """``lhs op rhs``; both operands have the same dtype."""

    op: BinaryOp
    lhs: Expr
    rhs: Expr

    @property
    def dtype(self) -> DType:
        return self.lhs._dtype

    def parts(self) -> tuple[Any, ...]:
        return (self.op, self.lhs, self.rhs)

    def rebuild(self, children: tuple[Expr, ...]) -> Expr:
        return Binary(self.op, *children)


@dataclass(frozen=True, eq=False, slots=True)
class Compare(Expr):
    """``lhs op rhs``; both operands have the same dtype, the result is bool."""

    op: CompareOp
    lhs: Expr
    rhs: Expr

    @property
    def dtype(self) -> DType:
        return DType.BOOL

    def parts(self) -> tuple[Any, ...]:
        return (self.op, self.lhs, self.rhs)

    def rebuild(self, children: tuple[Expr, ...]) -> Expr:
        return Compare(self.op, *children)


@dataclass(frozen=True, eq=False, slots=True)
class Select(Expr):
    """``if_true`` where ``cond`` (bool) holds, else ``if_false``; both have the same dtype."""

    cond: Expr
    if_true: Expr
    if_false: Expr

    @property
    def dtype(self) -> DType:
        return self.if_true._dtype

    def parts(self) -> tuple[Any, ...]:
        return (self.cond, self.if_true, self.if_false)

    def rebuild(self, children: tuple[Expr, ...]) -> Expr:
        return Select(*children)


@dataclass(frozen=True, eq=False, slots=True)
class Cast(Expr):
    """``x`` converted: floats to integers towards zero, numbers to bool by ``!= 0``."""

    x: Expr
    to: DType

    @property
    def dtype(self) -> DType:
        return self.to

    def parts(self) -> tuple[Any, ...]:
        return (self.x, self.to)

    def rebuild(self, children: tuple[Expr, ...]) -> Expr:
        (x,) = children
        return Cast(x, self.to)


@dataclass(frozen=True, eq=False, slots=True)
class Gather(Expr):
    """Element of captured tensor number ``slot`` at ``indices`` (one per dimension, integers).

    A negative index counts from the end, as in PyTorch; what is then still out of range is
    clamped into it, so that masked positions never load out of bounds. ``load_dtype`` is the
    dtype of the loaded value: float16 and bfloat16 tensors load as float32, narrow integers as
    int32.
    """

    slot: int
    indices: tuple[Expr, ...]
    load_dtype: DType

    @property
    def dtype(self) -> DType:
        return self.load_dtype

    def parts(self) -> tuple[Any, ...]:
        return (self.slot, self.load_dtype, *self.indices)

    def rebuild(self, children: tuple[Expr, ...]) -> Expr:
        return Gather(self.slot, children, self.load_dtype)


@dataclass(frozen=True, eq=False, slots=True)
class Reduce(Expr):
    """``body`` reduced over ``RowIndex(number)`` from 0 to ``extent - 1``, in that order."""

    op: ReduceOp
    number: int
    extent: int
    body: Expr

    @property
    def dtype(self) -> DType:
        return self.body._dtype

    def parts(self) -> tuple[Any, ...]:
        return (self.op, self.number, self.extent, self.body)

    def rebuild(self, children: tuple[Expr, ...]) -> Expr:
        return Reduce(self.op, self.number, self.extent, *children)


B_IDX = Index(IndexName.B)
H_IDX = Index(IndexName.H)
Q_IDX = Index(IndexName.Q)
KV_IDX = Index(IndexName.KV)
TRUE = Const(True, DType.BOOL)
FALSE = Const(False, DType.BOOL)


@dataclass(frozen=True)
class SlotType:
    """What a kernel knows of a captured tensor: storage dtype and rank; sizes come at run time.

    ``storage`` is a torch dtype's short name, such as ``"bfloat16"``, ``"uint8"`` or ``"bool"``.
    """

    storage: str
    rank: int


def walk(*roots: Expr) -> Iterator[Expr]:
    """Every node once, operands before users; no recursion, so depth is not limited."""
    seen: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            yield node
            continue
        if node in seen:
            continue
        seen.add(node)
        stack.append((node, True))
        stack.extend((child, False) for child in reversed(node.children) if child not in seen)


def level_of(expr: Expr) -> Level:
    """How often ``expr`` changes inside a tile."""
    level = Level.UNIFORM
    for node in walk(expr):
        match node:
            case Index(IndexName.Q):
                level = level.join(Level.ROW)
            case Index(IndexName.KV):
                level = level.join(Level.COLUMN)
            case Score():
                level = Level.ELEMENT
            case Ref(_, _, ref_level):
                level = level.join(ref_level)
    return level


def indices_of(expr: Expr) -> frozenset[IndexName]:
    """The coordinates that ``expr`` reads."""
    return frozenset(node.name for node in walk(expr) if isinstance(node, Index))


def slots_of(*exprs: Expr) -> tuple[int, ...]:
    """Numbers of the captured tensors that the expressions read, ascending."""
    return tuple(sorted({node.slot for node in walk(*exprs) if isinstance(node, Gather)}))


def reads_score(expr: Expr) -> bool:
    """Whether ``expr`` depends on the score."""
    return any(isinstance(node, Score) for node in walk(expr))


def canonical_text(*roots: Expr | None) -> str:
    """One line per distinct node, operands by line number: equal texts mean equal expressions.

    Linear in the number of nodes, however often they are shared; used in cache keys.
    """
    present = [root for root in roots if root is not None]
    numbers: dict[Expr, int] = {}
    lines = []
    for node in walk(*present):
        numbers[node] = len(numbers)
        fields = (
            f"#{numbers[part]}" if isinstance(part, Expr) else _field_text(part)
            for part in node.parts()
        )
        lines.append(f"{type(node).__name__} {' '.join(fields)}")
    ends = " ".join("-" if root is None else f"#{numbers[root]}" for root in roots)
    return "\n".join([*lines, ends])


def _field_text(part: Any) -> str:
    return str(part.name) if isinstance(part, Enum) else repr(part)
