"""Laws of the backward pass."""

from __future__ import annotations

from collections.abc import Iterator

from attnc.testing.case import Case
from attnc.testing.gradients import assert_gradients_close
from attnc.testing.laws.registry import Failure, law


@law(
    "gradients",
    "{kernel} gives the gradients of q, k, v and captured tensors that autograd gives in float64",
    applies=lambda case: case.with_gradients and 0 not in case.grid,
)
def gradients(case: Case) -> Iterator[Failure]:
    for backend in case.backends:
        try:
            assert_gradients_close(
                case.differentiated,
                case.outcome(backend).gradients,
                case.expected_gradients,
                case.dtype,
                case.shape.head_dim,
                is_single=case.is_single,
            )
        except AssertionError as error:
            yield Failure(str(error), backend=backend)
