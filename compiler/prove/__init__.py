"""Properties of masks, proved or refuted with a counterexample that was evaluated.

>>> import attnc
>>> def window(b, h, q_idx, kv_idx):
...     return (q_idx >= kv_idx) & (q_idx - kv_idx < 1024)
>>> attnc.prove.causal(window, Q_LEN=1_000_000).holds
True

Every function takes ``B, H, Q_LEN, KV_LEN``, and ``budget``: how many pairs may be evaluated, where
the truth on a box of indices costs as much as 16. ``KV_LEN`` is ``Q_LEN`` if left out, ``B`` and
``H`` are 1; a BlockMask knows its own. A Kernel is asked about the mask it applies. A ``Proof`` is
True as a condition only where the property is proved, so that
``assert attnc.prove.causal(mask, Q_LEN=4096)`` is a test.

Raises:
    TraceError: A function does something a kernel cannot do.
    NotAModError, WrongModKindError: An argument is no mask.
    ProofArgumentError: A size is missing or wrong.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

from attnc.ir import (
    KV_IDX,
    Q_IDX,
    Binary,
    BinaryOp,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    Unary,
    UnaryOp,
    replaced,
)
from attnc.printer import format_expr
from attnc.prove.domain import Domain
from attnc.prove.everywhere import LONGEST
from attnc.prove.gathers import IndexUse, index_uses
from attnc.prove.pairs import decide_pairs
from attnc.prove.question import Lengths, Mask, Question
from attnc.prove.record import Proof, pair_text
from attnc.prove.rows import decide_rows

__all__ = [
    "LONGEST",
    "Proof",
    "causal",
    "equal",
    "implies",
    "in_bounds",
    "monotone",
    "pair_text",
    "rows_nonempty",
    "symmetric",
]

#: All pairs of 11,000 queries and keys; some seconds.
BUDGET = 1 << 27


def causal(
    mask: Mask,
    *,
    B: int | None = None,
    H: int | None = None,
    Q_LEN: int | None = None,
    KV_LEN: int | None = None,
    budget: int = BUDGET,
) -> Proof:
    """No query sees a later key: every visible pair has ``kv_idx <= q_idx``.

    Args:
        mask: mask_mod, Kernel or BlockMask.
        B, H: Batches and query heads, 1 each if left out; a BlockMask knows its own.
        Q_LEN, KV_LEN: Numbers of queries and keys; as many keys as queries if left out.
        budget: Pairs that may be evaluated; a box of indices counts as 16.
    """
    question = Question("causal", Lengths(B, H, Q_LEN, KV_LEN, budget))
    expr = question.mask(mask)
    domain = question.domain()
    proof = decide_pairs(_and(expr, Compare(CompareOp.GT, KV_IDX, Q_IDX)), domain, budget)
    return _told(proof, question, domain, expr, "this later key is visible: {}")


def rows_nonempty(
    mask: Mask,
    *,
    B: int | None = None,
    H: int | None = None,
    Q_LEN: int | None = None,
    KV_LEN: int | None = None,
    budget: int = BUDGET,
) -> Proof:
    """Every query sees at least one key.

    A counterexample is a query that sees none, ``(b, h, q_idx, None)``: its output is 0.

    Args:
        mask: mask_mod, Kernel or BlockMask.
        B, H: Batches and query heads, 1 each if left out; a BlockMask knows its own.
        Q_LEN, KV_LEN: Numbers of queries and keys; as many keys as queries if left out.
        budget: Pairs that may be evaluated; a box of indices counts as 16.
    """
    question = Question("rows_nonempty", Lengths(B, H, Q_LEN, KV_LEN, budget))
    expr = question.mask(mask)
    proof = decide_rows(expr, question.domain(), budget)
    if proof.holds is not False:
        return proof
    location = question.locations.get(expr)
    return replace(proof, detail="this query sees no key", location=location)


def implies(
    mask: Mask,
    other: Mask,
    *,
    B: int | None = None,
    H: int | None = None,
    Q_LEN: int | None = None,
    KV_LEN: int | None = None,
    budget: int = BUDGET,
) -> Proof:
    """Every pair visible in ``mask`` is visible in ``other``.

    Args:
        mask: mask_mod, Kernel or BlockMask.
        other: As ``mask``.
        B, H: Batches and query heads, 1 each if left out; a BlockMask knows its own.
        Q_LEN, KV_LEN: Numbers of queries and keys; as many keys as queries if left out.
        budget: Pairs that may be evaluated; a box of indices counts as 16.
    """
    question = Question("implies", Lengths(B, H, Q_LEN, KV_LEN, budget))
    first, second = question.mask(mask), question.mask(other, "other")
    domain = question.domain()
    proof = decide_pairs(_and(first, _not(second)), domain, budget)
    return _told(proof, question, domain, second, "visible in mask, hidden in other: {}")


def equal(
    mask: Mask,
    other: Mask,
    *,
    B: int | None = None,
    H: int | None = None,
    Q_LEN: int | None = None,
    KV_LEN: int | None = None,
    budget: int = BUDGET,
) -> Proof:
    """The same pairs are visible in ``mask`` and ``other``.

    Args:
        mask: mask_mod, Kernel or BlockMask.
        other: As ``mask``.
        B, H: Batches and query heads, 1 each if left out; a BlockMask knows its own.
        Q_LEN, KV_LEN: Numbers of queries and keys; as many keys as queries if left out.
        budget: Pairs that may be evaluated; a box of indices counts as 16.
    """
    question = Question("equal", Lengths(B, H, Q_LEN, KV_LEN, budget))
    first, second = question.mask(mask), question.mask(other, "other")
    domain = question.domain()
    proof = decide_pairs(Binary(BinaryOp.XOR, first, second), domain, budget)
    if proof.holds is not False:
        return proof
    only_first = bool(domain.value_at(first, _pair(proof)))
    shown, hidden = ("mask", "other") if only_first else ("other", "mask")
    template = f"visible in {shown}, hidden in {hidden}: {{}}"
    return _told(proof, question, domain, second if only_first else first, template)


def symmetric(
    mask: Mask,
    *,
    B: int | None = None,
    H: int | None = None,
    Q_LEN: int | None = None,
    KV_LEN: int | None = None,
    budget: int = BUDGET,
) -> Proof:
    """A query at i sees a key at j exactly if one at j sees a key at i.

    Args:
        mask: mask_mod, Kernel or BlockMask.
        B, H: Batches and query heads, 1 each if left out; a BlockMask knows its own.
        Q_LEN, KV_LEN: Numbers of queries and keys; as many keys as queries if left out.
        budget: Pairs that may be evaluated; a box of indices counts as 16.

    Raises:
        ProofArgumentError: ``Q_LEN`` and ``KV_LEN`` differ.
    """
    question = Question("symmetric", Lengths(B, H, Q_LEN, KV_LEN, budget))
    expr = question.mask(mask)
    domain = question.domain()
    if domain.n_queries != domain.n_keys:
        problem = f"a pair and its mirror image need equal lengths, but Q_LEN is {domain.n_queries}"
        raise question.wrong("KV_LEN", domain.n_keys, problem)
    mirrored = replaced(expr, {Q_IDX: KV_IDX, KV_IDX: Q_IDX})
    # A pair on the diagonal is its own mirror image, and one of two mirror images is enough.
    below = Compare(CompareOp.LT, KV_IDX, Q_IDX)
    proof = decide_pairs(_and(below, Binary(BinaryOp.XOR, expr, mirrored)), domain, budget)
    if proof.holds is not False:
        return proof
    words = ("visible", "hidden") if domain.value_at(expr, _pair(proof)) else ("hidden", "visible")
    template = f"{words[0]}, but {words[1]} with q_idx and kv_idx exchanged: {{}}"
    return _told(proof, question, domain, expr, template)


def monotone(
    mask: Mask,
    *,
    longer: Mask | None = None,
    B: int | None = None,
    H: int | None = None,
    Q_LEN: int | None = None,
    KV_LEN: int | None = None,
    budget: int = BUDGET,
) -> Proof:
    """A longer context never removes a key: a key that a query sees, all later queries see too.

    That is what holds a key in the cache while text is generated: the newest token is the query, and
    where this fails a key was dropped, as by a window. A counterexample sees the key, and
    ``q_idx + 1`` does not. The causal mask is monotone, a sliding window is not.

    Args:
        mask: mask_mod, Kernel or BlockMask.
        longer: The mask of a longer context, where masks are made for a length: then every pair
            visible in ``mask``, at these lengths, must be visible in ``longer``.
        B, H: Batches and query heads, 1 each if left out; a BlockMask knows its own.
        Q_LEN, KV_LEN: Numbers of queries and keys; as many keys as queries if left out.
        budget: Pairs that may be evaluated; a box of indices counts as 16.
    """
    if longer is not None:
        return implies(mask, longer, B=B, H=H, Q_LEN=Q_LEN, KV_LEN=KV_LEN, budget=budget)
    question = Question("monotone", Lengths(B, H, Q_LEN, KV_LEN, budget))
    expr = question.mask(mask)
    domain = question.domain()
    next_query = Binary(BinaryOp.ADD, Q_IDX, Const(1, DType.INT32))
    later = replaced(expr, {Q_IDX: next_query})
    followed = replace(domain, n_queries=max(domain.n_queries - 1, 0))
    proof = decide_pairs(_and(expr, _not(later)), followed, budget)
    if proof.holds is not False:
        return proof
    b, h, q_idx, kv_idx = _pair(proof)
    text, location = question.blame(expr, domain, (b, h, q_idx + 1, kv_idx))
    detail = f"visible, but hidden from q_idx={q_idx + 1}: {text}"
    return replace(proof, detail=detail, location=location)


def in_bounds(
    mod: Mask,
    *,
    where: Mask | None = None,
    allow_negative: bool = False,
    B: int | None = None,
    H: int | None = None,
    Q_LEN: int | None = None,
    KV_LEN: int | None = None,
    budget: int = BUDGET,
) -> Proof:
    """Every index into a captured tensor lies inside it, before kernels count negative ones from
    the end and clamp the rest.

    Args:
        mod: A mask, or a score_mod; of a Kernel both, its score where its mask is true.
        where: Only pairs visible in this mask count; all, if left out.
        allow_negative: Whether indices from -size to -1 are meant to count from the end. A negative
            number that is written as such always is.
        B, H: Batches and query heads, 1 each if left out; a BlockMask knows its own.
        Q_LEN, KV_LEN: Numbers of queries and keys; as many keys as queries if left out.
        budget: Pairs that may be evaluated; a box of indices counts as 16.
    """
    question = Question("in_bounds", Lengths(B, H, Q_LEN, KV_LEN, budget))
    exprs = question.mods(mod)
    counted = None if where is None else question.mask(where, "where")
    domain = question.domain()
    proofs: list[Proof] = []
    for expr, visible in exprs:
        for use in index_uses(expr, question.slots.tensors, allow_negative):
            limits = [mask for mask in (counted, visible) if mask is not None]
            proof = decide_pairs(reduce(_and, limits, use.outside), domain, budget)
            if proof.holds is False:
                return _read_outside(proof, use, question, domain)
            proofs.append(proof)
    if not proofs:
        longest = None if domain.is_fixed else LONGEST
        return Proof(True, None, "no index can be out of bounds", max_length=longest)
    # The weakest answer is that of all.
    weakest = min(proofs, key=lambda proof: (proof.holds is True, proof.max_length or 0))
    if not weakest:
        return weakest
    return replace(weakest, detail=max((proof.detail for proof in proofs), key=len))


def _read_outside(proof: Proof, use: IndexUse, question: Question, domain: Domain) -> Proof:
    read, index = format_expr(use.gather), format_expr(use.index)
    try:
        value = f"`{index}` is {domain.value_at(use.index, _pair(proof))}"
    except AssertionError:  # it is inside a sum over a row, and has many values
        value = f"`{index}` leaves it"
    detail = f"{read}: dimension {use.axis} is of size {use.size}, but {value}"
    return replace(proof, detail=detail, location=question.locations.get(use.gather))


def _told(proof: Proof, question: Question, domain: Domain, expr: Expr, template: str) -> Proof:
    """With what is wrong at a counterexample: the term that decides ``expr`` there, and its line."""
    if proof.holds is not False:
        return proof
    text, location = question.blame(expr, domain, _pair(proof))
    return replace(proof, detail=template.format(text), location=location)


def _pair(proof: Proof) -> tuple[int, int, int, int]:
    assert proof.counterexample is not None
    b, h, q_idx, kv_idx = proof.counterexample
    assert kv_idx is not None
    return b, h, q_idx, kv_idx


def _and(x: Expr, y: Expr) -> Expr:
    return Binary(BinaryOp.AND, x, y)


def _not(x: Expr) -> Expr:
    return Unary(UnaryOp.NOT, x)
