"""The nodes of the intermediate representation.

Nodes are frozen and interned: two expressions with equal structure are one object, so ``is``
and ``hash`` are the structural comparison. A node never holds a tensor; a captured tensor is a
numbered *slot*, and the tensors travel beside the expression (see ``trace``).
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

from attnc.ir.types import BinaryOp, CompareOp, DType, IndexName, Level, ReduceOp, UnaryOp

_T = TypeVar("_T")
_nodes: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()
_lock = threading.RLock()  # collecting garbage may make nodes, in the same thread


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


class _Interned(type):
    """Makes a class return its existing instance when built again with equal fields."""

    def __call__(cls: type[_T], *args: Any) -> _T:
        # Constants are keyed by repr: 1 == 1.0 == True and 0.0 == -0.0, but they differ here.
        key = (cls, repr(args[0]), args[1]) if cls is Const else (cls, args)
        node = _nodes.get(key)
        if node is None:
            made = cast(Any, super()).__call__(*args)
            object.__setattr__(made, "_dtype", made.dtype)
            with _lock:  # else two threads that ask at once get one each
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
