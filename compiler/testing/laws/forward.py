"""Laws of the forward pass: right, repeatable, exact in rows that see nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from attnc.testing.case import Case, Outcome
from attnc.testing.laws.registry import Failure, law
from attnc.testing.tolerance import assert_close_to_reference


@law("forward", "{kernel} gives what the float64 reference gives")
def forward(case: Case) -> Iterator[Failure]:
    for backend in case.backends:
        yield from not_close(case, case.outcome(backend), backend)


#: Rows from which on errors of one direction are told from chance.
_MANY_ROWS = 100


@law(
    "rounding",
    "{kernel} rounds outputs of 16 bits to nearest",
    applies=lambda case: case.dtype.itemsize == 2 and int(_mixed_rows(case).sum()) >= _MANY_ROWS,
)
def rounding(case: Case) -> Iterator[Failure]:
    wanted, eps = case.reference.out, torch.finfo(case.dtype).eps
    unit = torch.exp2(wanted.abs().log2().floor()) * eps
    # What is subnormal in the dtype has units of its own. Where values cancel, rounded weights move
    # an output by many of its units, and away from 0 more often than towards it.
    least = max(2 * torch.finfo(case.dtype).tiny / eps, _largest(case.inputs[2]) / 8)
    taken = _mixed_rows(case)[..., None] & (wanted.abs() > least)
    if int(taken.any(dim=3).sum()) < _MANY_ROWS:
        return
    for backend in case.backends:
        error = (case.outcome(backend).out.double() - wanted) * wanted.sign() / unit
        # Nearest: 0 on average. Truncated: -0.5. That of a row's weights has any direction.
        by_row = torch.where(taken, error, 0.0).sum(dim=3) / taken.sum(dim=3).clamp(min=1)
        mean = float(by_row[taken.any(dim=3)].mean())
        if abs(mean) > 0.25:
            where = "above" if mean > 0 else "below"
            yield Failure(
                f"Magnitudes are {abs(mean):.2f} units in the last place {where} what is exact, on "
                "average.",
                backend=backend,
            )


def _mixed_rows(case: Case) -> torch.Tensor:
    """(B, Hq, n_queries) bool: where several keys count, so that outputs are rounded."""
    found = case.reference
    by_one = (found.lse - found.max_scores).abs() < 0.1
    return found.lse.isfinite() & ~by_one & found.out.isfinite().all(dim=3)


@law("repeatable", "{kernel} gives the same bits each time")
def repeatable(case: Case) -> Iterator[Failure]:
    for backend in case.backends:
        first, again = case.outcome(backend), case.run(backend)
        if not same_bits((first.out, first.lse), (again.out, again.lse)):
            yield Failure("Two calls differ.", backend=backend)
        elif not same_bits(first.gradients, again.gradients):
            yield Failure("The gradients of two calls differ.", backend=backend)


def _has_empty_rows(case: Case) -> bool:
    return case.padded is not None or bool((case.reference.lse == -math.inf).any())


@law(
    "empty-rows",
    "{kernel} gives 0, a log-sum-exp of -inf and gradients 0 where nothing is seen",
    applies=_has_empty_rows,
)
def empty_rows(case: Case) -> Iterator[Failure]:
    for each in case.variants:
        for backend in case.backends:
            yield from _stray(each, backend)
            if each is not case:
                yield from not_close(each, each.outcome(backend), backend, " (keys are hidden)")


def _stray(case: Case, backend: str) -> Iterator[Failure]:
    """What is not 0 or -inf and ought to be, where a query sees no key or no query sees a key."""
    outcome, shape = case.outcome(backend), case.shape
    rows = ~case.visible.any(dim=3)
    by_group = torch.unflatten(case.visible.any(dim=2), 1, (shape.n_kv_heads, -1))
    columns = ~by_group.any(dim=2)
    if shape.n_kv_batch != shape.n_batch:
        columns = columns.all(dim=0, keepdim=True)
    stray = [("out", outcome.out != 0, rows), ("the log-sum-exp", outcome.lse != -math.inf, rows)]
    hidden = (rows, columns, columns)
    for name, gradient, where in zip("qkv", outcome.gradients, hidden, strict=False):
        stray.append((f"the gradient of {name}", gradient != 0, where))
    for name, is_wrong, where in stray:
        places = where & (is_wrong.any(dim=-1) if is_wrong.dim() > 3 else is_wrong)
        if bool(places.any()):
            place = places.nonzero()[0].tolist()
            yield Failure(f"{name} is not exact at {place}, where nothing is seen.", None, backend)
            return


@law(
    "broadcast",
    "{kernel} gives the same for keys of one batch or head as for copies of them",
    applies=lambda case: case.shape.enable_gqa or case.shape.n_kv_batch != case.shape.n_batch,
)
def broadcast(case: Case) -> Iterator[Failure]:
    q, k, v = case.inputs
    n_batch, n_heads, *_ = case.grid
    k, v = (
        x.expand(n_batch, *x.shape[1:]).repeat_interleave(n_heads // x.shape[1], dim=1)
        for x in (k, v)
    )
    for backend in case.backends:
        yield from not_close(case, case.run(backend, (q, k, v)), backend, " (of copies)")


def not_close(case: Case, outcome: Outcome, backend: str, note: str = "") -> Iterator[Failure]:
    """Whether out and lse are further from the oracle than rounding allows."""
    q, k, v = case.inputs
    shape = case.shape
    try:
        assert_close_to_reference(
            outcome.out,
            outcome.lse,
            case.reference,
            q.dtype,
            head_dim=shape.head_dim,
            n_keys=shape.n_keys,
            score_scale=_largest_norm(q) * _largest_norm(k) * abs(case.scale),
            value_scale=_largest(v),
            is_single=case.is_single,
            max_scores=outcome.max_scores,
        )
    except AssertionError as error:
        yield Failure(f"{error}{note}", backend=backend)


def same_bits(first: tuple[torch.Tensor, ...], second: tuple[torch.Tensor, ...]) -> bool:
    return all(
        torch.equal(x.isnan(), y.isnan()) and torch.equal(x.nan_to_num(), y.nan_to_num())
        for x, y in zip(first, second, strict=True)
    )


def _largest(x: torch.Tensor) -> float:
    return float(x.abs().max()) if x.numel() else 1.0


def _largest_norm(x: torch.Tensor) -> float:
    return float(x.double().norm(dim=-1).max()) if x.numel() else 1.0
