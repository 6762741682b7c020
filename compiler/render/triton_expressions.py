"""Text of IR expressions in Triton: scalars, rows (BLOCK_M, 1), columns (1, BLOCK_N) and tiles.

Triton's ``//``, ``%``, shifts, casts, min and max differ from the IR's at the edges, so that most
of them are calls of functions in ``triton_functions.py.jinja``; the writer keeps their names. What
is an operand is a tensor: a bare number would take Triton's idea of its dtype, so constants are
typed unless the other operand of an infix operator decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from attnc.intervals.sign import is_not_negative
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
    Level,
    Param,
    Reduce,
    Ref,
    RowIndex,
    Score,
    Select,
    Unary,
    UnaryOp,
    level_of,
)
from attnc.render.triton_names import (
    BITS,
    BOOL_INFIX,
    INFIX,
    REDUCE,
    SHAPES,
    TRANSPOSED_SHAPES,
    UNARY_CALLS,
    UNARY_FUNCTIONS,
    bare,
    literal,
    neutral,
    type_name,
)
from attnc.schedule import Let

_INDENT = "    "
_MAX_DEPTH = 20  # of one statement: Python's parser and Triton's visitor recurse


def outer_row(number: int) -> str:
    """Name of an argument that is the variable of a reduction."""
    return f"outer_row{number}"


@dataclass
class TritonWriter:
    """Writes statements and expressions; remembers what they need.

    Attributes:
        wide_index: Offsets into captured tensors are computed in 64 bits.
        raw_params: Constants still have the dtypes that the kernel's arguments have.
        is_transposed: Tiles are (KEYS_N, KEYS_M).
        outer_rows: Numbers of the reductions whose variables are arguments.
        functions: Names of the functions of ``triton_functions.py.jinja`` in use.
        not_negative: Names of ``Let``s whose value cannot be negative.
        tolerant: Nodes that may be rounded once where the IR rounds twice.
    """

    wide_index: bool
    raw_params: bool = False
    is_transposed: bool = False
    outer_rows: AbstractSet[int] = frozenset()
    functions: set[str] = field(default_factory=set)
    not_negative: set[str] = field(default_factory=set)
    tolerant: AbstractSet[Expr] = frozenset()

    def assignments(self, lets: Iterable[Let]) -> list[str]:
        """Lines that compute ``lets``, without indentation of their own."""
        lines: list[str] = []
        for let in lets:
            text = self.expression(let.expr, let.name, let.level, lines)
            lines.append(f"{let.name} = {text}")
            if is_not_negative(let.expr, self.not_negative):
                self.not_negative.add(let.name)
        return lines

    def expression(self, expr: Expr, name: str, level: Level, lines: list[str]) -> str:
        """Text of ``expr``, which is a tensor; ``lines`` receives the statements it needs.

        Args:
            expr: What to compute, over values that are named already.
            name: Prefix for the names of intermediate values.
            level: Shape of running values of a ``Reduce``.
            lines: Statements before the one that uses the text.
        """
        texts: dict[Expr, str] = {}
        depths: dict[Expr, int] = {}
        n_parts = 0
        for node in _outside_reductions(expr):
            depth = 1 + max((depths.get(child, 0) for child in node.children), default=0)
            match node:
                case Reduce():
                    texts[node] = self._reduction(node, f"{name}_sum{node.number}", level, lines)
                    depth = 1
                case _:
                    texts[node] = self._text(node, texts)
            if depth > _MAX_DEPTH and node is not expr:
                part = f"{name}_part{n_parts}"
                n_parts += 1
                lines.append(f"{part} = {bare(texts[node])}")
                texts[node], depth = part, 1
            depths[node] = depth
        return bare(self._typed(expr, texts))

    def _reduction(self, node: Reduce, total: str, level: Level, lines: list[str]) -> str:
        start = literal(neutral(node.op, node.dtype))
        row = f"row{node.number}"
        shape = (TRANSPOSED_SHAPES if self.is_transposed else SHAPES)[level]
        lines.append(f"{total} = tl.full({shape}, {start}, {type_name(node.dtype)})")
        lines.append(f"for {row}_number in range({node.extent}):")
        inner = [f"{row} = tl.full((), {row}_number, tl.int32)"]
        body = self.expression(node.body, total, level, inner)
        inner.append(f"{total} = {self._binary_text(REDUCE[node.op], node.dtype, total, body)}")
        lines.extend(_INDENT + line for line in inner)
        return total

    def _text(self, node: Expr, texts: dict[Expr, str]) -> str:
        match node:
            case Index(name):
                return name.value
            case Score():
                return "score"
            case Const(value, _):
                return literal(value)
            case Param(number, dtype) if self.raw_params:
                function = "tl.full((), " if dtype.is_float else "tl.cast("
                return f"{function}p{number}, {type_name(dtype)})"
            case Param(number, _):
                return f"p{number}"
            case RowIndex(number):
                return outer_row(number) if number in self.outer_rows else f"row{number}"
            case Ref(name, _, _):
                return name
            case Unary():
                return self._unary(node, self._typed(node.x, texts))
            case Binary():
                return self._binary(node, texts)
            case Compare():
                return self._compare(node, texts)
            case Select(cond, if_true, if_false):
                parts = (self._typed(part, texts) for part in (cond, if_true, if_false))
                return f"tl.where({', '.join(bare(part) for part in parts)})"
            case Cast(x, to):
                if to is DType.BOOL and x.dtype is not to:
                    return _comparison(f"{self._typed(x, texts)} != 0", x)
                return self._cast(x.dtype, to, self._typed(x, texts))
            case Gather():
                return self._gather(node, texts)
            case _:
                raise AssertionError(f"unknown node {node}")

    def _typed(self, expr: Expr, texts: dict[Expr, str]) -> str:
        """Text of an operand as a tensor of its dtype."""
        if isinstance(expr, Const):
            return f"tl.full((), {texts[expr]}, {type_name(expr.dtype)})"
        return texts[expr]

    def _operands(self, lhs: Expr, rhs: Expr, texts: dict[Expr, str]) -> tuple[str, str]:
        """Texts of the operands of an infix operator: at most one of them a bare number."""
        if isinstance(lhs, Const) and isinstance(rhs, Const):
            return self._typed(lhs, texts), texts[rhs]
        return texts[lhs], texts[rhs]

    def _call(self, function: str, *arguments: str) -> str:
        self.functions.add(function)
        return f"{function}({', '.join(bare(a) for a in arguments)})"

    def _unary(self, node: Unary, x: str) -> str:
        match node.op:
            case UnaryOp.NEG:
                return f"(-{x})"
            case UnaryOp.NOT:
                return f"({x} == False)" if node.dtype is DType.BOOL else f"(~{x})"
            case UnaryOp.ISNAN:
                return _comparison(f"{x} != {x}", node.x)
            case UnaryOp.FLOOR | UnaryOp.CEIL | UnaryOp.TRUNC | UnaryOp.ROUND if node.dtype.is_int:
                return x
            case UnaryOp.TRUNC:
                return self._call("truncate", x)
            case UnaryOp.ROUND:
                return self._call("round_to_even", x)
            case op if op in UNARY_FUNCTIONS:
                suffix = "_64" if node.dtype is DType.FLOAT64 else ""
                return self._call(UNARY_FUNCTIONS[op] + suffix, x)
            case op:
                return f"{UNARY_CALLS[op]}({bare(x)})"

    def _binary(self, node: Binary, texts: dict[Expr, str]) -> str:
        op, lhs, rhs, dtype = node.op, node.lhs, node.rhs, node.dtype
        match node:
            case Binary(BinaryOp.FLOORDIV | BinaryOp.MOD, _, Const(int(n))) if dtype.is_int:
                if n > 0:
                    return self._divided_by_constant(op, lhs, n, self._typed(lhs, texts))
            case Binary(BinaryOp.SHL | BinaryOp.SHR, _, Const(int(n))):
                if 0 <= n < BITS[dtype]:
                    sign = "<<" if op is BinaryOp.SHL else ">>"
                    return f"({self._typed(lhs, texts)} {sign} {n})"
            case Binary(BinaryOp.POW, _, Const(int() | float() as n)):
                power = self._constant_power(self._typed(lhs, texts), n, dtype)
                if power is not None:
                    return power
        if op in (BinaryOp.ADD, BinaryOp.SUB) and node in self.tolerant:
            fused = self._fused(node, texts)
            if fused is not None:
                return fused
        if op in INFIX and dtype is not DType.BOOL:
            return self._binary_text(op, dtype, *self._operands(lhs, rhs, texts))
        return self._binary_text(op, dtype, self._typed(lhs, texts), self._typed(rhs, texts))

    def _fused(self, node: Binary, texts: dict[Expr, str]) -> str | None:
        """Text of a sum or difference that has a product as operand, rounded once."""
        minus = "-" if node.op is BinaryOp.SUB else ""
        match node:
            case Binary(_, Binary(BinaryOp.MUL, x, y), z):
                x_text, y_text = self._typed(x, texts), self._typed(y, texts)
                z_text = minus + self._typed(z, texts)
            case Binary(_, z, Binary(BinaryOp.MUL, x, y)):
                x_text, y_text = minus + self._typed(x, texts), self._typed(y, texts)
                z_text = self._typed(z, texts)
            case _:
                return None
        return f"tl.fma({', '.join(bare(t) for t in (x_text, y_text, z_text))})"

    def _binary_text(self, op: BinaryOp, dtype: DType, lhs: str, rhs: str) -> str:
        if dtype is DType.BOOL:
            return f"({lhs} {BOOL_INFIX[op]} {rhs})"
        if op in INFIX:
            return f"({lhs} {INFIX[op]} {rhs})"
        suffix = "_64" if dtype is DType.FLOAT64 else ""
        match op:
            case BinaryOp.DIV:
                return self._call("divide" + suffix, lhs, rhs)
            case BinaryOp.FLOORDIV:
                return self._call("floor_divide" + ("_float" if dtype.is_float else ""), lhs, rhs)
            case BinaryOp.MOD:
                return self._call("floor_modulo" + ("_float" if dtype.is_float else ""), lhs, rhs)
            case BinaryOp.POW:
                return self._call("power" + ("_float" if dtype.is_float else ""), lhs, rhs)
            case BinaryOp.SHL | BinaryOp.SHR:
                name = "shift_left" if op is BinaryOp.SHL else "shift_right"
                return self._call(name, lhs, rhs, str(BITS[dtype]))
            case BinaryOp.MIN | BinaryOp.MAX:
                name = "tl.minimum" if op is BinaryOp.MIN else "tl.maximum"
                nan = ", propagate_nan=tl.PropagateNan.ALL" if dtype.is_float else ""
                return f"{name}({bare(lhs)}, {bare(rhs)}{nan})"
            case _:
                raise AssertionError(f"unknown operator {op}")

    def _divided_by_constant(self, op: BinaryOp, lhs: Expr, n: int, x: str) -> str:
        if n & (n - 1) == 0:  # right for every sign: shifts and masks round down
            if op is BinaryOp.FLOORDIV:
                return f"({x} >> {n.bit_length() - 1})"
            return f"({x} & {n - 1})"
        if is_not_negative(lhs, self.not_negative):
            return f"({x} {op.value} {n})"
        name = "floor_divide" if op is BinaryOp.FLOORDIV else "floor_modulo"
        return self._call(f"{name}_positive", x, str(n))

    def _constant_power(self, x: str, n: float, dtype: DType) -> str | None:
        if dtype.is_int:
            return self._call("integer_power", x, str(int(n))) if 0 <= n < BITS[dtype] else None
        suffix = "_64" if dtype is DType.FLOAT64 else ""
        match n:
            case 0.5 | -0.5:
                # Other than a root, a power is not negative zero, nor NaN for -inf.
                magnitude = f'tl.where({bare(x)} == float("-inf"), float("inf"), {x} + 0.0)'
                root = "square_root" if n > 0 else "reciprocal_root"
                return self._call(root + suffix, magnitude)
            case 1:
                return x
            case -1:
                one = f"tl.full((), 1.0, {type_name(dtype)})"
                return self._call("divide" + suffix, one, x)
            case 2 | 3:
                return self._call("integer_power", x, str(int(n)))
        return None

    def _compare(self, node: Compare, texts: dict[Expr, str]) -> str:
        op, lhs, rhs = node.op, node.lhs, node.rhs
        if lhs.dtype is DType.BOOL:
            # A true int1 is -1, which is less than false.
            left, right = (
                self._cast(lhs.dtype, DType.INT32, self._typed(x, texts)) for x in (lhs, rhs)
            )
            return f"({left} {op.value} {right})"
        left, right = self._operands(lhs, rhs, texts)
        return _comparison(f"{left} {op.value} {right}", lhs, rhs)

    def _cast(self, source: DType, to: DType, x: str) -> str:
        if source is to:
            return x
        if source.is_float and to.is_int:
            return self._call(f"to_{to.value}", x)
        return f"tl.cast({bare(x)}, {type_name(to)})"

    def _gather(self, node: Gather, texts: dict[Expr, str]) -> str:
        slot = f"t{node.slot}"
        offsets = []
        for dimension, index in enumerate(node.indices):
            text = self._typed(index, texts)
            size, stride = f"{slot}_size{dimension}", f"{slot}_stride{dimension}"
            if is_not_negative(index, self.not_negative):
                place = f"tl.minimum({bare(text)}, {size} - 1)"
            else:
                place = self._call("wrapped", text, size)
            if self.wide_index:
                place = f"tl.cast({place}, tl.int64)"
            offsets.append(f"{place} * {stride}")
        address = " + ".join([f"{slot}_ptr", *offsets])
        if node.dtype is DType.BOOL:
            return f"(tl.load({address}) != 0)"
        return f"tl.cast(tl.load({address}), {type_name(node.dtype)})"


def _comparison(text: str, *operands: Expr) -> str:
    # In Triton's interpreter, a comparison of two float scalars is a float where it meets a tensor.
    if operands[0].dtype.is_float and all(level_of(x) is Level.UNIFORM for x in operands):
        return f"(tl.where({text}, 1, 0) != 0)"
    return f"({text})"


def _outside_reductions(root: Expr) -> Iterator[Expr]:
    """Nodes of ``root``, operands before users, not looking into the bodies of reductions."""
    seen: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(root, False)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            yield node
            continue
        if node in seen:
            continue
        seen.add(node)
        stack.append((node, True))
        if not isinstance(node, Reduce):
            stack.extend((child, False) for child in reversed(node.children))
