"""What is wrong with what the operators were given, before a kernel is made of it.

Texts that attnc writes are right. Others may come in with the operator, which takes any: a gather of
more dimensions than its tensor has would read memory that is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from attnc.errors import GraphArgumentError, GraphTextError
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
    Ref,
    RowIndex,
    Score,
    Select,
    Unary,
    UnaryOp,
    free_rows,
    walk,
)
from attnc.printer import format_expr
from attnc.trace.slots import load_dtype
from attnc.trace.traced import MOST_NODES

_BITS = (BinaryOp.AND, BinaryOp.OR, BinaryOp.XOR)
_SHIFTS = (BinaryOp.SHL, BinaryOp.SHR)
_OF_ANY_NUMBER = (UnaryOp.NEG, UnaryOp.ABS)
_MAX_EXTENT = 1 << 20

#: Load dtype and number of dimensions of each captured tensor.
Slots = tuple[tuple[DType, int], ...]


def slots_of_tensors(tensors: Sequence[torch.Tensor]) -> Slots:
    """What a text may say of the captured tensors.

    Raises:
        UnsupportedDTypeError: Kernels do not read one of them.
    """
    return tuple((load_dtype(tensor.dtype), tensor.dim()) for tensor in tensors)


@lru_cache(maxsize=4096)
def require_well_formed(role: str, expr: Expr | None, slots: Slots, float_dtype: DType) -> None:
    """Raises unless ``expr`` has the dtype of its role and every node that of its operands.

    Args:
        role: "mask" or "score".
        expr: Numbers are in place of params; None for no text.
        slots: See ``slots_of_tensors``.
        float_dtype: Dtype of the scores of the call.

    Raises:
        GraphTextError: It says what no kernel computes.
    """
    if expr is None:
        return
    nodes = list(walk(expr))
    if len(nodes) > MOST_NODES:
        _refuse(role, expr, f"it computes {len(nodes)} different values, of at most {MOST_NODES}")
    for node in nodes:
        problem = _problem(node, slots, None if role == "mask" else float_dtype)
        if problem:
            _refuse(role, node, problem)
    wanted = DType.BOOL if role == "mask" else float_dtype
    if expr.dtype is not wanted:
        _refuse(role, expr, f"it is {expr.dtype.value}, a {role} is {wanted.value}")
    if (free := min(free_rows(expr)[expr], default=None)) is not None:
        _refuse(role, RowIndex(free), "no reduction runs over it")


def _refuse(role: str, node: Expr, problem: str) -> None:
    raise GraphTextError(role=role, text=format_expr(node, max_length=100), problem=problem)


def _problem(node: Expr, slots: Slots, float_dtype: DType | None) -> str:
    """What is wrong with ``node`` itself; ``float_dtype`` is None where there is no score."""
    match node:
        case Index() | RowIndex() | Cast() | Const():
            return ""
        case Score(dtype):
            if float_dtype is None:
                return "a mask has no score"
            return "" if dtype is float_dtype else f"scores are {float_dtype.value} here"
        case Gather(slot, indices, dtype):
            return _gather_problem(slot, indices, dtype, slots)
        case Unary(op, x):
            return _unary_problem(op, x.dtype)
        case Binary(op, lhs, rhs):
            return _binary_problem(op, lhs.dtype, rhs.dtype)
        case Compare(_, lhs, rhs):
            return "" if lhs.dtype is rhs.dtype else "its operands differ in dtype"
        case Select(condition, if_true, if_false):
            if condition.dtype is not DType.BOOL:
                return "its condition is no bool"
            return "" if if_true.dtype is if_false.dtype else "its values differ in dtype"
        case Reduce(_, _, extent, body):
            if not 0 <= extent <= _MAX_EXTENT:
                return f"a reduction runs over 0 to {_MAX_EXTENT} elements"
            return "it reduces a bool" if body.dtype is DType.BOOL else ""
        case Param() | Ref():
            return "its value is not given"
        case _:
            return "no such expression"


def _gather_problem(slot: int, indices: tuple[Expr, ...], dtype: DType, slots: Slots) -> str:
    if slot >= len(slots):
        return f"there are {len(slots)} captured tensors"
    stored, rank = slots[slot]
    if dtype is not stored:
        return f"t{slot} holds {stored.value}"
    if len(indices) != rank:
        return f"t{slot} has {rank} dimensions"
    return "" if all(index.dtype.is_int for index in indices) else "an index is no integer"


def _unary_problem(op: UnaryOp, dtype: DType) -> str:
    if op is UnaryOp.NOT:
        return "it inverts a float" if dtype.is_float else ""
    if op in _OF_ANY_NUMBER:
        return "it takes a number" if dtype is DType.BOOL else ""
    return "" if dtype.is_float else "it takes a float"


def _binary_problem(op: BinaryOp, lhs: DType, rhs: DType) -> str:
    if lhs is not rhs:
        return "its operands differ in dtype"
    if op in _BITS:
        return "it takes bools or integers" if lhs.is_float else ""
    if lhs is DType.BOOL:
        return "it takes numbers"
    if op in _SHIFTS:
        return "" if lhs.is_int else "it takes integers"
    return "" if op is not BinaryOp.DIV or lhs.is_float else "it takes floats"


def check_backward(
    grad_out: torch.Tensor | None,
    grad_lse: torch.Tensor | None,
    q: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    captured: Sequence[torch.Tensor],
    needs: Sequence[bool],
) -> None:
    """Raises GraphArgumentError unless what a forward gave fits its inputs."""
    outer, statistics = q.shape[:3], torch.float64 if q.dtype is torch.float64 else torch.float32
    for name, tensor, shape, dtype in (
        ("grad_out", grad_out, (*outer, v.shape[3]), q.dtype),
        ("out", out, (*outer, v.shape[3]), q.dtype),
        ("grad_lse", grad_lse, tuple(outer), statistics),
        ("lse", lse, tuple(outer), statistics),
    ):
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape or tensor.dtype is not dtype or tensor.device != q.device:
            found = f"is {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
            problem = f"{found}; it belongs to q as {dtype} {shape} on {q.device}"
            raise GraphArgumentError(operator="attention_backward", argument=name, problem=problem)
    if len(needs) != 3 + len(captured):
        problem = f"has {len(needs)} values for q, k, v and {len(captured)} captured tensors"
        raise GraphArgumentError(operator="attention_backward", argument="needs", problem=problem)
