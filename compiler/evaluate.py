"""Values of expressions on torch tensors: the definition of what the IR means.

Every operation is done in exactly the dtype of its node, one rounding per operation, never in a
wider type. The kernels do the same. Where PyTorch raises or leaves the result open:

- Integer arithmetic wraps (two's complement), also ``-x``, ``abs(x)`` and ``x // -1``.
- ``x // 0`` and ``x % 0`` of integers are 0. Masked lanes may compute them, so nothing traps.
- Floats follow ``torch.floor_divide`` and ``torch.remainder`` (``x // 0.0`` is ``x / 0.0``).
- A shift by a negative count or by at least the number of bits gives 0, ``>>`` of a negative
  value gives -1.
- ``x ** n`` of integers with negative ``n`` is ``1 / x**-n`` rounded towards zero, and 0 for x = 0.
- ``x ** 2.0`` is ``x * x``, rounded once.
- A float becomes an integer towards zero, saturating; NaN becomes 0. int64 to int32 wraps.
- ``Reduce`` starts with 0 (SUM) or the least or greatest value of the dtype (MAX, MIN) and takes
  the elements in order.
- An element of a tensor with a dimension of size 0 is 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import assert_never

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
    Ref,
    RowIndex,
    Score,
    Select,
    Unary,
    UnaryOp,
    walk,
)

Number = bool | int | float

TORCH_DTYPES: Mapping[DType, torch.dtype] = {
    DType.BOOL: torch.bool,
    DType.INT32: torch.int32,
    DType.INT64: torch.int64,
    DType.FLOAT32: torch.float32,
    DType.FLOAT64: torch.float64,
}
_FLOAT32_MAX = torch.finfo(torch.float32).max

_UNARY: Mapping[UnaryOp, Callable[[torch.Tensor], torch.Tensor]] = {
    UnaryOp.NEG: torch.neg,
    UnaryOp.NOT: torch.bitwise_not,
    UnaryOp.ABS: torch.abs,
    UnaryOp.EXP: torch.exp,
    UnaryOp.EXP2: torch.exp2,
    UnaryOp.EXPM1: torch.expm1,
    UnaryOp.LOG: torch.log,
    UnaryOp.LOG2: torch.log2,
    UnaryOp.LOG1P: torch.log1p,
    UnaryOp.SQRT: torch.sqrt,
    UnaryOp.RSQRT: torch.rsqrt,
    UnaryOp.SIN: torch.sin,
    UnaryOp.COS: torch.cos,
    UnaryOp.TANH: torch.tanh,
    UnaryOp.SIGMOID: torch.sigmoid,
    UnaryOp.ERF: torch.erf,
    UnaryOp.FLOOR: torch.floor,
    UnaryOp.CEIL: torch.ceil,
    UnaryOp.TRUNC: torch.trunc,
    UnaryOp.ROUND: torch.round,
    UnaryOp.ISNAN: torch.isnan,
}

_Combine = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# FLOORDIV and MOD are here for floats only; for integers see _integer_division.
_BINARY: Mapping[BinaryOp, _Combine] = {
    BinaryOp.ADD: torch.add,
    BinaryOp.SUB: torch.sub,
    BinaryOp.MUL: torch.mul,
    BinaryOp.DIV: torch.div,
    BinaryOp.FLOORDIV: torch.floor_divide,
    BinaryOp.MOD: torch.remainder,
    BinaryOp.POW: torch.pow,
    BinaryOp.MIN: torch.minimum,
    BinaryOp.MAX: torch.maximum,
    BinaryOp.AND: torch.bitwise_and,
    BinaryOp.OR: torch.bitwise_or,
    BinaryOp.XOR: torch.bitwise_xor,
    BinaryOp.SHL: torch.bitwise_left_shift,
    BinaryOp.SHR: torch.bitwise_right_shift,
}

_COMPARE: Mapping[CompareOp, _Combine] = {
    CompareOp.EQ: torch.eq,
    CompareOp.NE: torch.ne,
    CompareOp.LT: torch.lt,
    CompareOp.LE: torch.le,
    CompareOp.GT: torch.gt,
    CompareOp.GE: torch.ge,
}

_REDUCE: Mapping[ReduceOp, _Combine] = {
    ReduceOp.SUM: torch.add,
    ReduceOp.MAX: torch.maximum,
    ReduceOp.MIN: torch.minimum,
}


def evaluate(
    expr: Expr,
    *,
    b: torch.Tensor | int,
    h: torch.Tensor | int,
    q_idx: torch.Tensor | int,
    kv_idx: torch.Tensor | int,
    score: torch.Tensor | float | None = None,
    tensors: Sequence[torch.Tensor] = (),
    params: Sequence[Number] = (),
) -> torch.Tensor:
    """Value of ``expr`` at every point of the broadcast indices.

    Args:
        b, h, q_idx, kv_idx: Coordinates: integers, or integer tensors that broadcast together.
        score: Scaled score, if the expression reads it; broadcasts with the coordinates.
        tensors: Captured tensors by slot number.
        params: Values of ``Param``s by number.

    Returns:
        Tensor of the dtype of ``expr``. It has the broadcast shape of what ``expr`` reads, not of
        all coordinates: a function of ``q_idx`` alone has the shape of ``q_idx``. It may be a view
        of an argument.
    """
    coordinates = {IndexName.B: b, IndexName.H: h, IndexName.Q: q_idx, IndexName.KV: kv_idx}
    device = next(
        (x.device for x in (q_idx, kv_idx, b, h, score) if isinstance(x, torch.Tensor)),
        torch.device("cpu"),
    )
    evaluator = _Evaluator(coordinates, score, tensors, params, device)
    return evaluator.value_of(expr)


class _Evaluator:
    def __init__(
        self,
        coordinates: Mapping[IndexName, torch.Tensor | int],
        score: torch.Tensor | float | None,
        tensors: Sequence[torch.Tensor],
        params: Sequence[Number],
        device: torch.device,
    ) -> None:
        self.coordinates = coordinates
        self.score = score
        self.tensors = tensors
        self.params = params
        self.device = device

    def value_of(self, expr: Expr) -> torch.Tensor:
        order = list(walk(expr))
        free: dict[Expr, frozenset[int]] = {}
        if any(isinstance(node, Reduce) for node in order):
            free = _free_rows(order)
            order = [node for node in order if not free[node]]
        values: dict[Expr, torch.Tensor] = {}
        for node in order:
            values[node] = self.step(node, values, free)
        return values[expr]

    def step(
        self,
        node: Expr,
        values: Mapping[Expr, torch.Tensor],
        free: Mapping[Expr, frozenset[int]],
    ) -> torch.Tensor:
        """Value of ``node``, given those of its operands."""
        match node:
            case Index(name):
                return self.tensor_of(self.coordinates[name], DType.INT32)
            case Score(dtype):
                assert self.score is not None, "the expression reads the score; pass score="
                return self.tensor_of(self.score, dtype)
            case Const(value, dtype):
                return self.tensor_of(value, dtype)
            case Param(number, dtype):
                return self.tensor_of(self.params[number], dtype)
            case Unary(op, x):
                return _UNARY[op](values[x])
            case Binary((BinaryOp.FLOORDIV | BinaryOp.MOD) as op, lhs, rhs) if lhs.dtype.is_int:
                return _integer_division(op, values[lhs], values[rhs], rhs)
            case Binary(BinaryOp.POW, lhs, rhs) if lhs.dtype.is_float:
                return _float_power(values[lhs], values[rhs], rhs)
            case Binary(op, lhs, rhs):
                return _BINARY[op](values[lhs], values[rhs])
            case Compare(op, lhs, rhs):
                return _COMPARE[op](values[lhs], values[rhs])
            case Select(cond, if_true, if_false):
                return torch.where(values[cond], values[if_true], values[if_false])
            case Cast(x, to):
                return _converted(values[x], to)
            case Gather(slot, indices, dtype):
                return _gathered(self.tensors[slot], [values[i] for i in indices], dtype)
            case Reduce():
                return self.reduced(node, values, free)
            case Ref() | RowIndex():
                raise AssertionError(f"{node} has no value outside its schedule or Reduce")
            case _:
                raise AssertionError(f"unknown node {node}")

    def reduced(
        self,
        node: Reduce,
        values: Mapping[Expr, torch.Tensor],
        free: Mapping[Expr, frozenset[int]],
    ) -> torch.Tensor:
        variable = RowIndex(node.number)
        available = free[node] | {node.number}
        order = [
            inner
            for inner in walk(node.body)
            if node.number in free[inner] and free[inner] <= available and inner is not variable
        ]
        total = self.tensor_of(_neutral(node.op, node.dtype), node.dtype)
        for row in range(node.extent):
            local = {**values, variable: self.tensor_of(row, DType.INT32)}
            for inner in order:
                local[inner] = self.step(inner, local, free)
            total = _REDUCE[node.op](total, local[node.body])
        return total

    def tensor_of(self, value: torch.Tensor | Number, dtype: DType) -> torch.Tensor:
        if isinstance(value, torch.Tensor):
            return value.to(TORCH_DTYPES[dtype])
        # torch.full and not torch.tensor: on a GPU it does not wait. It refuses a number that is
        # too large for float32, which a conversion makes infinite, as kernels do.
        wanted = TORCH_DTYPES[dtype]
        if wanted is torch.float32 and abs(value) > _FLOAT32_MAX:
            return torch.full((), value, dtype=torch.float64, device=self.device).to(wanted)
        return torch.full((), value, dtype=wanted, device=self.device)


def _free_rows(order: Sequence[Expr]) -> dict[Expr, frozenset[int]]:
    """Numbers of the ``RowIndex``es that each node reads and no ``Reduce`` in it binds."""
    free: dict[Expr, frozenset[int]] = {}
    for node in order:
        match node:
            case RowIndex(number):
                free[node] = frozenset({number})
            case Reduce(_, number, _, body):
                free[node] = free[body] - {number}
            case _:
                free[node] = frozenset().union(*(free[child] for child in node.children))
    return free


def _neutral(op: ReduceOp, dtype: DType) -> Number:
    match op:
        case ReduceOp.SUM:
            return 0
        case ReduceOp.MAX:
            return -torch.inf if dtype.is_float else torch.iinfo(TORCH_DTYPES[dtype]).min
        case ReduceOp.MIN:
            return torch.inf if dtype.is_float else torch.iinfo(TORCH_DTYPES[dtype]).max
        case _:
            assert_never(op)


def _integer_division(
    op: BinaryOp, lhs: torch.Tensor, rhs: torch.Tensor, divisor: Expr
) -> torch.Tensor:
    """Floor quotient or remainder of integers; 0 where ``rhs`` is 0, wrapping where it is -1."""
    match divisor:
        case Const(int(n)) if n > 0 and n & (n - 1) == 0:
            # Exact for every sign, and many times faster than a division.
            return lhs >> (n.bit_length() - 1) if op is BinaryOp.FLOORDIV else lhs & (n - 1)
        case Const(int(n)) if n not in (0, -1):
            return _BINARY[op](lhs, rhs)
    # The least integer // -1 is a hardware trap, as is a division by 0.
    is_special = (rhs == 0) | (rhs == -1)
    result = _BINARY[op](lhs, torch.where(is_special, 1, rhs))
    if op is BinaryOp.MOD:
        return torch.where(is_special, 0, result)
    return torch.where(is_special, lhs * rhs, result)  # lhs * 0 = 0, lhs * -1 = -lhs


def _float_power(base: torch.Tensor, power: torch.Tensor, exponent: Expr) -> torch.Tensor:
    match exponent:
        case Const(value):
            return base * base if value == 2 else torch.pow(base, power)
        case _:
            return torch.where(power == 2, base * base, torch.pow(base, power))


def _converted(x: torch.Tensor, to: DType) -> torch.Tensor:
    if to is DType.BOOL:
        return x if x.dtype == torch.bool else x != 0
    if not (x.is_floating_point() and to.is_int):
        return x.to(TORCH_DTYPES[to])
    limits = torch.iinfo(TORCH_DTYPES[to])
    # -limits.min is a power of two, hence exact in every float dtype; limits.max is not.
    too_great = x >= -float(limits.min)
    too_small = x < float(limits.min)
    inside = torch.where(too_great | too_small | x.isnan(), 0.0, x).to(TORCH_DTYPES[to])
    return inside.masked_fill(too_great, limits.max).masked_fill(too_small, limits.min)


def _gathered(tensor: torch.Tensor, indices: Sequence[torch.Tensor], dtype: DType) -> torch.Tensor:
    target = TORCH_DTYPES[dtype]
    if not indices:
        return tensor.to(target)
    if 0 in tensor.shape:
        return torch.zeros_like(functools.reduce(torch.add, indices), dtype=target)
    where = tuple(
        _into_range(index, size) for index, size in zip(indices, tensor.shape, strict=True)
    )
    if tensor.dtype in _NOT_INDEXABLE:
        tensor = tensor.to(torch.int64)
    return tensor[where].to(target)


# PyTorch has no gather for these on every device.
_NOT_INDEXABLE = (torch.uint16, torch.uint32, torch.uint64)


def _into_range(index: torch.Tensor, size: int) -> torch.Tensor:
    """``index`` with negative values counted from the end, then clamped to ``[0, size - 1]``."""
    index = index.to(torch.int64)
    return torch.where(index < 0, index + size, index).clamp_(0, size - 1)
