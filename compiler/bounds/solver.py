"""Loop bounds in closed form: which key blocks a block of queries visits, as sympy expressions.

The mask is solved for ``kv_idx`` (``terms``) and becomes few intervals ``[low(q), high(q))``
(``unions``); each becomes a run of key blocks by taking the extremes of its bounds over the tile's
queries (``runs``). sympy is imported at the first call, not with the module.
"""

from __future__ import annotations

from attnc.bounds.algebra import integer, maximum, minimum, substituted
from attnc.bounds.closed_form import ClosedForm, TokenInterval
from attnc.bounds.conditions import half_of
from attnc.bounds.magnitudes import LARGEST, is_unchanged, magnitude
from attnc.bounds.proofs import OutOfStepsError, limited_steps
from attnc.bounds.runs import block_runs
from attnc.bounds.term import NotAnIntervalError, Term, symbol
from attnc.bounds.terms import TermSolver
from attnc.bounds.unions import Piece, is_surely_ordered, pieces_of
from attnc.ir import (
    KV_IDX,
    Compare,
    Const,
    DType,
    Expr,
    Gather,
    Level,
    level_of,
    walk,
)

#: A mask that says more is no union of few intervals, and too deep for a solver that recurses.
_MAX_NODES = 1000


def solve(mask: Expr, block_m: int, block_n: int) -> ClosedForm | None:
    """Loop bounds of a lifted mask for tiles of ``block_m`` queries and ``block_n`` keys (tokens).

    Every tile with a visible pair is visited, and FULL tiles have only visible pairs, for all
    lengths and parameter values for which integers do not wrap (``intervals.may_wrap``). The
    ragged last key block may be PARTIAL where it is EMPTY or FULL, and so may, elsewhere:

    - a FULL tile that two intervals fill together;
    - a tile that a condition empties which repeats within ``block_n`` keys, as ``kv_idx % 4 == 0``
      does: it is taken to hold for some key of every tile, and not for all;
    - a tile between the ends of an interval whose ends are not monotone in ``q_idx``;
    - any tile, for a batch and head whose divisor (``q_idx // window[h]``) is not positive or above
      2**31, whose real threshold is NaN or so large that integers beside it are rounded, or one of
      whose numbers is above 2**31 and no limit alone (``(q_idx + shift[h]) % 8``);
    - any tile, for a mask of ``kv_idx >= half`` and ``kv_idx % half`` with more than two halves.

    Returns:
        None if the mask is not recognised as a union of at most 4 intervals, or not within a
        budget of steps.
    """
    assert mask.dtype is DType.BOOL
    if any(isinstance(node, Gather) and level_of(node) is not Level.UNIFORM for node in walk(mask)):
        return None  # no bound is monotone in what a tensor holds; known before sympy is imported
    if sum(1 for _ in walk(mask)) > _MAX_NODES:
        return None
    solver = TermSolver(block_n=block_n, halves=_halves(mask, block_n))
    try:
        with limited_steps():
            pieces = pieces_of(solver.terms(mask), block_n)
            _assume_what_bounds_need(pieces, solver)
            runs = block_runs(pieces, solver.assumptions, block_m, block_n)
            is_ordered = is_surely_ordered(pieces)
    except (NotAnIntervalError, OutOfStepsError, RecursionError):
        return None
    used = {s.name for run in runs for e in vars(run).values() for s in e.free_symbols}
    uniforms = {name: expr for name, expr in solver.uniforms.items() if name in used}
    tokens = tuple(_token_interval(piece.outer, block_n) for piece in pieces)
    return ClosedForm(runs, uniforms, tokens, block_m, block_n, is_ordered)


def _assume_what_bounds_need(pieces: list[Piece], solver: TermSolver) -> None:
    """Assumes that captured integers are small where bounds would be wrong, or wrap, without it.

    Raises:
        NotAnIntervalError: A bound may wrap all the same.
    """
    for piece in pieces:
        for term in (piece.outer, piece.inner or piece.outer):
            for bound in sorted(term.lows | term.highs | term.guards, key=str):
                if magnitude(bound) > LARGEST:
                    raise NotAnIntervalError
                clamped = solver.clamped.keys() & bound.free_symbols
                if is_unchanged(bound, clamped) and magnitude(bound, clamped) <= LARGEST:
                    continue
                for found in sorted(clamped, key=str):
                    solver.assume_small(solver.clamped[found])


def _halves(mask: Expr, block_n: int) -> frozenset[int]:
    """Numbers above ``block_n`` that ``kv_idx`` is both compared with and taken modulo of: two
    halves of the keys that have the same positions, as noised and clean tokens do."""
    nodes = list(walk(mask))
    compared = {
        int(side.value)
        for node in nodes
        if isinstance(node, Compare) and KV_IDX in node.children
        for side in node.children
        if isinstance(side, Const) and side.dtype.is_int
    }
    periods = {half_of(node) for node in nodes} - {None}
    return frozenset(half for half in compared if half in periods and half > block_n)


def _token_interval(term: Term, block_n: int) -> TokenInterval:
    # block_n * n_kv_blocks is how "all keys" is written inside; for display it is n_keys.
    shown = {symbol("n_kv_blocks"): symbol("n_keys") / block_n}
    highs = [substituted(high, shown) for high in term.highs]
    return TokenInterval(
        maximum(integer(0), *term.lows),
        minimum(symbol("n_keys"), *highs),
        tuple(sorted(term.guards, key=str)),
        term.period,
    )
