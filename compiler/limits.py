"""A mask whose comparisons are limits of the index that a loop goes over.

A kernel for GPUs holds one tile of queries and goes over tiles of keys (or the reverse). What is
compared there per element should be as little as possible: ``q_idx - kv_idx < window`` is
``kv_idx > q_idx - window``, whose right side is one number per row, known before the loop. Limits
of one direction join to one. What is left per element compares the place within the tile, which
is the same number in every tile, with a limit that moves by a tile's width from tile to tile.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from attnc.intervals.sign import is_not_negative
from attnc.ir import (
    Binary,
    BinaryOp,
    Cast,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    Index,
    IndexName,
    Level,
    Ref,
    Select,
    Unary,
    UnaryOp,
    walk,
)

#: Names that a kernel's tile gives to its first index, and to what is added to it, per element.
FIRST, PLACE = "first", "place"

_GREATEST = 2**31 - 1  # no index is greater
_MAX_NODES = 512  # of a mask: deeper ones would be many calls deep here
_MAX_VALUES = 4  # of a sum
_HUGE = 1 << 40  # beyond all sums of so many int32
_LOGIC = (BinaryOp.AND, BinaryOp.OR)
_FLIPPED = {
    CompareOp.LT: CompareOp.GT,
    CompareOp.LE: CompareOp.GE,
    CompareOp.GT: CompareOp.LT,
    CompareOp.GE: CompareOp.LE,
}


def limits_of(mask: Expr, own: IndexName, *, is_exact: bool) -> Expr:
    """``mask`` with limits of ``own``; equal to it at every pair of indices.

    Args:
        mask: Boolean over the four coordinates, without ``Ref``s.
        own: The index that the loop goes over: Q or KV. It is replaced where it is limited, by
            ``Ref``s named ``FIRST`` and ``PLACE``, whose sum it is.
        is_exact: No integer in the mask can wrap around (``intervals.never_wraps``).
    """
    if sum(1 for _ in walk(mask)) > _MAX_NODES:
        return mask
    return _Limits(own, is_exact).of(mask)


@dataclass(frozen=True)
class _Parts:
    """``own <= upper`` and (or) ``own > lower`` and (or) all ``others``.

    Both limits lie in [-1, 2**31 - 1], so that the difference of one and any index fits 32 bits.
    """

    op: BinaryOp
    upper: Expr | None = None
    lower: Expr | None = None
    others: tuple[Expr, ...] = ()

    @property
    def n_parts(self) -> int:
        return len(self.others) + sum(limit is not None for limit in (self.upper, self.lower))


@dataclass(frozen=True)
class _Limits:
    own: IndexName
    is_exact: bool
    _known: dict[tuple[Expr, BinaryOp], _Parts] = field(default_factory=dict)
    _sums: dict[Expr, _Linear | None] = field(default_factory=dict)

    def of(self, mask: Expr) -> Expr:
        return self._joined(self._parts(mask, BinaryOp.AND))

    # ------------------------------------------------------------ booleans

    def _parts(self, expr: Expr, op: BinaryOp) -> _Parts:
        """``expr`` as operands of ``op``."""
        if (expr, op) not in self._known:
            self._known[expr, op] = self._new_parts(expr, op)
        return self._known[expr, op]

    def _new_parts(self, expr: Expr, op: BinaryOp) -> _Parts:
        match expr:
            case Unary(UnaryOp.NOT, x) if x.dtype is DType.BOOL:
                inside = self._parts(x, _other(op))
                others = tuple(Unary(UnaryOp.NOT, part) for part in inside.others)
                return _Parts(op, upper=inside.lower, lower=inside.upper, others=others)
            case Binary(inner, x, y) if expr.dtype is DType.BOOL and inner in _LOGIC:
                if inner is op:
                    return self._both(self._parts(x, op), self._parts(y, op))
                # One limit, or none, may come of the other operation too.
                inside = self._both(self._parts(x, inner), self._parts(y, inner))
                if inside.n_parts == 1:
                    return replace(inside, op=op)
                return _Parts(op, others=(self._joined(inside),))
            case Compare(compared, x, y) if compared in _FLIPPED and x.dtype.is_int:
                found = self._compared(compared, x, y)
                if found is None:
                    return _Parts(op, others=(expr,))
                if found.op is op or found.n_parts == 1:
                    return replace(found, op=op)
                return _Parts(op, others=(self._joined(found),))
            case _:
                return _Parts(op, others=(expr,))

    def _both(self, x: _Parts, y: _Parts) -> _Parts:
        is_and = x.op is BinaryOp.AND
        least, greatest = (BinaryOp.MIN, BinaryOp.MAX) if is_and else (BinaryOp.MAX, BinaryOp.MIN)
        parts = _Parts(
            x.op,
            _merged(least, x.upper, y.upper),
            _merged(greatest, x.lower, y.lower),
            tuple(dict.fromkeys((*x.others, *y.others))),
        )
        return self._absorbed(parts)

    def _absorbed(self, parts: _Parts) -> _Parts:
        """Conditions that are the same along the loop, joined to a limit that there is."""
        free = [part for part in parts.others if self._is_free(part)]
        if not free or (parts.upper is None and parts.lower is None):
            return parts
        condition = free[0]
        for part in free[1:]:
            condition = Binary(parts.op, condition, part)
        is_and = parts.op is BinaryOp.AND
        others = tuple(part for part in parts.others if part not in free)
        if parts.upper is not None:
            upper = _chosen(condition, parts.upper, -1 if is_and else _GREATEST, is_and)
            return replace(parts, upper=upper, others=others)
        assert parts.lower is not None
        lower = _chosen(condition, parts.lower, _GREATEST if is_and else -1, is_and)
        return replace(parts, lower=lower, others=others)

    def _joined(self, parts: _Parts) -> Expr:
        conditions = list(parts.others)
        for op, limit in ((CompareOp.LE, parts.upper), (CompareOp.GT, parts.lower)):
            if limit is not None:
                # The place is at the level of the loop's index, and so is the tile's first index:
                # what is left of a limit then is computed once per row of each tile.
                level = Level.COLUMN if self.own is IndexName.KV else Level.ROW
                place, first = (Ref(name, DType.INT32, level) for name in (PLACE, FIRST))
                conditions.append(Compare(op, place, Binary(BinaryOp.SUB, limit, first)))
        result = conditions[0]
        for condition in conditions[1:]:
            result = Binary(parts.op, result, condition)
        return result

    # ------------------------------------------------------------ comparisons

    def _compared(self, op: CompareOp, x: Expr, y: Expr) -> _Parts | None:
        """``x op y`` as limits; None where it is none."""
        if self._is_free(x) and not self._is_free(y):
            return self._compared(_FLIPPED[op], y, x)
        if self._is_free(y) and isinstance(x, Unary) and x.op is UnaryOp.ABS:
            return self._around(op, x.x, y)
        left, right = self._linear(x), self._linear(y)
        if left is None or right is None:
            return None
        factor = left.factor - right.factor
        rest = right.plus(left.times(-1), 0)
        if not rest.is_short:
            return None
        if factor == -1:
            op, rest = _FLIPPED[op], rest.times(-1)
        elif factor != 1:
            return None
        return _limit(op, rest)

    def _around(self, op: CompareOp, x: Expr, radius: Expr) -> _Parts | None:
        """``abs(x) op radius``, which is two comparisons with ``x``."""
        inside, outside = self._linear(x), self._linear(radius)
        if inside is None or outside is None or abs(inside.factor) != 1:
            return None
        if not outside.plus(inside, 0).is_short:
            return None
        is_within = op in (CompareOp.LT, CompareOp.LE)
        parts = _Parts(BinaryOp.AND if is_within else BinaryOp.OR)
        for sign, compared in ((1, op), (-1, _FLIPPED[op])):
            rest = outside.times(sign).plus(inside.times(-1), 0)
            if inside.factor == -1:
                compared, rest = _FLIPPED[compared], rest.times(-1)
            parts = self._both(parts, replace(_limit(compared, rest), op=parts.op))
        return parts

    def _is_free(self, expr: Expr) -> bool:
        return not any(
            isinstance(node, Ref) or (isinstance(node, Index) and node.name is self.own)
            for node in walk(expr)
        )

    def _linear(self, expr: Expr) -> _Linear | None:
        """``expr`` as a sum in which ``own`` has a factor; None where a part may wrap around."""
        if expr not in self._sums:
            sum_ = self._new_linear(expr)
            self._sums[expr] = sum_ if sum_ is not None and sum_.is_short else None
        return self._sums[expr]

    def _new_linear(self, expr: Expr) -> _Linear | None:
        if self._is_free(expr):
            if isinstance(expr, Const):
                return _Linear(0, (), int(expr.value))
            return _Linear(0, ((1, _narrow(expr)),), 0)
        match expr:
            case Index():
                return _Linear(1, (), 0)
            case Cast(x, DType.INT64) if x.dtype is DType.INT32:
                return self._linear(x)
            case Binary(BinaryOp.ADD | BinaryOp.SUB as op, x, y):
                sides = (_narrow(x), _narrow(y))
                are_indices = op is BinaryOp.SUB and all(isinstance(z, Index) for z in sides)
                left, right = self._linear(x), self._linear(y)
                if left is None or right is None or not (self.is_exact or are_indices):
                    return None
                sign = 1 if op is BinaryOp.ADD else -1
                return left.plus(right.times(sign), left.factor + sign * right.factor)
            case Unary(UnaryOp.NEG, x):
                inside = self._linear(x)
                if inside is None or not (self.is_exact or isinstance(x, Index)):
                    return None
                return replace(inside.times(-1), factor=-inside.factor)
            case _:
                return None


@dataclass(frozen=True)
class _Linear:
    """``factor * own`` and a sum of signed values and of a number."""

    factor: int
    values: tuple[tuple[int, Expr], ...]
    number: int

    @property
    def is_short(self) -> bool:
        """Whether int64 holds it, if what is huge in it is clamped: so there may be one of that."""
        n_wide = sum(value.dtype is DType.INT64 for _, value in self.values)
        return n_wide <= 1 and len(self.values) <= _MAX_VALUES and abs(self.number) < _HUGE >> 4

    def times(self, sign: int) -> _Linear:
        """The sum, not the factor, times 1 or -1."""
        values = tuple((sign * s, value) for s, value in self.values)
        return replace(self, values=values, number=sign * self.number)

    def plus(self, other: _Linear, factor: int) -> _Linear:
        return _Linear(factor, (*self.values, *other.values), self.number + other.number)


def _limit(op: CompareOp, sum_: _Linear) -> _Parts:
    """``own op sum_`` for an index ``own``."""
    is_upper = op in (CompareOp.LE, CompareOp.LT)
    # own < x is own <= x - 1, and own >= x is own > x - 1.
    if op in (CompareOp.LT, CompareOp.GE):
        sum_ = replace(sum_, number=sum_.number - 1)
    limit = _clamped(sum_)
    return _Parts(BinaryOp.AND, upper=limit) if is_upper else _Parts(BinaryOp.AND, lower=limit)


def _clamped(sum_: _Linear) -> Expr:
    """A short sum in int32, as if computed without end and then clamped into [-1, 2**31 - 1]."""
    match sum_.values:
        case ():
            return Const(min(max(sum_.number, -1), _GREATEST), DType.INT32)
        case ((1, value),) if sum_.number in (0, -1) and value.dtype is DType.INT32:
            # Of int32, x - 1 cannot wrap around where x is not negative.
            least = -1 - sum_.number
            if not is_not_negative(value):
                value = Binary(BinaryOp.MAX, value, Const(least, DType.INT32))
            if sum_.number == 0:
                return value
            return Binary(BinaryOp.SUB, value, Const(1, DType.INT32))
    total: Expr = Const(sum_.number, DType.INT64)
    for sign, value in sum_.values:
        op = BinaryOp.ADD if sign > 0 else BinaryOp.SUB
        is_wide = value.dtype is DType.INT64
        addend = _between(-_HUGE, value, _HUGE) if is_wide else Cast(value, DType.INT64)
        total = Binary(op, total, addend)
    return Cast(_between(-1, total, _GREATEST), DType.INT32)


def _between(least: int, value: Expr, greatest: int) -> Expr:
    """An int64 value, clamped."""
    value = Binary(BinaryOp.MAX, value, Const(least, DType.INT64))
    return Binary(BinaryOp.MIN, value, Const(greatest, DType.INT64))


def _narrow(expr: Expr) -> Expr:
    """An integer before it was widened."""
    match expr:
        case Cast(x, DType.INT64) if x.dtype is DType.INT32:
            return x
        case _:
            return expr


def _merged(op: BinaryOp, x: Expr | None, y: Expr | None) -> Expr | None:
    if x is None or y is None or x is y:
        return x if y is None else y
    return Binary(op, x, y)


def _chosen(condition: Expr, limit: Expr, otherwise: int, is_and: bool) -> Expr:
    """``limit`` where a conjunct holds, or where a disjunct does not."""
    number = Const(otherwise, DType.INT32)
    return Select(condition, limit, number) if is_and else Select(condition, number, limit)


def _other(op: BinaryOp) -> BinaryOp:
    return BinaryOp.OR if op is BinaryOp.AND else BinaryOp.AND
