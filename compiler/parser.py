"""Expressions from their text form, the inverse of ``printer.format_program``."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from typing import NoReturn

from attnc.errors import ExpressionSyntaxError
from attnc.ir import (
    B_IDX,
    H_IDX,
    KV_IDX,
    Q_IDX,
    Binary,
    BinaryOp,
    Cast,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    Gather,
    Level,
    Param,
    Reduce,
    ReduceOp,
    Ref,
    RowIndex,
    Score,
    Select,
    Unary,
    UnaryOp,
)

_INDICES: Mapping[str, Expr] = {"b": B_IDX, "h": H_IDX, "q_idx": Q_IDX, "kv_idx": KV_IDX}
_BINARY: Mapping[type[ast.operator], BinaryOp] = {
    ast.Add: BinaryOp.ADD,
    ast.Sub: BinaryOp.SUB,
    ast.Mult: BinaryOp.MUL,
    ast.Div: BinaryOp.DIV,
    ast.FloorDiv: BinaryOp.FLOORDIV,
    ast.Mod: BinaryOp.MOD,
    ast.Pow: BinaryOp.POW,
    ast.BitAnd: BinaryOp.AND,
    ast.BitOr: BinaryOp.OR,
    ast.BitXor: BinaryOp.XOR,
    ast.LShift: BinaryOp.SHL,
    ast.RShift: BinaryOp.SHR,
}
_COMPARE: Mapping[type[ast.cmpop], CompareOp] = {
    ast.Eq: CompareOp.EQ,
    ast.NotEq: CompareOp.NE,
    ast.Lt: CompareOp.LT,
    ast.LtE: CompareOp.LE,
    ast.Gt: CompareOp.GT,
    ast.GtE: CompareOp.GE,
}
_UNARY: Mapping[str, UnaryOp] = {
    "neg": UnaryOp.NEG,
    "invert": UnaryOp.NOT,
    **{op.value: op for op in UnaryOp if op.value.isidentifier()},
}
_DTYPES: Mapping[str, DType] = {dtype.value: dtype for dtype in DType}
_MAX_LENGTH = 1 << 22  # characters; texts come with programs that others have exported


def parse_expr(text: str) -> Expr:
    """The expression that ``format_program`` or ``format_expr`` wrote.

    Slots and params need their declaration (``t0: float32``), as ``format_program`` writes it.

    Raises:
        ExpressionSyntaxError: not such a text.
    """
    if len(text) > _MAX_LENGTH:
        problem = f"it is longer than {_MAX_LENGTH} characters"
        raise ExpressionSyntaxError(text=text[:100], problem=problem)
    try:
        return _Reader().program(ast.parse(text))
    except ExpressionSyntaxError:
        raise
    # Python's parser and its numbers have limits of their own, and so has the depth of calls.
    except (SyntaxError, RecursionError, MemoryError, ValueError, OverflowError) as error:
        problem = str(error) or "it is nested too deeply"
        raise ExpressionSyntaxError(text=text[:100], problem=problem) from error


class _Reader:
    def __init__(self) -> None:
        self.slots: dict[str, DType] = {}
        self.names: dict[str, Expr] = {**_INDICES, "score": Score(DType.FLOAT32)}

    def fail(self, node: ast.AST, problem: str) -> NoReturn:
        raise ExpressionSyntaxError(text=ast.unparse(node)[:100], problem=problem)

    def program(self, module: ast.Module) -> Expr:
        value: Expr | None = None
        for statement in module.body:
            match statement:
                case ast.AnnAssign(ast.Name(name), annotation, None):
                    self.declare(statement, name, annotation)
                case ast.Assign([ast.Name(name)], right):
                    self.names[name] = self.expr(right)
                case ast.Expr(right) if value is None:
                    value = self.expr(right)
                case _:
                    self.fail(statement, "expected `name: dtype`, `name = value` or one value")
        if value is None:
            raise ExpressionSyntaxError(text="", problem="there is no value")
        return value

    def declare(self, statement: ast.AST, name: str, annotation: ast.expr) -> None:
        match annotation:
            case ast.Subscript(ast.Name(level), ast.Name(dtype)) if dtype in _DTYPES and level in {
                item.value for item in Level
            }:
                self.names[name] = Ref(name, _DTYPES[dtype], Level(level))
            case ast.Name(dtype) if dtype in _DTYPES:
                number = name[1:]
                if name == "score":
                    self.names[name] = Score(_DTYPES[dtype])
                elif name[0] == "p" and number.isdigit():
                    self.names[name] = Param(int(number), _DTYPES[dtype])
                elif name[0] == "t" and number.isdigit():
                    self.slots[name] = _DTYPES[dtype]
                else:
                    self.fail(statement, "only t0, p0, score and references are declared")
            case _:
                self.fail(statement, "the dtype is unknown")

    def expr(self, node: ast.expr, beside: DType | None = None) -> Expr:
        """``beside`` is the dtype that a literal takes."""
        value = _literal_value(node)
        if value is not None:
            return _constant(value, beside)
        match node:
            case ast.Name(name):
                return self.name(node, name)
            case ast.UnaryOp(ast.USub(), x):
                return Unary(UnaryOp.NEG, self.expr(x))
            case ast.UnaryOp(ast.Invert(), x):
                return Unary(UnaryOp.NOT, self.expr(x))
            case ast.BinOp(left, op, right) if type(op) in _BINARY:
                return Binary(_BINARY[type(op)], *self.pair(node, left, right))
            case ast.Compare(left, [op], [right]) if type(op) in _COMPARE:
                return Compare(_COMPARE[type(op)], *self.pair(node, left, right))
            case ast.Subscript(ast.Name(name), key) if name in self.slots:
                items = key.elts if isinstance(key, ast.Tuple) else [key]
                return Gather(int(name[1:]), tuple(map(self.expr, items)), self.slots[name])
            case ast.Call(ast.Name(function), arguments, []):
                return self.call(node, function, arguments)
            case _:
                self.fail(node, "this is no expression of the text form")

    def name(self, node: ast.AST, name: str) -> Expr:
        if (known := self.names.get(name)) is not None:
            return known
        if name[0] == "r" and name[1:].isdigit():
            return RowIndex(int(name[1:]))
        self.fail(node, "the name is unknown or not declared")

    def pair(self, node: ast.AST, left: ast.expr, right: ast.expr) -> tuple[Expr, Expr]:
        if _literal_value(left) is None:
            x = self.expr(left)
            y = self.expr(right, x.dtype)
        else:
            y = self.expr(right)
            x = self.expr(left, y.dtype)
        if x.dtype is not y.dtype:
            self.fail(node, f"operands are {x.dtype.value} and {y.dtype.value}")
        return x, y

    def call(self, node: ast.expr, function: str, arguments: list[ast.expr]) -> Expr:
        match function, arguments:
            case (("sum" | "max" | "min"), [ast.GeneratorExp(body, [loop])]):
                match loop:
                    case ast.comprehension(
                        ast.Name(variable),
                        ast.Call(ast.Name("range"), [ast.Constant(int(extent))], []),
                        [],
                    ) if variable[0] == "r" and variable[1:].isdigit():
                        number = int(variable[1:])
                        return Reduce(ReduceOp(function), number, extent, self.expr(body))
                self.fail(node, "a reduction runs `for r0 in range(number)`")
            case (("min" | "max"), [left, right]):
                return Binary(BinaryOp(function), *self.pair(node, left, right))
            case "where", [condition, if_true, if_false]:
                return Select(self.expr(condition), *self.pair(node, if_true, if_false))
            case dtype, [x] if dtype in _DTYPES:
                value = _literal_value(x)
                if value is None or isinstance(value, bool):
                    return Cast(self.expr(x), _DTYPES[dtype])
                return _constant(value, _DTYPES[dtype])
            case name, [x] if name in _UNARY:
                return Unary(_UNARY[name], self.expr(x))
        self.fail(node, "no such function")


def _literal_value(node: ast.expr) -> float | None:
    """The number that ``node`` is a literal of."""
    match node:
        case ast.Constant(bool() | int() | float() as value):
            return value
        case ast.Name("inf"):
            return math.inf
        case ast.Name("nan"):
            return math.nan
        case ast.UnaryOp(ast.USub(), x):
            positive = _literal_value(x)
            if positive is not None and not isinstance(positive, bool):
                return -positive
    return None


def _constant(value: float, dtype: DType | None) -> Const:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ExpressionSyntaxError(
            text=str(value)[:100], problem="the number has more than 64 bits"
        )
    if isinstance(value, bool):
        return Const(value, DType.BOOL)
    if isinstance(value, float):
        kind = dtype if dtype is not None and dtype.is_float else DType.FLOAT32
        return Const(value, kind)
    if dtype is not None and dtype.is_float:
        return Const(float(value), dtype)
    return Const(value, DType.INT64 if dtype is DType.INT64 else DType.INT32)
