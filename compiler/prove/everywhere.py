"""Proofs that look at no box: by the form of a predicate, for all lengths where possible."""

from __future__ import annotations

import numpy as np

from attnc.intervals import Boxes, Truth, never_wraps, truth_of
from attnc.ir import Expr, IndexName
from attnc.prove.arithmetic import is_impossible
from attnc.prove.domain import Domain
from attnc.prove.record import Proof

#: Coordinates are int32, and a property may speak of the next one.
LONGEST = (1 << 31) - 1
# Lengths at which nothing may wrap: beyond, `q_idx + 5` is no longer q_idx + 5.
_LENGTHS = (LONGEST, 1 << 30, 1 << 27, 1 << 24, 1 << 20, 1 << 15)


def proof_by_form(violation: Expr, domain: Domain, condition: str = "") -> Proof | None:
    """A proof that ``violation`` is nowhere true, or None where its form does not show it.

    Args:
        violation: Boolean, simplified.
        domain: The lengths asked for, and the tensors.
        condition: What the lengths must satisfy besides, as " with KV_LEN >= Q_LEN".
    """
    if not domain.is_fixed and _is_never(violation, domain):
        return Proof(True, None, f"intervals, {_lengths(LONGEST)}{condition}", max_length=LONGEST)
    asked = max(domain.n_queries, domain.n_keys)
    limits: dict[IndexName, int | None] = {**domain.limits}
    longest = None if domain.is_fixed else _longest(violation, domain, asked)
    if longest is not None:
        free = {**limits, IndexName.Q: None, IndexName.KV: None}
        if is_impossible(violation, free, domain.facts):
            method = f"linear arithmetic, {_lengths(longest)}{condition}"
            return Proof(True, None, method, max_length=longest)
    exact = longest is not None or _is_exact(violation, domain, asked)
    if exact and is_impossible(violation, limits, domain.facts):
        return Proof(True, None, "linear arithmetic, for these lengths")
    return None


def _is_never(violation: Expr, domain: Domain) -> bool:
    """Whether the truth of ``violation`` on all indices at once is NEVER."""
    extents = (domain.n_batch, domain.n_heads, LONGEST, LONGEST)
    whole = Boxes(*((np.array([0]), np.array([max(n - 1, 0)])) for n in extents))
    return bool(truth_of(violation, whole, domain.facts)[0] == Truth.NEVER)


def _longest(violation: Expr, domain: Domain, asked: int) -> int | None:
    """Lengths up to which nothing in ``violation`` wraps, from those asked for."""
    return next((n for n in _LENGTHS if n >= asked and _is_exact(violation, domain, n)), None)


def _is_exact(violation: Expr, domain: Domain, length: int) -> bool:
    return never_wraps(
        (violation,),
        domain.facts,
        n_batch=domain.n_batch,
        n_heads=domain.n_heads,
        n_queries=length,
        n_keys=length,
    )


def _lengths(longest: int) -> str:
    return "for all lengths" if longest == LONGEST else f"for all lengths up to {longest:,}"
