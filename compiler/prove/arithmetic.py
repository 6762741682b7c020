"""Whether a predicate can be true at all, by integer arithmetic on its comparisons.

Nothing is enumerated, so an answer may hold for all lengths. Comparisons of integers become
linear inequalities between atoms: coordinates, floor quotients, and any value that is not looked
into, such as an element of a captured tensor. Conditions that cannot be linear are atoms of logic.
Each case of ``|``, ``abs``, ``min``, ``max`` and ``where`` is followed until its inequalities
contradict each other. Integers are taken as mathematical ones: where none can wrap, see
``intervals.never_wraps``.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from attnc.intervals import Facts
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
    Select,
    Unary,
    UnaryOp,
    walk,
)
from attnc.prove.forms import Forms, Greatest, Magnitude, Product, Quotient
from attnc.prove.linear import Atom, Linear, contradict

_MAX_CASES = 300
_MAX_NODES = 400


@dataclass(frozen=True)
class Holds:
    """``expr``, a condition, is ``wanted``."""

    expr: Expr
    wanted: bool = True


@dataclass(frozen=True)
class AtLeast0:
    form: Linear


@dataclass(frozen=True)
class Equals0:
    form: Linear


Goal = Holds | AtLeast0 | Equals0
Clause = tuple[tuple[Goal, ...], ...]


@dataclass(frozen=True)
class _Definition:
    """What is known of an atom: goals that hold, and alternatives of which one does."""

    goals: tuple[Goal, ...] = ()
    clauses: tuple[Clause, ...] = ()


@dataclass
class _Case:
    """What one case assumes, and the alternatives it has not chosen from yet."""

    goals: list[Goal]
    at_least_0: list[Linear] = field(default_factory=list)
    equal_0: list[Linear] = field(default_factory=list)
    clauses: list[Clause] = field(default_factory=list)
    truths: dict[Hashable, bool] = field(default_factory=dict)
    known: set[Atom] = field(default_factory=set)

    def with_goals(self, goals: tuple[Goal, ...]) -> _Case:
        return _Case(
            list(goals),
            list(self.at_least_0),
            list(self.equal_0),
            list(self.clauses),
            dict(self.truths),
            set(self.known),
        )


def is_impossible(predicate: Expr, limits: Mapping[IndexName, int | None], facts: Facts) -> bool:
    """Whether ``predicate`` is false at all coordinates; False says nothing.

    Args:
        predicate: Boolean, without operations that wrap at these coordinates.
        limits: For each coordinate the number it lies below, or None; all are at least 0.
        facts: The captured tensors, whose least and greatest integers are used.
    """
    if sum(1 for _ in walk(predicate)) > _MAX_NODES:
        return False
    return _Search(limits, facts).closes(_Case([Holds(predicate)]))


class _Search:
    def __init__(self, limits: Mapping[IndexName, int | None], facts: Facts) -> None:
        self.limits = limits
        self.facts = facts
        self.n_cases = 0
        self.definitions: dict[Atom, _Definition] = {}
        self.forms = Forms()

    def closes(self, case: _Case) -> bool:
        """Whether the case contradicts itself, whatever it chooses."""
        self.n_cases += 1
        if self.n_cases > _MAX_CASES:
            return False
        while case.goals:
            if not self._assume(case.goals.pop(), case):
                return True
        if contradict(case.at_least_0, case.equal_0):
            return True
        if not case.clauses:
            return False
        case.clauses.sort(key=len, reverse=True)
        clause = case.clauses.pop()
        return all(self.closes(case.with_goals(goals)) for goals in clause)

    def _assume(self, goal: Goal, case: _Case) -> bool:
        """Adds a goal to the case; False where that contradicts what it knows."""
        match goal:
            case AtLeast0(form):
                case.at_least_0.append(form)
                self._define(form, case)
                return True
            case Equals0(form):
                case.equal_0.append(form)
                self._define(form, case)
                return True
            case Holds(expr, wanted):
                return self._assume_condition(expr, wanted, case)

    def _define(self, form: Linear, case: _Case) -> None:
        for atom, _ in form.factors:
            if atom in case.known:
                continue
            case.known.add(atom)
            definition = self._definition(atom)
            case.goals.extend(definition.goals)
            case.clauses.extend(definition.clauses)

    def _assume_condition(self, expr: Expr, wanted: bool, case: _Case) -> bool:
        match expr:
            case Const(value, DType.BOOL):
                return value is wanted
            case Unary(UnaryOp.NOT, x):
                case.goals.append(Holds(x, not wanted))
            case Binary(BinaryOp.AND | BinaryOp.OR as op, x, y):
                if (op is BinaryOp.AND) is wanted:
                    case.goals += [Holds(x, wanted), Holds(y, wanted)]
                else:
                    case.clauses.append(((Holds(x, wanted),), (Holds(y, wanted),)))
            case Binary(BinaryOp.XOR, x, y):
                case.clauses.append(_xor(x, y, wanted))
            case Compare(CompareOp.NE | CompareOp.EQ as op, x, y) if x.dtype is DType.BOOL:
                case.clauses.append(_xor(x, y, (op is CompareOp.NE) is wanted))
            case Select(cond, x, y):
                case.clauses.append(
                    (
                        (Holds(cond), Holds(x, wanted)),
                        (Holds(cond, False), Holds(y, wanted)),
                    )
                )
            case Compare(op, x, y) if x.dtype.is_int:
                return self._assume_comparison(op if wanted else _NEGATED[op], x, y, case)
            case Cast(x, DType.BOOL) if x.dtype.is_int:
                op = CompareOp.NE if wanted else CompareOp.EQ
                return self._assume_comparison(op, x, Const(0, x.dtype), case)
            case _:
                key, positive = _literal(expr)
                return case.truths.setdefault(key, wanted is positive) is (wanted is positive)
        return True

    def _assume_comparison(self, op: CompareOp, x: Expr, y: Expr, case: _Case) -> bool:
        difference = self.forms.of(x).plus(self.forms.of(y), -1)
        match op:
            case CompareOp.GE:
                case.goals.append(AtLeast0(difference))
            case CompareOp.GT:
                case.goals.append(AtLeast0(difference.shifted(-1)))
            case CompareOp.LE:
                case.goals.append(AtLeast0(difference.times(-1)))
            case CompareOp.LT:
                case.goals.append(AtLeast0(difference.times(-1).shifted(-1)))
            case CompareOp.EQ:
                case.goals.append(Equals0(difference))
            case CompareOp.NE:
                less, more = difference.times(-1).shifted(-1), difference.shifted(-1)
                case.clauses.append(((AtLeast0(less),), (AtLeast0(more),)))
        return True

    def _definition(self, atom: Atom) -> _Definition:
        if atom not in self.definitions:
            self.definitions[atom] = self._meaning(atom)
        return self.definitions[atom]

    def _meaning(self, atom: Atom) -> _Definition:
        match atom:
            case Quotient(of, divisor):
                remainder = of.plus(Linear.atom(atom), -divisor)
                highest = remainder.times(-1).shifted(divisor - 1)
                return _Definition((AtLeast0(remainder), AtLeast0(highest)))
            case Index(name):
                return _between(atom, 0, self.limits.get(name))
            case Magnitude(of):
                return _greatest(atom, (of, of.times(-1)))
            case Greatest(of):
                return _greatest(atom, of)
            case Product(of) if len(of) == 1:
                return _between(atom, 0, None)
            case Select(cond, x, y):
                chosen, other = (self.forms.of(v).plus(Linear.atom(atom), -1) for v in (x, y))
                clause: Clause = (
                    (Holds(cond), Equals0(chosen)),
                    (Holds(cond, False), Equals0(other)),
                )
                return _Definition(clauses=(clause,))
            case Cast(x, _) if x.dtype is DType.BOOL:
                one = Equals0(Linear.atom(atom).shifted(-1))
                zero = Equals0(Linear.atom(atom))
                return _Definition(clauses=(((Holds(x), one), (Holds(x, False), zero)),))
            case Gather(slot, _, dtype) if dtype.is_int:
                values = self.facts.ranges_of(slot, dtype).values
                if not values.size:
                    return _between(atom, 0, 1)
                return _between(atom, int(values.min()), int(values.max()) + 1)
            case _:
                return _Definition()


_NEGATED = {
    CompareOp.EQ: CompareOp.NE,
    CompareOp.NE: CompareOp.EQ,
    CompareOp.LT: CompareOp.GE,
    CompareOp.GE: CompareOp.LT,
    CompareOp.GT: CompareOp.LE,
    CompareOp.LE: CompareOp.GT,
}


def _greatest(atom: Atom, values: Iterable[Linear]) -> _Definition:
    over = [Linear.atom(atom).plus(value, -1) for value in values]
    clause: Clause = tuple((Equals0(difference),) for difference in over)
    return _Definition(tuple(AtLeast0(difference) for difference in over), (clause,))


def _between(atom: Atom, low: int, stop: int | None) -> _Definition:
    goals = [AtLeast0(Linear.atom(atom).shifted(-low))]
    if stop is not None:
        goals.append(AtLeast0(Linear.atom(atom).times(-1).shifted(stop - 1)))
    return _Definition(tuple(goals))


def _xor(x: Expr, y: Expr, wanted: bool) -> Clause:
    return (Holds(x), Holds(y, not wanted)), (Holds(x, False), Holds(y, wanted))


def _literal(expr: Expr) -> tuple[Hashable, bool]:
    """A key for a condition that is not looked into, and whether it is the key's truth or not.

    Mirrored comparisons of floats share one; their negation is another truth, because of NaN.
    """
    match expr:
        case Compare(CompareOp.GT, x, y):
            return (CompareOp.LT, y, x), True
        case Compare(CompareOp.GE, x, y):
            return (CompareOp.LE, y, x), True
        case Compare(CompareOp.LT | CompareOp.LE as op, x, y):
            return (op, x, y), True
        case Compare(op, x, y):
            return (CompareOp.EQ, frozenset({x, y})), op is CompareOp.EQ
        case _:
            return expr, True
