"""IR expressions as C++ text: what ``evaluate`` defines, in the operators of ``math.cpp.jinja``.

Units are compiled with ``-fwrapv``, so that ``+ - *`` of integers wrap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

import numpy as np

from attnc.ir import (
    Binary,
    BinaryOp,
    Cast,
    Compare,
    Const,
    DType,
    Expr,
    Gather,
    Index,
    Leaf,
    Param,
    Reduce,
    ReduceOp,
    Ref,
    RowIndex,
    Score,
    Select,
    SlotType,
    Unary,
    UnaryOp,
)

CPP_TYPES: Mapping[DType, str] = {
    DType.BOOL: "bool",
    DType.INT32: "int32_t",
    DType.INT64: "int64_t",
    DType.FLOAT32: "float",
    DType.FLOAT64: "double",
}

STORAGE_TYPES: Mapping[str, str] = {
    "bool": "uint8_t",
    "uint8": "uint8_t",
    "int8": "int8_t",
    "uint16": "uint16_t",
    "int16": "int16_t",
    "uint32": "uint32_t",
    "int32": "int32_t",
    "uint64": "uint64_t",
    "int64": "int64_t",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "float32": "float",
    "float64": "double",
}

_MAX_TEXT = 64  # longer operands get a name, so that lines stay readable and nesting shallow

_INFIX = frozenset(
    {
        BinaryOp.ADD,
        BinaryOp.SUB,
        BinaryOp.MUL,
        BinaryOp.DIV,
        BinaryOp.AND,
        BinaryOp.OR,
        BinaryOp.XOR,
    }
)
_CALLED = {
    BinaryOp.FLOORDIV: "floor_div",
    BinaryOp.MOD: "mod",
    BinaryOp.POW: "pow",
    BinaryOp.MIN: "min",
    BinaryOp.MAX: "max",
    BinaryOp.SHL: "shl",
    BinaryOp.SHR: "shr",
}
_LEAST = {DType.INT32: "INT32_MIN", DType.INT64: "INT64_MIN", DType.BOOL: "false"}
_GREATEST = {DType.INT32: "INT32_MAX", DType.INT64: "INT64_MAX", DType.BOOL: "true"}


@dataclass
class Block:
    """Statements of one C++ scope, and the leaves that they read.

    Attributes:
        slots: Storage of every captured tensor.
        reads: The leaves (``Index``, ``Param``, ``Ref``, ``Score``) and ``Gather``s in the text.
        lines: Declarations made so far.
        names: Expressions that have a name in this scope.
    """

    slots: tuple[SlotType, ...]
    reads: set[Expr] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    names: dict[Expr, str] = field(default_factory=dict)

    def declare(self, name: str, expr: Expr) -> None:
        """Adds a constant ``name`` with the value of ``expr``."""
        text = self.value(expr)
        if text != name:  # a Reduce has declared it
            self.lines.append(f"const {CPP_TYPES[expr.dtype]} {name} = {text};")

    def value(self, expr: Expr) -> str:
        """Text of ``expr``; declares what is shared or long before."""
        order = _walk_scope(expr, self.names)
        uses = Counter(child for node in order for child in _operands(node))
        texts: dict[Expr, str] = dict(self.names)
        for node in order:
            text = self._text(node, texts)
            is_long = len(text) > _MAX_TEXT and node is not expr
            if not isinstance(node, Leaf | Reduce) and (uses[node] > 1 or is_long):
                text = self._named(node, text)
            texts[node] = text
        return _without_parentheses(texts[expr])

    def _named(self, node: Expr, text: str) -> str:
        name = f"e{len(self.names)}"
        self.names[node] = name
        self.lines.append(f"const {CPP_TYPES[node.dtype]} {name} = {_without_parentheses(text)};")
        return name

    def _text(self, node: Expr, texts: Mapping[Expr, str]) -> str:
        match node:
            case Const():
                return _constant(node)
            case Index() | Param() | Score() | Ref():
                self.reads.add(node)
                return leaf_name(node)
            case RowIndex(number):
                return f"r{number}"
            case Unary(op, x):
                return _unary(op, x.dtype, texts[x])
            case Binary(op, lhs, rhs):
                return _binary(op, lhs.dtype, texts[lhs], texts[rhs], rhs)
            case Compare(op, lhs, rhs):
                return f"({texts[lhs]} {op.value} {texts[rhs]})"
            case Select(cond, if_true, if_false):
                return f"({texts[cond]} ? {texts[if_true]} : {texts[if_false]})"
            case Cast(x, to):
                return _cast(texts[x], x.dtype, to)
            case Gather(slot, indices, dtype):
                self.reads.add(node)
                return self._gather(slot, [texts[i] for i in indices], dtype)
            case Reduce():
                return self._reduce(node)
            case _:
                raise AssertionError(f"unknown node {node}")

    def _gather(self, slot: int, indices: list[str], dtype: DType) -> str:
        name = f"t{slot}"
        offset = " + ".join(
            placed(index, f"{name}_size{n}", f"{name}_stride{n}", wide=True)
            for n, index in enumerate(indices)
        )
        storage = self.slots[slot].storage
        element = f"{name}[{offset or '0'}]"
        if storage == "bool":
            return _cast(f"({element} != 0)", DType.BOOL, dtype)
        if storage in ("float16", "bfloat16"):
            return _cast(f"to_real({element})", DType.FLOAT32, dtype)
        return (
            element
            if STORAGE_TYPES[storage] == CPP_TYPES[dtype]
            else (f"({CPP_TYPES[dtype]}){element}")
        )

    def _reduce(self, node: Reduce) -> str:
        name = f"e{len(self.names)}"
        self.names[node] = name
        inner = Block(self.slots, self.reads, [], dict(self.names))
        body = inner.value(node.body)
        match node.op:
            case ReduceOp.SUM:
                start, step = _constant(_zero(node.dtype)), f"{name} + ({body})"
            case ReduceOp.MAX:
                start, step = _bound(node.dtype, _LEAST, "-"), f"op::max({name}, {body})"
            case ReduceOp.MIN:
                start, step = _bound(node.dtype, _GREATEST, ""), f"op::min({name}, {body})"
            case _:
                assert_never(node.op)
        row = f"r{node.number}"
        cpp_type = CPP_TYPES[node.dtype]
        # Bodies cast narrow C++ results (bool, sums of bools) back to the dtype of the node.
        self.lines += [
            f"{cpp_type} {name} = {start};",
            f"for (int32_t {row} = 0; {row} < {node.extent}; ++{row}) {{",
            *(f"  {line}" for line in inner.lines),
            f"  {name} = ({cpp_type})({step});",
            "}",
        ]
        return name


def placed(index: str, size: str, stride: str, wide: bool) -> str:
    """Offset of an index along one dimension: int64, or int32 unless ``wide``."""
    index = _without_parentheses(index)
    if wide:
        return f"op::place({index}, {size}) * ({stride})"
    return f"op::place32({index}, (int32_t){size}) * (int32_t)({stride})"


def leaf_name(leaf: Expr) -> str:
    """Name of a leaf in generated code: that of the IR."""
    match leaf:
        case Index(name):
            return name.value
        case Param(number):
            return f"p{number}"
        case Score():
            return "score"
        case Ref(name):
            return name
    raise AssertionError(f"{leaf} has no name")


def _operands(node: Expr) -> tuple[Expr, ...]:
    """Operands in the same scope: the body of a ``Reduce`` is a scope of its own."""
    return () if isinstance(node, Reduce) else node.children


def _walk_scope(root: Expr, known: Mapping[Expr, str]) -> list[Expr]:
    """Every node of the scope that has no name yet, operands first."""
    order: dict[Expr, None] = {}
    stack: list[tuple[Expr, bool]] = [(root, False)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            order.setdefault(node)
        elif node not in order and node not in known:
            stack.append((node, True))
            stack.extend((child, False) for child in reversed(_operands(node)))
    return list(order)


def _unary(op: UnaryOp, dtype: DType, x: str) -> str:
    match op:
        case UnaryOp.NEG:
            return f"(-{x})"
        case UnaryOp.NOT:
            return f"(!{x})" if dtype is DType.BOOL else f"(~{x})"
        case UnaryOp.FLOOR | UnaryOp.CEIL | UnaryOp.TRUNC | UnaryOp.ROUND if not dtype.is_float:
            return x
        case _:
            return f"op::{op.value}({_without_parentheses(x)})"


def _binary(op: BinaryOp, dtype: DType, x: str, y: str, rhs: Expr) -> str:
    if op in _INFIX:
        return f"({x} {op.value} {y})"
    x_arg, y_arg = _without_parentheses(x), _without_parentheses(y)
    match op, rhs:
        case ((BinaryOp.FLOORDIV | BinaryOp.MOD), Const(int(n))) if dtype.is_int:
            if n > 0 and n & (n - 1) == 0:
                is_division = op is BinaryOp.FLOORDIV
                return f"({x} >> {n.bit_length() - 1})" if is_division else f"({x} & {n - 1})"
            if n not in (0, -1):
                return f"op::{_CALLED[op]}_by({x_arg}, {y_arg})"
        case BinaryOp.POW, Const(2.0) if dtype.is_float:
            return f"({x} * {x})" if x.isidentifier() else f"op::square({x_arg})"
    return f"op::{_CALLED[op]}({x_arg}, {y_arg})"


def _cast(x: str, from_dtype: DType, to: DType) -> str:
    if from_dtype is to:
        return x
    if to is DType.BOOL:
        return f"({x} != 0)"
    if from_dtype.is_float and to.is_int:
        return f"op::to_{to.value}({_without_parentheses(x)})"
    return f"({CPP_TYPES[to]}){x}"


def _constant(const: Const) -> str:
    value, dtype = const.value, const.dtype
    match dtype:
        case DType.BOOL:
            return "true" if value else "false"
        case DType.INT32:
            return "INT32_MIN" if value == -(2**31) else _signed(str(int(value)))
        case DType.INT64:
            return "INT64_MIN" if value == -(2**63) else _signed(f"INT64_C({int(value)})")
        case DType.FLOAT32 | DType.FLOAT64:
            return _float_constant(float(value), dtype)
        case _:
            assert_never(dtype)


def _float_constant(value: float, dtype: DType) -> str:
    cpp_type = CPP_TYPES[dtype]
    # What float32 cannot hold becomes inf here as it does in torch.
    with np.errstate(over="ignore"):
        number = np.float32(value) if dtype is DType.FLOAT32 else np.float64(value)
    if np.isnan(number):
        return f'({cpp_type})__builtin_nan("")'
    if np.isinf(number):
        return _signed(f"{'-' if number < 0 else ''}Limits<{cpp_type}>::inf")
    return _signed(f"{number!s}{'f' if dtype is DType.FLOAT32 else ''}")


def _signed(text: str) -> str:
    if text.startswith("INT64_C(-"):
        return f"({text})"
    return f"({text})" if text.startswith("-") else text


def _zero(dtype: DType) -> Const:
    value: bool | int | float = 0.0 if dtype.is_float else 0
    return Const(False if dtype is DType.BOOL else value, dtype)


def _bound(dtype: DType, integers: Mapping[DType, str], sign: str) -> str:
    return f"{sign}Limits<{CPP_TYPES[dtype]}>::inf" if dtype.is_float else integers[dtype]


def _without_parentheses(text: str) -> str:
    """``text`` without a pair of parentheses around all of it."""
    if not text.startswith("("):
        return text
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[1:-1] if place == len(text) - 1 else text
    return text
