"""Bounds of sums in which a term occurs more than once, as one linear form."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from attnc.intervals.ranges import Range
from attnc.ir import Binary, BinaryOp, Cast, Const, DType, Expr, Param, Unary, UnaryOp

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

_MAX_LINEAR_NODES = 64


def linear_bounds(
    lhs: Expr, rhs: Expr, sign: int, values: Mapping[Expr, Range | NDArray[np.int8]]
) -> tuple[Ints, Ints, Flags] | None:
    """Bounds of ``lhs + sign * rhs`` as one linear form, and where they hold.

    None where no term occurs on both sides, so that nothing is gained over interval arithmetic.
    """
    form = _linear_form(lhs, rhs, sign)
    if form is None:
        return None
    terms, inner = form
    lo, hi, exact = np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1, bool)
    magnitude = np.zeros(1)
    for term, factor in terms:
        x = values[term]
        assert isinstance(x, Range)
        ends = (x.lo, x.hi) if factor >= 0 else (x.hi, x.lo)
        magnitude = magnitude + np.maximum(np.abs(x.lo.astype(float)), np.abs(x.hi)) * abs(factor)
        with np.errstate(over="ignore"):
            lo, hi = lo + factor * ends[0], hi + factor * ends[1]
    for node in inner:
        x = values[node]
        assert isinstance(x, Range)
        exact = exact & ~x.wrapped
    return lo, hi, exact & (magnitude < 2.0**62)


@functools.lru_cache(maxsize=1024)
def _linear_form(
    lhs: Expr, rhs: Expr, sign: int
) -> tuple[tuple[tuple[Expr, int], ...], tuple[Expr, ...]] | None:
    """Terms of ``lhs + sign * rhs`` with their factors, and the sums within; None if none repeats."""
    constant = Const | Param
    if isinstance(lhs, constant) or isinstance(rhs, constant) or not (lhs.children + rhs.children):
        return None
    terms: dict[Expr, int] = {}
    inner: list[Expr] = []
    if not _collect(lhs, 1, terms, inner) | _collect(rhs, sign, terms, inner):
        return None
    return tuple(terms.items()), tuple(inner)


def _collect(expr: Expr, factor: int, terms: dict[Expr, int], inner: list[Expr]) -> bool:
    """Adds ``factor * expr`` to a linear form; whether a term came up that was there before."""
    match expr:
        # Shared operands are visited once per use: the limit keeps deep sums cheap.
        case _ if len(inner) >= _MAX_LINEAR_NODES:
            pass
        case Binary(BinaryOp.ADD | BinaryOp.SUB as op, x, y):
            inner.append(expr)
            other = -factor if op is BinaryOp.SUB else factor
            return _collect(x, factor, terms, inner) | _collect(y, other, terms, inner)
        case Binary(BinaryOp.MUL, x, Const(int(c))) | Binary(BinaryOp.MUL, Const(int(c)), x) if (
            abs(factor * c) < 2**31
        ):
            inner.append(expr)
            return _collect(x, factor * c, terms, inner)
        case Unary(UnaryOp.NEG, x):
            inner.append(expr)
            return _collect(x, -factor, terms, inner)
        case Cast(x, DType.INT32 | DType.INT64) if x.dtype.is_int:
            inner.append(expr)
            return _collect(x, factor, terms, inner)
    repeated = expr in terms and not isinstance(expr, Const)
    terms[expr] = terms.get(expr, 0) + factor
    return repeated
