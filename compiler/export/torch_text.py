"""Expressions of the IR as functions in torch: what ``evaluate`` computes, as source text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

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
    Param,
    Reduce,
    ReduceOp,
    RowIndex,
    Score,
    Select,
    Unary,
    UnaryOp,
    free_rows,
    walk,
)

#: Those of ``export/values.py.jinja``.
FUNCTIONS = (
    "constant",
    "element",
    "float_power",
    "floor_quotient",
    "floor_remainder",
    "truncated",
)
_LARGEST_LITERAL = 1e38  # torch refuses numbers that float32 cannot hold
_INLINE = 50  # characters of a value that is used once, at the most
_UNARY = {UnaryOp.NEG: "-{}", UnaryOp.NOT: "~{}"}
_INFIX = {
    BinaryOp.ADD: "+",
    BinaryOp.SUB: "-",
    BinaryOp.MUL: "*",
    BinaryOp.DIV: "/",
    BinaryOp.AND: "&",
    BinaryOp.OR: "|",
    BinaryOp.XOR: "^",
    BinaryOp.SHL: "<<",
    BinaryOp.SHR: ">>",
}
_CALLS = {
    BinaryOp.FLOORDIV: "torch.floor_divide",
    BinaryOp.MOD: "torch.remainder",
    BinaryOp.POW: "float_power",
    BinaryOp.MIN: "torch.minimum",
    BinaryOp.MAX: "torch.maximum",
}
_INTEGER_CALLS = {
    BinaryOp.FLOORDIV: "floor_quotient",
    BinaryOp.MOD: "floor_remainder",
    BinaryOp.POW: "torch.pow",
}
_REDUCE = {
    ReduceOp.SUM: "torch.add",
    ReduceOp.MAX: "torch.maximum",
    ReduceOp.MIN: "torch.minimum",
}


@dataclass(frozen=True)
class TorchText:
    """Body of a function of coordinates: statements, the text of its value, and the functions of
    ``export/values.py.jinja`` that they call."""

    lines: tuple[str, ...]
    result: str
    calls: frozenset[str]


def torch_text(
    expr: Expr, tensors: Mapping[int, str], params: Sequence[bool | int | float] = ()
) -> TorchText:
    """``expr`` over tensors ``b, h, q_idx, kv_idx`` (int32), ``score`` and captured ones.

    Args:
        expr: Without ``Ref``.
        tensors: Names of the captured tensors, by slot number.
        params: Values of ``Param``s by number.
    """
    writer = _Writer(tensors, params)
    writer.count(expr)
    free = free_rows(expr)
    lines = writer.block([node for node in walk(expr) if not free[node]], free)
    result = _bare(writer.texts[expr])
    text = "\n".join([*lines, result])
    calls = frozenset(name for name in FUNCTIONS if f"{name}(" in text)
    return TorchText(tuple(lines), result, calls)


@dataclass
class _Writer:
    """Texts of nodes, in order of their use."""

    tensors: Mapping[int, str]
    params: Sequence[bool | int | float]
    texts: dict[Expr, str] = field(default_factory=dict)
    uses: Counter[Expr] = field(default_factory=Counter)
    n_values: int = 0

    def count(self, expr: Expr) -> None:
        """Learns how often each node is used."""
        for node in walk(expr):
            self.uses.update(node.children)

    def block(self, nodes: Iterable[Expr], free: Mapping[Expr, frozenset[int]]) -> list[str]:
        """Statements for ``nodes``, operands first; their texts are kept."""
        lines: list[str] = []
        for node in nodes:
            if isinstance(node, Reduce):
                lines += self._loop(node, free)
                continue
            text = self._text(node)
            is_leaf = isinstance(node, Index | Score | RowIndex)
            # A loop's body is written apart from what is around it, so that all it reads has names.
            if is_leaf or (self.uses[node] <= 1 and len(text) <= _INLINE and not free[node]):
                self.texts[node] = text
            else:
                self.texts[node] = self._name()
                lines.append(f"{self.texts[node]} = {_bare(text)}")
        return lines

    def _loop(self, node: Reduce, free: Mapping[Expr, frozenset[int]]) -> list[str]:
        variable, total = RowIndex(node.number), self._name()
        available = free[node] | {node.number}
        inner = [
            n
            for n in walk(node.body)
            if node.number in free[n] and free[n] <= available and n is not variable
        ]
        self.texts[variable] = f"row{node.number}"
        body = self.block(inner, free)
        self.texts[node] = total
        value = f"{_REDUCE[node.op]}({total}, {_bare(self.texts[node.body])})"
        start = _call("constant", _number(_neutral(node)), _dtype(node.dtype), "q_idx")
        each = f"for row in range({node.extent}):"
        row = _call("constant", "row", "torch.int32", "q_idx")
        body = [f"row{node.number} = {row}", *body, f"{total} = {value}"]
        return [f"{total} = {start}", each, *(f"    {line}" for line in body)]

    def _name(self) -> str:
        self.n_values += 1
        return f"x{self.n_values}"

    def _text(self, node: Expr) -> str:
        match node:
            case Index(name):
                return name.value
            case Score():
                return "score"
            case RowIndex(number):
                return f"row{number}"
            case Const(value, dtype):
                return _call("constant", _number(value), _dtype(dtype), "q_idx")
            case Param(number, dtype):
                return _call("constant", _number(self.params[number]), _dtype(dtype), "q_idx")
            case Unary(op, x):
                if op in _UNARY:
                    return f"({_UNARY[op].format(self.texts[x])})"
                return _call(f"torch.{op.value}", self.texts[x])
            case Binary(op, lhs, rhs):
                return self._binary(op, lhs, rhs)
            case Compare(op, lhs, rhs):
                return self._infix(op.value, lhs, rhs)
            case Select(cond, if_true, if_false):
                texts = (self.texts[part] for part in (cond, if_true, if_false))
                return _call("torch.where", *texts)
            case Cast(x, to):
                return self._cast(x, to)
            case Gather(slot, indices, dtype):
                places = [self.texts[index] for index in indices]
                arguments = (self.tensors[slot], _dtype(dtype), *places)
                return _call("element", *arguments)
        raise AssertionError(f"{node} has no text")

    def _binary(self, op: BinaryOp, lhs: Expr, rhs: Expr) -> str:
        if op in (BinaryOp.DIV, BinaryOp.SHL, BinaryOp.SHR):
            return f"({self.texts[lhs]} {_INFIX[op]} {self.texts[rhs]})"
        if op in _INFIX:
            return self._infix(_INFIX[op], lhs, rhs)
        if op in (BinaryOp.FLOORDIV, BinaryOp.MOD):
            match rhs:
                case Const(int(n), DType.INT32 | DType.INT64) if n not in (0, -1):
                    return self._infix(op.value, lhs, rhs)
        table = _INTEGER_CALLS if lhs.dtype.is_int and op in _INTEGER_CALLS else _CALLS
        return _call(table[op], self.texts[lhs], self.texts[rhs])

    def _infix(self, sign: str, lhs: Expr, rhs: Expr) -> str:
        left = self.texts[lhs] if isinstance(rhs, Const) else self._literal(lhs)
        return f"({left} {sign} {self._literal(rhs)})"

    def _literal(self, expr: Expr) -> str:
        """Text of an operand; a number as it is, where torch takes it in the other's dtype."""
        match expr:
            case Const(int(value), DType.INT32 | DType.INT64) if abs(value) < 1 << 31:
                return str(value) if value >= 0 else f"({value})"
            case Const(float(value)) if abs(value) < _LARGEST_LITERAL:
                return repr(value) if value >= 0 else f"({value!r})"
        return self.texts[expr]

    def _cast(self, x: Expr, to: DType) -> str:
        if to is DType.BOOL:
            return f"({self.texts[x]} != 0)"
        if x.dtype.is_float and to.is_int:
            return _call("truncated", self.texts[x], _dtype(to))
        return f"{self.texts[x]}.to({_dtype(to)})"


def _call(function: str, *arguments: str) -> str:
    return f"{function}({', '.join(map(_bare, arguments))})"


def _bare(text: str) -> str:
    """``text`` without parentheses around all of it."""
    if not (text.startswith("(") and text.endswith(")")):
        return text
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0 and place < len(text) - 1:
            return text
    return text[1:-1]


def _dtype(dtype: DType) -> str:
    return f"torch.{dtype.value}"


def _number(value: bool | float) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def _neutral(node: Reduce) -> int | float:
    """What a reduction starts with; see ``evaluate``."""
    if node.op is ReduceOp.SUM:
        return 0
    sign = -1 if node.op is ReduceOp.MAX else 1
    if node.dtype.is_float:
        return sign * math.inf
    n_bits = 31 if node.dtype is DType.INT32 else 63
    return -(1 << n_bits) if sign < 0 else (1 << n_bits) - 1
