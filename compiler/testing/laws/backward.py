"""Laws of the backward pass."""

from __future__ import annotations

from collections.abc import Iterator

from attnc.testing.case import Case
from attnc.testing.gradients import assert_gradients_close
from attnc.testing.laws.registry import Failure, law


@law(
    "gradients",
    "{kernel} gives the gradients of q, k, v and captured tensors that autograd gives in float64",
    applies=lambda case: bool(_with_gradients(case)) and 0 not in case.grid,
)
def gradients(case: Case) -> Iterator[Failure]:
    for each in _with_gradients(case):
        for backend in each.backends:
            try:
                assert_gradients_close(
                    each.differentiated,
                    each.outcome(backend).gradients,
                    each.expected_gradients,
                    each.dtype,
                    each.shape.head_dim,
                    is_single=each.is_single,
                )
            except AssertionError as error:
                note = "" if each is case else " (keys are hidden)"
                yield Failure(f"{error}{note}", backend=backend)


def _with_gradients(case: Case) -> list[Case]:
    return [each for each in case.variants if each.with_gradients]
