"""Questions about all pairs: is a predicate false everywhere?

First a few pairs are evaluated, which finds most counterexamples, then the predicate's form is
looked at. Then rectangles are asked, and only those left open are split. Rectangles that splitting
does not settle are evaluated element by element, in bounded memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from attnc.intervals import Truth
from attnc.ir import Expr
from attnc.prove.domain import Domain, Flags, Ints
from attnc.prove.everywhere import proof_by_form
from attnc.prove.record import Effort, Proof, is_leaf
from attnc.simplify import simplify

MAX_BOXES = 1 << 15
MAX_ELEMENTS = 1 << 20
_MAX_GROUPS_SAMPLED = 16
_CORNER = 48


@dataclass(frozen=True)
class _Rectangles:
    """Rectangles of pairs of one size, by group and first coordinates; clipped at the lengths."""

    group: Ints
    q_first: Ints
    kv_first: Ints
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.group)

    def at(self, where: Flags | slice) -> _Rectangles:
        return replace(
            self,
            group=self.group[where],
            q_first=self.q_first[where],
            kv_first=self.kv_first[where],
        )

    def parts(self, size: int) -> Iterator[_Rectangles]:
        for first in range(0, len(self), size):
            yield self.at(slice(first, first + size))

    def ends(self, domain: Domain) -> tuple[Ints, Ints]:
        """The last query and the last key of each."""
        q_last = np.minimum(self.q_first + (self.height - 1), domain.n_queries - 1)
        return q_last, np.minimum(self.kv_first + (self.width - 1), domain.n_keys - 1)

    def n_pairs(self, domain: Domain) -> int:
        q_last, kv_last = self.ends(domain)
        return int(((q_last - self.q_first + 1) * (kv_last - self.kv_first + 1)).sum())

    def quarters(self, domain: Domain) -> _Rectangles:
        """Halves along each side that is longer than 1, those outside left out."""
        height, width = max(self.height // 2, 1), max(self.width // 2, 1)
        rows = np.arange(0, self.height, height)
        columns = np.arange(0, self.width, width)
        q_first = self.q_first[:, None, None] + rows[:, None]
        kv_first = self.kv_first[:, None, None] + columns
        arrays = np.broadcast_arrays(self.group[:, None, None], q_first, kv_first)
        group, q_first, kv_first = (x.reshape(-1) for x in arrays)
        inside = (q_first < domain.n_queries) & (kv_first < domain.n_keys)
        return _Rectangles(group, q_first, kv_first, height, width).at(inside)


def decide_pairs(violation: Expr, domain: Domain, budget: int) -> Proof:
    """Whether ``violation``, a boolean expression, is false at every pair of ``domain``.

    A counterexample is evaluated on ``violation`` as given.
    """
    predicate = simplify(violation)
    proof = _decided(violation, predicate, domain.read_by(predicate), budget)
    return replace(proof, detail=domain.limitation(predicate)) if proof.holds else proof


def _decided(violation: Expr, predicate: Expr, domain: Domain, budget: int) -> Proof:
    if not domain.n_pairs:
        return Proof(True, None, "there are no pairs")
    search = _Search(predicate, domain, Effort(budget))
    found = search.sampled()
    if found is None:
        proof = proof_by_form(predicate, domain)
        if proof is not None:
            return proof
        found = search.found()
    if found is not None:
        found = search.nearer(found)
        pair = (*domain.split_group(found[0]), *found[1:])
        assert domain.value_at(violation, pair), "a pair that was found is no counterexample"
        return Proof(False, pair, f"counterexample: {search.effort}")
    if search.n_open:
        detail = f"{search.n_open:,} of {domain.n_pairs:,} pairs are open; give a larger budget"
        return Proof(None, None, f"budget spent: {search.effort}", detail)
    return Proof(True, None, f"{search.effort}, for these lengths")


_Found = tuple[int, int, int]


class _Search:
    def __init__(self, predicate: Expr, domain: Domain, effort: Effort) -> None:
        self.predicate = predicate
        self.domain = domain
        self.effort = effort
        self.n_open = 0

    def sampled(self) -> _Found | None:
        """A pair (group, q_idx, kv_idx) where the predicate holds, among few of all sizes."""
        domain = self.domain
        groups = _spread(domain.n_groups)[:_MAX_GROUPS_SAMPLED, None, None]
        for q_idx, kv_idx in _sample(domain.n_queries, domain.n_keys):
            if not self.effort.affords(n_pairs=groups.size * q_idx.size * kv_idx.size):
                return None
            found = self._first(groups, q_idx[:, None], kv_idx)
            if found is not None:
                return found
        return None

    def nearer(self, found: _Found) -> _Found:
        """A pair that holds as well, at a query, and then a key, that is 0 or follows one where
        the predicate does not hold."""
        group, q_idx, kv_idx = found
        q_idx = self._least(q_idx, lambda q: (group, q, kv_idx))
        return group, q_idx, self._least(kv_idx, lambda kv: (group, q_idx, kv))

    def _least(self, number: int, pair: Callable[[int], _Found]) -> int:
        """By bisection: ``pair(number)`` holds, and so does that of the result."""
        low, high = -1, number
        while high - low > 1:
            middle = (low + high) // 2 if low >= 0 else 0
            if self._first(*(np.array(x) for x in pair(middle))) is None:
                low = middle
            else:
                high = middle
        return high

    def found(self) -> _Found | None:
        """The same among all pairs; ``n_open`` counts those the budget did not reach."""
        domain = self.domain
        height, width = (1 << (n - 1).bit_length() for n in (domain.n_queries, domain.n_keys))
        zeros = np.zeros(min(domain.n_groups, MAX_BOXES), np.int64)
        for first in range(0, domain.n_groups, MAX_BOXES):
            group = np.arange(first, min(first + MAX_BOXES, domain.n_groups))
            none = zeros[: len(group)]
            stack = [_Rectangles(group, none, none, height, width)]
            while stack:
                found = self._step(stack)
                if found is not None:
                    return found
                if self.n_open:
                    rest = sum(part.n_pairs(domain) for part in stack)
                    n_later = domain.n_groups - (first + len(group))
                    self.n_open += rest + n_later * domain.n_queries * domain.n_keys
                    return None
        return None

    def _step(self, stack: list[_Rectangles]) -> _Found | None:
        """Settles the topmost rectangles, or puts their parts back."""
        domain, part = self.domain, stack.pop()
        if not self.effort.affords(n_boxes=len(part)):
            self.n_open += part.n_pairs(domain)
            return None
        q_last, kv_last = part.ends(domain)
        truths = domain.truths(
            self.predicate, part.group, (part.q_first, q_last), (part.kv_first, kv_last)
        )
        always = np.flatnonzero(truths == Truth.ALWAYS)
        if len(always):
            first = always[0]
            return int(part.group[first]), int(part.q_first[first]), int(part.kv_first[first])
        is_open = truths == Truth.MAYBE
        part = part.at(is_open)
        if not len(part):
            return None
        if is_leaf(len(is_open), len(part), part.height * part.width):
            return self._among_elements(part)
        found = None
        if self.effort.affords(n_pairs=len(part)):
            found = self._first(part.group, part.q_first, kv_last[is_open])
        if found is None:
            stack.extend(part.quarters(domain).parts(MAX_BOXES))
        return found

    def _among_elements(self, part: _Rectangles) -> _Found | None:
        domain = self.domain
        for some in part.parts(max(MAX_ELEMENTS // (part.height * part.width), 1)):
            n_pairs = len(some) * part.height * part.width
            if not self.effort.affords(n_pairs=n_pairs):
                self.n_open += some.n_pairs(domain)
                continue
            q_last, kv_last = some.ends(domain)
            q_idx = np.minimum(some.q_first[:, None] + np.arange(part.height), q_last[:, None])
            kv_idx = np.minimum(some.kv_first[:, None] + np.arange(part.width), kv_last[:, None])
            found = self._first(some.group[:, None, None], q_idx[:, :, None], kv_idx[:, None, :])
            if found is not None:
                return found
        return None

    def _first(self, group: Ints, q_idx: Ints, kv_idx: Ints) -> _Found | None:
        """The first of these pairs where the predicate holds."""
        values = self.domain.values(self.predicate, group, q_idx, kv_idx)
        place = int(values.argmax()) if values.any() else None
        if place is None:
            return None
        shape = values.shape
        g, q, kv = (int(np.broadcast_to(x, shape).flat[place]) for x in (group, q_idx, kv_idx))
        return g, q, kv


def _sample(n_queries: int, n_keys: int) -> Iterator[tuple[Ints, Ints]]:
    """Queries and keys whose products are looked at first: the corner, the ends, all sizes."""
    yield np.arange(min(n_queries, _CORNER)), np.arange(min(n_keys, _CORNER))
    yield _spread(n_queries), _spread(n_keys)


def _spread(length: int) -> Ints:
    """Positions near both ends, near powers of two, and in equal steps."""
    powers = 1 << np.arange(length.bit_length(), dtype=np.int64)
    near = np.concatenate([powers - 1, powers, length - powers, np.linspace(0, length - 1, 33)])
    return np.unique(np.clip(near.astype(np.int64), 0, length - 1))
