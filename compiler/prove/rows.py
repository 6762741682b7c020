"""Whether every query sees a key.

A few keys per query are tried for all queries at once: itself, the first, the last. For what is
left, rectangles are asked: one that is visible everywhere settles all its queries, one that is
visible nowhere is dropped, the others are split. Where that takes half of the budget, as for a
permutation, the rest goes to rectangles of a single query.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from attnc.intervals import Truth
from attnc.ir import KV_IDX, Q_IDX, Binary, BinaryOp, Const, DType, Expr, Unary, UnaryOp, replaced
from attnc.prove.domain import Domain, Flags, Ints
from attnc.prove.everywhere import proof_by_form
from attnc.prove.pairs import MAX_BOXES, MAX_ELEMENTS
from attnc.prove.record import Effort, Pair, Proof, is_leaf
from attnc.simplify import simplify

_MAX_ROWS = 1 << 20


def decide_rows(mask: Expr, domain: Domain, budget: int) -> Proof:
    """Whether for every ``b, h, q_idx`` some ``kv_idx`` makes ``mask`` true.

    A counterexample names the row; all of it was evaluated.
    """
    predicate = simplify(mask)
    proof = _decided(mask, predicate, domain.read_by(predicate), budget)
    return replace(proof, detail=domain.limitation(predicate)) if proof.holds else proof


def _decided(mask: Expr, predicate: Expr, domain: Domain, budget: int) -> Proof:
    if not domain.n_groups * domain.n_queries:
        return Proof(True, None, "there are no queries")
    if not domain.n_keys:
        return Proof(False, (0, 0, 0, None), "there are no keys")
    proof = _proof_by_form(predicate, domain)
    if proof is not None:
        return proof
    effort = Effort(budget)
    n_rows = domain.n_groups * domain.n_queries
    for first in range(0, n_rows, _MAX_ROWS):
        rows = np.arange(first, min(first + _MAX_ROWS, n_rows))
        search = _Search(predicate, domain, effort, rows)
        empty = search.empty_row()
        if search.n_open:
            n_open = search.n_open + n_rows - (first + len(rows))
            detail = f"{n_open:,} of {n_rows:,} queries are open; give a larger budget"
            return Proof(None, None, f"budget spent: {effort}", detail)
        if empty is not None:
            group, q_idx = divmod(empty, domain.n_queries)
            assert not _sees_any(mask, domain, group, q_idx), "the query that was found sees a key"
            row: Pair = (*domain.split_group(group), q_idx, None)
            return Proof(False, row, f"counterexample: {effort}")
    return Proof(True, None, f"{effort}, for these lengths")


def _proof_by_form(mask: Expr, domain: Domain) -> Proof | None:
    """A key that every query sees, or each itself, or one of the two."""
    no_first, no_own = (
        simplify(Unary(UnaryOp.NOT, replaced(mask, {KV_IDX: key})))
        for key in (Const(0, DType.INT32), Q_IDX)
    )
    proof = proof_by_form(no_first, domain, " with KV_LEN >= 1")
    if proof is not None or domain.n_keys < domain.n_queries:
        return proof
    neither = simplify(Binary(BinaryOp.AND, no_first, no_own))
    return proof_by_form(neither, domain, " with KV_LEN >= Q_LEN")


def _sees_any(mask: Expr, domain: Domain, group: int, q_idx: int) -> bool:
    for first in range(0, domain.n_keys, MAX_ELEMENTS):
        keys = np.arange(first, min(first + MAX_ELEMENTS, domain.n_keys))
        if domain.values(mask, np.array(group), np.array(q_idx), keys).any():
            return True
    return False


@dataclass(frozen=True)
class _Rectangles:
    """Rows ``first .. last``, numbers into those of a search, by ``width`` keys from ``kv_first``.

    All rows of one are consecutive queries of one group.
    """

    first: Ints
    last: Ints
    kv_first: Ints
    width: int

    def __len__(self) -> int:
        return len(self.first)

    def at(self, where: Flags | slice) -> _Rectangles:
        return _Rectangles(self.first[where], self.last[where], self.kv_first[where], self.width)

    def quarters(self, n_keys: int) -> _Rectangles:
        width = max(self.width // 2, 1)
        middle = (self.first + self.last) // 2
        # The lower half of a single row is empty, and left out.
        first = np.concatenate([self.first, middle + 1])
        last = np.concatenate([middle, self.last])
        kv_first = np.concatenate([self.kv_first, self.kv_first])
        if width < self.width:
            first, last = np.concatenate([first, first]), np.concatenate([last, last])
            kv_first = np.concatenate([kv_first, kv_first + width])
        inside = (first <= last) & (kv_first < n_keys)
        return _Rectangles(first, last, kv_first, width).at(inside)


class _Search:
    """Looks for a row without a visible key among ``rows``, numbers ``group * n_queries + q_idx``."""

    def __init__(self, mask: Expr, domain: Domain, effort: Effort, rows: Ints) -> None:
        self.mask = mask
        self.domain = domain
        self.effort = effort
        self.rows = rows
        self.group, self.q_idx = np.divmod(rows, domain.n_queries)
        self.sees = np.zeros(len(rows), bool)
        self.n_open = 0

    def empty_row(self) -> int | None:
        """A row that sees nothing, or None; ``n_open`` counts undecided ones."""
        self._try_keys()
        for row in np.flatnonzero(~self.sees)[[0, -1]] if not self.sees.all() else ():
            if self.effort.affords(n_pairs=self.domain.n_keys):
                group, q_idx = int(self.group[row]), int(self.q_idx[row])
                if not _sees_any(self.mask, self.domain, group, q_idx):
                    return int(self.rows[row])
                self.sees[row] = True
        budget = self.effort.budget
        for limit, alone in ((budget // 2, False), (budget, True)):
            self.effort.budget = limit
            is_settled = self._settle(self._left(alone))
            self.effort.budget = budget
            if is_settled:
                empty = np.flatnonzero(~self.sees)
                return int(self.rows[empty[0]]) if len(empty) else None
        self.n_open = int((~self.sees).sum())
        return None

    def _settle(self, stack: list[_Rectangles]) -> bool:
        """Whether the budget suffices to find all rows that see a key in these rectangles."""
        while stack:
            if not self._step(stack.pop(), stack):
                return False
        return True

    def _try_keys(self) -> None:
        n_queries, n_keys = self.domain.n_queries, self.domain.n_keys
        keys: tuple[Callable[[Ints], Ints], ...] = (
            lambda q: q,
            lambda q: 0 * q,
            lambda q: q - 1,
            lambda q: 0 * q + n_keys,
            lambda q: q * n_keys // n_queries,
        )
        for key in keys:
            left = np.flatnonzero(~self.sees)
            if not len(left) or not self.effort.affords(n_pairs=len(left)):
                return
            q_idx = self.q_idx[left]
            kv_idx = np.clip(key(q_idx), 0, n_keys - 1)
            self.sees[left] = self.domain.values(self.mask, self.group[left], q_idx, kv_idx)

    def _left(self, alone: bool) -> list[_Rectangles]:
        """All keys of the rows that see none yet, in runs of consecutive queries, or ``alone``."""
        left = np.flatnonzero(~self.sees)
        if not len(left):
            return []
        breaks = (np.diff(left) > 1) | (np.diff(self.group[left]) != 0) | alone
        first = left[np.concatenate([[True], breaks])]
        last = left[np.concatenate([breaks, [True]])]
        width = 1 << (self.domain.n_keys - 1).bit_length()
        whole = _Rectangles(first, last, 0 * first, width)
        return [whole.at(slice(k, k + MAX_BOXES)) for k in range(0, len(first), MAX_BOXES)]

    def _step(self, part: _Rectangles, stack: list[_Rectangles]) -> bool:
        """Settles some rows, or puts parts of rectangles back; False if the budget is spent."""
        n_seen = np.concatenate([[0], np.cumsum(self.sees)])
        left = n_seen[part.last + 1] - n_seen[part.first] <= part.last - part.first
        part = part.at(left)
        if not len(part):
            return True
        if not self.effort.affords(n_boxes=len(part)):
            return False
        kv_last = np.minimum(part.kv_first + (part.width - 1), self.domain.n_keys - 1)
        truths = self.domain.truths(
            self.mask,
            self.group[part.first],
            (self.q_idx[part.first], self.q_idx[part.last]),
            (part.kv_first, kv_last),
        )
        always = part.at(truths == Truth.ALWAYS)
        steps = np.zeros(len(self.rows) + 1, np.int64)
        np.add.at(steps, always.first, 1)
        np.add.at(steps, always.last + 1, -1)
        self.sees |= np.cumsum(steps[:-1]) > 0
        part = part.at(truths == Truth.MAYBE)
        if not len(part):
            return True
        height = int((part.last - part.first).max()) + 1
        if is_leaf(len(truths), len(part), height * part.width):
            return self._look_at_elements(part, height)
        parts = part.quarters(self.domain.n_keys)
        stack.extend(parts.at(slice(k, k + MAX_BOXES)) for k in range(0, len(parts), MAX_BOXES))
        return True

    def _look_at_elements(self, part: _Rectangles, height: int) -> bool:
        size = max(MAX_ELEMENTS // (height * part.width), 1)
        for k in range(0, len(part), size):
            some = part.at(slice(k, k + size))
            n_pairs = len(some) * height * part.width
            if not self.effort.affords(n_pairs=n_pairs):
                return False
            rows = np.minimum(some.first[:, None] + np.arange(height), some.last[:, None])
            keys = some.kv_first[:, None] + np.arange(part.width)
            keys = np.minimum(keys, self.domain.n_keys - 1)
            values = self.domain.values(
                self.mask,
                self.group[some.first][:, None, None],
                self.q_idx[rows][:, :, None],
                keys[:, None, :],
            )
            np.logical_or.at(self.sees, rows, values.any(2))
        return True
