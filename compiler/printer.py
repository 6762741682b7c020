"""Text form of expressions: Python-like infix notation with as few parentheses as possible.

``t0[...]`` is an element of a captured tensor, ``p0`` a lifted constant, ``r0`` the variable of a
reduction. ``parse_expr`` (in ``parser``) reads what ``format_program`` writes.

A literal has the dtype of the operand beside it, and alone that of Python: int32, float32, bool.
Elsewhere its dtype is written, ``int64(5)``; so ``int64(x)`` converts only what is no literal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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
    Ref,
    RowIndex,
    Score,
    Select,
    Unary,
    UnaryOp,
    walk,
)

#: How tightly an operator binds, as in Python.
_COMPARE, _UNARY, _POWER, _ATOM = 6, 13, 14, 15
_BINDING: Mapping[BinaryOp, int] = {
    BinaryOp.OR: 7,
    BinaryOp.XOR: 8,
    BinaryOp.AND: 9,
    BinaryOp.SHL: 10,
    BinaryOp.SHR: 10,
    BinaryOp.ADD: 11,
    BinaryOp.SUB: 11,
    BinaryOp.MUL: 12,
    BinaryOp.DIV: 12,
    BinaryOp.FLOORDIV: 12,
    BinaryOp.MOD: 12,
    BinaryOp.POW: _POWER,
}
#: Dtypes that a literal without context has.
LITERAL_DTYPES = (DType.BOOL, DType.INT32, DType.FLOAT32)
#: Levels of nesting in one line of a program; Python's own parser stops at 200 parentheses.
_MAX_DEPTH = 30

_Piece = str | tuple[Expr, int, DType | None, bool]


def format_expr(
    expr: Expr, locations: Mapping[Expr, Any] | None = None, *, max_length: int = 10_000
) -> str:
    """``expr`` on one line, followed by the place it comes from if ``locations`` knows it.

    A text longer than ``max_length`` characters is cut and ends in ``...``: nodes used twice are
    written twice, which can take exponential space; ``format_program`` writes them once.
    """
    text = _join(_pieces(expr, {}), max_length)
    if locations is not None and expr in locations:
        return f"{text}  # {locations[expr]}"
    return text


def format_program(expr: Expr, locations: Mapping[Expr, Any] | None = None) -> str:
    """``expr`` as lines: dtypes of what is not an index, one ``x0 = ...`` per node used twice.

    The last line is the value. Very deep expressions are split into such lines as well. Each
    line ends with a comment where ``locations`` knows the place it comes from.
    """
    nodes = list(walk(expr))
    lines = sorted(_declarations(nodes))
    names: dict[Expr, str] = {}
    reserved = {node.name for node in nodes if isinstance(node, Ref)}
    fresh = (name for i in range(len(nodes) + len(reserved)) if (name := f"x{i}") not in reserved)
    for node in _named(expr, nodes):
        text = "".join(_pieces(node, names))
        name = next(fresh)
        lines.append(f"{name} = {text}" + _comment(node, locations))
        names[node] = name
    lines.append("".join(_pieces(expr, names)) + _comment(expr, locations))
    return "\n".join(lines)


def _comment(node: Expr, locations: Mapping[Expr, Any] | None) -> str:
    return f"  # {locations[node]}" if locations is not None and node in locations else ""


def _declarations(nodes: list[Expr]) -> set[str]:
    declared = set()
    for node in nodes:
        match node:
            case Param(number, dtype):
                declared.add(f"p{number}: {dtype.value}")
            case Gather(slot, _, dtype):
                declared.add(f"t{slot}: {dtype.value}")
            case Score(DType.FLOAT64):
                declared.add("score: float64")
            case Ref(name, dtype, level):
                declared.add(f"{name}: {level.value}[{dtype.value}]")
    return declared


def _named(root: Expr, nodes: list[Expr]) -> list[Expr]:
    """Nodes that get a line of their own, operands first."""
    uses: dict[Expr, int] = {}
    for node in nodes:
        for child in node.children:
            uses[child] = uses.get(child, 0) + 1
    depths: dict[Expr, int] = {}
    named = []
    for node in nodes:
        depth = 1 + max((depths[child] for child in node.children), default=0)
        if node is not root and not isinstance(node, Leaf):
            is_plain = isinstance(node, Gather) and not node.indices
            if (uses[node] > 1 and not is_plain) or depth >= _MAX_DEPTH:
                named.append(node)
                depth = 0
        depths[node] = depth
    return named


def _join(pieces: Iterator[str], max_length: int) -> str:
    taken, length = [], 0
    for piece in pieces:
        taken.append(piece)
        length += len(piece)
        if length > max_length:
            return "".join(taken)[: max_length - 3] + "..."
    return "".join(taken)


def _pieces(root: Expr, names: Mapping[Expr, str]) -> Iterator[str]:
    """The text of ``root`` in pieces; ``names`` are written for nodes that have one."""
    stack: list[_Piece] = [(root, 0, None, False)]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
            continue
        node, binding, beside, is_converted = item
        if (name := names.get(node)) is not None:
            yield name
        elif isinstance(node, Const):
            yield _literal(node, binding, beside, is_converted)
        else:
            own = _own_binding(node)
            parts = _parts(node)
            stack.extend(reversed(["(", *parts, ")"] if own < binding else parts))


def _own_binding(node: Expr) -> int:
    match node:
        case Compare():
            return _COMPARE
        case Binary(op):
            return _BINDING.get(op, _ATOM)
        case Unary(UnaryOp.NOT) | Unary(UnaryOp.NEG):
            # The minus of a literal belongs to the literal, hence neg(...) for those.
            return _ATOM if isinstance(node.x, Const) else _UNARY
        case _:
            return _ATOM


def _literal(node: Const, binding: int, beside: DType | None, is_converted: bool) -> str:
    text = repr(node.value)
    if isinstance(node.value, bool):
        return text
    is_typed = is_converted or (beside is not node.dtype and node.dtype not in LITERAL_DTYPES)
    if is_typed:
        return f"{node.dtype.value}({text})"
    return f"({text})" if text.startswith("-") and binding > _UNARY else text


def _alone(node: Expr, binding: int = 0) -> _Piece:
    return (node, binding, None, False)


def _pair(x: Expr, y: Expr, left: int, right: int) -> tuple[_Piece, _Piece]:
    """Two operands of one dtype: a literal may rely on the other one for its dtype."""
    beside_x = None if isinstance(y, Const) else y.dtype
    return (x, left, beside_x, False), (y, right, x.dtype, False)


def _commas(pieces: tuple[_Piece, ...]) -> list[_Piece]:
    return [part for i, piece in enumerate(pieces) for part in ((", ", piece) if i else (piece,))]


def _parts(node: Expr) -> list[_Piece]:
    match node:
        case Index(name):
            return [name.value]
        case Score():
            return ["score"]
        case Param(number):
            return [f"p{number}"]
        case RowIndex(number):
            return [f"r{number}"]
        case Ref(name):
            return [name]
        case Unary(UnaryOp.NEG | UnaryOp.NOT as op, x) if not isinstance(x, Const):
            return [op.value, _alone(x, _UNARY)]
        case Unary(op, x):
            function = {UnaryOp.NEG: "neg", UnaryOp.NOT: "invert"}.get(op, op.value)
            return [f"{function}(", _alone(x), ")"]
        case Binary(BinaryOp.MIN | BinaryOp.MAX as op, x, y):
            return [f"{op.value}(", *_commas(_pair(x, y, 0, 0)), ")"]
        case Binary(BinaryOp.POW, x, y):
            base, exponent = _pair(x, y, _ATOM, _UNARY)
            return [base, "**", exponent]
        case Binary(op, x, y):
            left, right = _pair(x, y, _BINDING[op], _BINDING[op] + 1)
            return [left, f" {op.value} ", right]
        case Compare(op, x, y):
            left, right = _pair(x, y, _COMPARE + 1, _COMPARE + 1)
            return [left, f" {op.value} ", right]
        case Select(cond, if_true, if_false):
            return ["where(", *_commas((_alone(cond), *_pair(if_true, if_false, 0, 0))), ")"]
        case Cast(x, to):
            return [f"{to.value}(", (x, 0, None, True), ")"]
        case Gather(slot, indices):
            if not indices:
                return [f"t{slot}[()]"]
            return [f"t{slot}[", *_commas(tuple(_alone(i) for i in indices)), "]"]
        case Reduce(op, number, extent, body):
            return [f"{op.value}(", _alone(body), f" for r{number} in range({extent}))"]
        case _:
            raise AssertionError(node)
