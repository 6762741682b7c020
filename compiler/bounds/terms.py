"""A predicate as a union of intervals of kv_idx, with bounds that are functions of q_idx.

Comparisons are solved for ``kv_idx`` through sums, integer factors and divisors, abs, squares, min
and max. A condition that repeats within a tile of keys does not tell tiles apart: the term only
remembers its period. Integers are taken as mathematical integers: see ``intervals.may_wrap`` for
when that is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attnc.bounds.algebra import (
    Sympy,
    clamped_to_bit,
    expanded,
    floored,
    integer,
    maximum,
    minimum,
)
from attnc.bounds.conditions import (
    MIRRORED,
    NEGATED,
    half_of,
    has_root,
    is_bool,
    is_choice,
    where_not_negative,
)
from attnc.bounds.periods import divisor_of, limits_of, period_of
from attnc.bounds.proofs import take_step
from attnc.bounds.term import (
    EVERYTHING,
    NotAnIntervalError,
    Term,
    Terms,
    both,
    either,
    symbol,
)
from attnc.bounds.values import Values, is_fixed
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
    Select,
    Unary,
    UnaryOp,
    indices_of,
    level_of,
    replaced,
    walk,
)

_GREATEST_FACTOR = 2**20  # so that sums of positions stay below what uniform values are clamped to


@dataclass
class TermSolver(Values):
    """Solves conditions for ``kv_idx``, for tiles of ``block_n`` keys.

    Attributes:
        halves: Numbers of keys that are taken to be half of them, or more.
    """

    block_n: int = 1
    halves: frozenset[int] = frozenset()

    def terms(self, expr: Expr, wanted: bool = True) -> Terms:
        """Where ``expr`` is ``wanted``, as a union.

        Raises:
            NotAnIntervalError: It is no such union.
        """
        match expr:
            case Const(value, DType.BOOL):
                return [EVERYTHING] if value is wanted else []
            case Unary(UnaryOp.NOT, x):
                return self.terms(x, not wanted)
            case Binary(BinaryOp.AND | BinaryOp.OR as op, x, y):
                a, b = self.terms(x, wanted), self.terms(y, wanted)
                return self._both(a, b) if (op is BinaryOp.AND) is wanted else either(a, b)
            case Binary(BinaryOp.XOR, x, y) | Compare(CompareOp.NE, x, y) if is_bool(x):
                return self._differ(x, y, wanted)
            case Compare(CompareOp.EQ, x, y) if is_bool(x):
                return self._differ(x, y, not wanted)
            case Select(cond, x, y):
                return self._chosen(cond, self.terms(x, wanted), self.terms(y, wanted))
            case _:
                try:
                    return self._condition(expr, wanted)
                except NotAnIntervalError:
                    return [self._periodic(expr, wanted)]

    def _condition(self, expr: Expr, wanted: bool) -> Terms:
        match expr:
            case Compare(op, x, y) if x.dtype.is_int:
                return self._compared(NEGATED[op] if not wanted else op, x, y)
            case Compare(op, x, y) if x.dtype.is_float and level_of(expr) is not Level.UNIFORM:
                return self._compared_floats(NEGATED[op] if not wanted else op, x, y)
            case Cast(x, DType.BOOL) if x.dtype.is_int:
                op = CompareOp.NE if wanted else CompareOp.EQ
                return self._compared(op, x, Const(0, x.dtype))
            case _ if level_of(expr) is Level.UNIFORM:
                flag = self.value(Cast(expr, DType.INT32))
                return [where_not_negative(flag - 1 if wanted else -flag)]
            case _:
                raise NotAnIntervalError

    def _periodic(self, expr: Expr, wanted: bool) -> Term:
        """All keys, some of which are visible in every tile or in none."""
        period = period_of([expr], self.block_n)
        if period is None or IndexName.KV not in indices_of(expr):
            raise NotAnIntervalError
        return Term(period=period, residue=self._residue(expr, period) if wanted else None)

    def _residue(self, expr: Expr, period: int) -> Sympy | None:
        """What ``kv_idx`` is modulo ``period`` where ``expr`` holds, if that is one number."""
        match expr:
            case Compare(CompareOp.EQ, Binary(BinaryOp.MOD | BinaryOp.AND as op, x, y), rest):
                pass
            case _:
                return None
        if divisor_of(op, y) != period or IndexName.KV in indices_of(rest):
            return None
        try:
            atom, factor, free = self._linear(x)
            if atom == Index(IndexName.KV) and abs(factor) == 1:
                return factor * (self.value(rest) - free)
        except NotAnIntervalError:
            pass
        return None

    def _both(self, x: Terms, y: Terms) -> Terms:
        return both(x, y, self.block_n)

    def _either(self, x: Terms, y: Terms) -> Terms:
        """The union; of one bound and a guard it is one term, whose bound the guard removes."""
        for (*others, bound), (*more, guard) in ((x, y), (y, x)) if x and y else ():
            bounds = (*bound.lows, *bound.highs)
            if others or more or len(bounds) != 1 or bound.period:
                continue
            if len(guard.guards) != 1 or guard != Term(guards=guard.guards):
                continue
            (value,) = guard.guards
            guards = frozenset(maximum(other, value) for other in bound.guards)
            whole = self.block_n * symbol("n_kv_blocks")
            removed = whole * clamped_to_bit(value + 1)
            if bound.lows:
                return [Term(frozenset({minimum(*bounds, whole - removed)}), frozenset(), guards)]
            return [Term(frozenset(), frozenset({maximum(*bounds, removed)}), guards)]
        return either(x, y)

    def _chosen(self, cond: Expr, if_true: Terms, if_false: Terms) -> Terms:
        chosen = self._both(self.terms(cond), if_true)
        return either(chosen, self._both(self.terms(cond, False), if_false))

    def _differ(self, x: Expr, y: Expr, wanted: bool) -> Terms:
        one = self._both(self.terms(x), self.terms(y, not wanted))
        other = self._both(self.terms(x, False), self.terms(y, wanted))
        return either(one, other)

    def _compared(self, op: CompareOp, x: Expr, y: Expr) -> Terms:
        difference = Binary(BinaryOp.SUB, x, y)
        choice = next((node for node in walk(difference) if is_choice(node)), None)
        if isinstance(choice, Select):
            first, second = (
                self._compared(op, *(replaced(side, {choice: branch}) for side in (x, y)))
                for branch in (choice.if_true, choice.if_false)
            )
            return self._chosen(choice.cond, first, second)
        if is_fixed(x, y):
            flag = self.value(Cast(Compare(op, x, y), DType.INT32))
            return [where_not_negative(flag - 1)]
        match op:
            case CompareOp.LE:
                return self.at_most(difference, integer(0))
            case CompareOp.LT:
                return self.at_most(difference, integer(-1))
            case CompareOp.GE:
                return self.at_least(difference, integer(0))
            case CompareOp.GT:
                return self.at_least(difference, integer(1))
            case CompareOp.EQ:
                at_most = self.at_most(difference, integer(0))
                return self._both(at_most, self.at_least(difference, integer(0)))
            case _:
                at_most = self.at_most(difference, integer(-1))
                return either(at_most, self.at_least(difference, integer(1)))

    def _compared_floats(self, op: CompareOp, x: Expr, y: Expr) -> Terms:
        """An integer, converted, against a float that depends on ``b`` and ``h`` only."""
        match x, y:
            case (Cast(whole), _) if whole.dtype.is_int and level_of(y) is Level.UNIFORM:
                limit = y
            case (_, Cast(whole)) if whole.dtype.is_int and level_of(x) is Level.UNIFORM:
                limit, op = x, MIRRORED[op]
            case _:
                raise NotAnIntervalError
        match op:
            case CompareOp.LT:  # n < x where n < ceil(x)
                return self.at_most(whole, self.threshold(limit, UnaryOp.CEIL) - 1)
            case CompareOp.LE:
                return self.at_most(whole, self.threshold(limit, UnaryOp.FLOOR))
            case CompareOp.GT:
                return self.at_least(whole, self.threshold(limit, UnaryOp.FLOOR) + 1)
            case CompareOp.GE:
                return self.at_least(whole, self.threshold(limit, UnaryOp.CEIL))
            case _:
                raise NotAnIntervalError

    def at_most(self, expr: Expr, bound: Sympy) -> Terms:
        """Where ``expr <= bound``; ``bound`` is a function of ``q_idx``."""
        return self._limited(expr, bound, 1)

    def at_least(self, expr: Expr, bound: Sympy) -> Terms:
        """Where ``expr >= bound``; ``bound`` is a function of ``q_idx``."""
        return self._limited(expr, -bound, -1)

    def _limited(self, expr: Expr, bound: Sympy, sign: int) -> Terms:
        """Where ``sign * expr <= bound``."""
        take_step()
        atoms, rest = self._sum(expr, sign)
        period, least = self._least_of_periodic(atoms)
        limit = bound - rest - least
        repeated = Term(period=period)
        if not atoms:
            return self._both([where_not_negative(limit)], [repeated])
        if len(atoms) > 1:
            raise NotAnIntervalError
        ((atom, factor),) = atoms.items()
        if abs(factor) > _GREATEST_FACTOR:
            raise NotAnIntervalError
        # factor * atom <= limit, so atom <= limit / factor for a positive factor.
        if factor > 0:
            found = self._atom_at_most(atom, floored(limit, integer(factor)))
        else:
            found = self._atom_at_least(atom, -floored(limit, integer(-factor)))
        return self._both(found, [repeated])

    def _least_of_periodic(self, atoms: dict[Expr, int]) -> tuple[int, int]:
        """Takes addends that repeat within a tile out of a sum of several: period, least value.

        With the least value in their place a condition ``... <= limit`` is the weakest.
        """
        if len(atoms) < 2:
            return 0, 0
        repeated = [atom for atom in atoms if period_of([atom], self.block_n)]
        period = period_of(repeated, self.block_n) if repeated else 0
        if not period:
            return 0, 0
        total = 0
        for atom in repeated:
            factor = atoms.pop(atom)
            end = limits_of(atom)[0 if factor > 0 else 1]
            if end is None:
                raise NotAnIntervalError
            total += factor * end
        return period, total

    def _atom_at_most(self, atom: Expr, bound: Sympy) -> Terms:
        match atom:
            case Index(IndexName.KV):
                return [Term(highs=frozenset({bound + 1}))]
            case Binary(BinaryOp.FLOORDIV | BinaryOp.SHR as op, x, y) if divisor_of(op, y):
                c = divisor_of(op, y) or 1
                return self.at_most(x, c * bound + (c - 1))
            case Binary(BinaryOp.FLOORDIV, x, Const(int(c))) if c < 0:
                return self.at_least(x, c * bound + (c + 1))
            case Binary(BinaryOp.FLOORDIV, x, y) if level_of(y) is Level.UNIFORM:
                divisor = self.divisor(y)
                return self.at_most(x, expanded(divisor * bound) + divisor - 1)
            case Binary(BinaryOp.MOD, x) if half_of(atom) in self.halves:
                return self._in_halves(half_of(atom) or 0, self.at_most(x, bound))
            case Unary(UnaryOp.ABS, x):
                return self._both(self.at_most(x, bound), self.at_least(x, -bound))
            case Binary(BinaryOp.MUL, x, y) if x is y and has_root(bound, x):
                root = self.root(bound)
                inside = self._both(self.at_most(x, root), self.at_least(x, -root))
                return self._both(inside, [where_not_negative(bound)])
            case Binary(BinaryOp.MAX, x, y):
                return self._both(self.at_most(x, bound), self.at_most(y, bound))
            case Binary(BinaryOp.MIN, x, y):
                return self._either(self.at_most(x, bound), self.at_most(y, bound))
            case _:
                raise NotAnIntervalError

    def _atom_at_least(self, atom: Expr, bound: Sympy) -> Terms:
        match atom:
            case Index(IndexName.KV):
                return [Term(lows=frozenset({bound}))]
            case Binary(BinaryOp.FLOORDIV | BinaryOp.SHR as op, x, y) if divisor_of(op, y):
                return self.at_least(x, (divisor_of(op, y) or 1) * bound)
            case Binary(BinaryOp.FLOORDIV, x, Const(int(c))) if c < 0:
                return self.at_most(x, c * bound)
            case Binary(BinaryOp.FLOORDIV, x, y) if level_of(y) is Level.UNIFORM:
                return self.at_least(x, expanded(self.divisor(y) * bound))
            case Binary(BinaryOp.MOD, x) if half_of(atom) in self.halves:
                return self._in_halves(half_of(atom) or 0, self.at_least(x, bound))
            case Unary(UnaryOp.ABS, x):
                return either(self.at_least(x, bound), self.at_most(x, -bound))
            case Binary(BinaryOp.MUL, x, y) if x is y and has_root(bound, x):
                beyond = self.root(bound - 1) + 1
                outside = either(self.at_least(x, beyond), self.at_most(x, -beyond))
                return either(outside, [where_not_negative(-bound)])
            case Binary(BinaryOp.MAX, x, y):
                return self._either(self.at_least(x, bound), self.at_least(y, bound))
            case Binary(BinaryOp.MIN, x, y):
                return self._both(self.at_least(x, bound), self.at_least(y, bound))
            case _:
                raise NotAnIntervalError

    def _in_halves(self, half: int, keys: Terms) -> Terms:
        """``keys`` in the first and in the second ``half`` keys, which are assumed to be all."""
        self.assumptions[2 * half - symbol("n_keys")] = None
        middle = frozenset({integer(half)})
        shifted = [
            Term(
                frozenset(low + half for low in x.lows), frozenset(high + half for high in x.highs)
            )
            for x in keys
        ]
        first = self._both(keys, [Term(highs=middle)])
        return either(first, self._both(shifted, [Term(lows=middle)]))

    def _linear(self, expr: Expr) -> tuple[Expr | None, int, Sympy]:
        """``expr`` as ``factor * atom + rest``, where only the atom reads ``kv_idx``."""
        atoms, rest = self._sum(expr, 1)
        if len(atoms) > 1:
            raise NotAnIntervalError
        atom, factor = next(iter(atoms.items()), (None, 0))
        return atom, factor, rest

    def _sum(self, expr: Expr, factor: int) -> tuple[dict[Expr, int], Sympy]:
        """``factor * expr`` as factors of atoms that read ``kv_idx``, and a rest that does not."""
        atoms: dict[Expr, int] = {}
        rest = integer(0)
        for atom, part in self._addends(expr, factor):
            if IndexName.KV in indices_of(atom):
                atoms[atom] = atoms.get(atom, 0) + part
            else:
                rest += part * self.value(atom)
        return {atom: part for atom, part in atoms.items() if part}, rest

    def _addends(self, expr: Expr, factor: int) -> Iterator[tuple[Expr, int]]:
        if IndexName.KV not in indices_of(expr):
            yield expr, factor
            return
        match expr:
            case Binary(BinaryOp.SUB, x, Binary(BinaryOp.MOD, y, Const(int(c)))) if x is y and c:
                yield Binary(BinaryOp.FLOORDIV, x, Const(c, x.dtype)), factor * c
            case Binary(BinaryOp.ADD | BinaryOp.SUB as op, x, y):
                yield from self._addends(x, factor)
                yield from self._addends(y, factor if op is BinaryOp.ADD else -factor)
            case Binary(BinaryOp.MUL, x, Const(int(c))) | Binary(BinaryOp.MUL, Const(int(c)), x):
                yield from self._addends(x, factor * c)
            case Binary(BinaryOp.SHL, x, Const(int(s))) if 0 <= s < 31:
                yield from self._addends(x, factor * 2**s)
            case Unary(UnaryOp.NEG, x):
                yield from self._addends(x, -factor)
            case Unary(UnaryOp.NOT, x):  # ~x = -1 - x
                yield from self._addends(x, -factor)
                yield Const(1, DType.INT32), -factor
            case Cast(x, DType.INT32 | DType.INT64) if x.dtype.is_int:
                yield from self._addends(x, factor)
            case _:
                yield expr, factor
