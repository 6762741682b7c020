"""What some functions promise, examined where it is asked for; by proof, where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from attnc import prove
from attnc.mods import Mod, noop_mask
from attnc.prove import Proof
from attnc.testing.case import Case
from attnc.testing.laws.forward import not_close
from attnc.testing.laws.function import difference, nearest, reads_outside, sizes_of
from attnc.testing.laws.registry import Failure, law
from attnc.testing.recipes import Limits
from attnc.testing.subject import Subject


def _by(prover: Callable[..., Proof]) -> Callable[[Subject, Limits], Proof | None]:
    def proof(subject: Subject, limits: Limits) -> Proof | None:
        # What a score_mod hides by -inf is not looked at by proofs.
        if subject.score is not None:
            return None
        return prover(_mask(subject), **sizes_of(limits))

    return proof


def _mask(subject: Subject) -> Mod:
    return noop_mask if subject.mask is None else subject.mask


@law("causal", "no query sees a later key", proof=_by(prove.causal), is_property=True)
def causal(case: Case) -> Iterator[Failure]:
    for point in nearest(case.visible.triu(1)):
        yield Failure(f"Query {point[2]} sees key {point[3]}.", point)


@law(
    "rows-nonempty",
    "every query sees a key",
    applies=lambda case: 0 not in case.grid,
    proof=_by(prove.rows_nonempty),
    is_property=True,
)
def rows_nonempty(case: Case) -> Iterator[Failure]:
    for b, h, q_idx in (~case.visible.any(dim=3)).nonzero()[:1].tolist():
        yield Failure(f"Query {q_idx} of b={b}, h={h} sees none of {case.shape.n_keys} keys.")


@law(
    "symmetric",
    "a query at i sees a key at j exactly if one at j sees a key at i",
    proof=_by(prove.symmetric),
    is_property=True,
)
def symmetric(case: Case) -> Iterator[Failure]:
    n = min(case.grid[2:])
    seen = case.visible[:, :, :n, :n]
    for point in nearest(seen != seen.mT):
        *_, i, j = point
        yield Failure(f"({i}, {j}) is {bool(seen[point])}, ({j}, {i}) {not seen[point]}.", point)


@law(
    "monotone",
    "what a query sees, all later queries see",
    proof=_by(prove.monotone),
    is_property=True,
)
def monotone(case: Case) -> Iterator[Failure]:
    seen = case.visible
    for point in nearest(seen[:, :, :-1] & ~seen[:, :, 1:]):
        yield Failure(f"Query {point[2] + 1} does not see key {point[3]} any more.", point)


def _read_inside(subject: Subject, limits: Limits) -> Proof | None:
    sizes = sizes_of(limits)
    mask = subject.mask
    proofs = [] if mask is None else [prove.in_bounds(mask, **sizes)]
    if subject.score is not None:
        proofs.append(prove.in_bounds(subject.score, where=mask, **sizes))
    return min(proofs, key=lambda proof: (proof.holds is not False, proof.holds is True))


@law(
    "in-bounds",
    "captured tensors are read inside their bounds",
    applies=lambda case: 0 not in case.grid,
    proof=_read_inside,
    is_property=True,
)
def in_bounds(case: Case) -> Iterator[Failure]:
    yield from reads_outside(case)


@law(
    "equivariant-heads",
    "heads in another order give outputs in that order",
    applies=lambda case: case.shape.n_heads > 1,
    is_property=True,
)
def equivariant_heads(case: Case) -> Iterator[Failure]:
    yield from _equivariant(case, 1)


@law(
    "equivariant-batch",
    "batches in another order give outputs in that order",
    applies=lambda case: case.shape.n_batch > 1,
    is_property=True,
)
def equivariant_batch(case: Case) -> Iterator[Failure]:
    yield from _equivariant(case, 0)


def _equivariant(case: Case, dim: int) -> Iterator[Failure]:
    if 0 not in case.grid:
        first = case.mask_values.narrow(dim, 0, 1)
        yield from difference(case.mask_values, first.expand(case.grid))
        scores = torch.linspace(-3, 3, case.grid[3], dtype=torch.float64).expand(case.grid)
        scored = case.scored(scores.to(case.subject.device).contiguous())
        yield from difference(scored, scored.narrow(dim, 0, 1).expand(case.grid))
    q, k, v = (x.flip(dim) for x in case.inputs)
    for backend in case.backends:
        found = case.run(backend, (q, k, v))
        restored = type(found)(found.out.flip(dim), found.lse.flip(dim))
        yield from not_close(case, restored, backend, " (in another order)")
