"""What a law is, and the table of all laws."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnc.prove import Proof
    from attnc.testing.case import Case
    from attnc.testing.recipes import Limits
    from attnc.testing.subject import Subject


@dataclass(frozen=True)
class Failure:
    """How a law is broken at one input.

    Attributes:
        details: What was found, and what ought to be.
        point: Coordinates (b, h, q_idx, kv_idx) where it shows, if it shows at one.
        backend: The backend whose kernel breaks it, if a kernel does.
    """

    details: str
    point: tuple[int, ...] | None = None
    backend: str | None = None


Broken = Callable[["Case"], Iterable[Failure]]


def _always(case: Case) -> bool:
    return True


@dataclass(frozen=True)
class Law:
    """Something that must hold at every input.

    Attributes:
        name: As users choose it.
        says: The sentence, to follow "it does not hold that"; ``{kernel}`` stands for the kernel.
        broken: Its failures at an input; none where it holds.
        applies: Whether a ``case`` says anything about it; others are not counted as examples.
        proof: Decides it for all inputs within limits at once, where ``attnc.prove`` can.
        is_property: It is what some functions promise, and asked for by name.
        function: A user's own law, as its user wrote it.
    """

    name: str
    says: str
    broken: Broken = field(repr=False)
    applies: Callable[[Case], bool] = field(default=_always, repr=False)
    proof: Callable[[Subject, Limits], Proof | None] | None = field(default=None, repr=False)
    is_property: bool = False
    function: Callable[[Case], object] | None = field(default=None, repr=False)

    @property
    def family(self) -> str:
        """The module that it stands in."""
        return self.broken.__module__.rpartition(".")[2]

    @property
    def is_about_kernels(self) -> bool:
        """Whether it says nothing where no kernel runs."""
        return "{kernel}" in self.says

    def sentence(self, failure: Failure) -> str:
        """What does not hold, for a ``failure`` of it."""
        return self.says.format(kernel=f"the {failure.backend} kernel")


#: All laws by name, in the order in which they are examined.
LAWS: dict[str, Law] = {}


def law(
    name: str,
    says: str,
    *,
    applies: Callable[[Case], bool] = _always,
    proof: Callable[[Subject, Limits], Proof | None] | None = None,
    is_property: bool = False,
) -> Callable[[Broken], Broken]:
    """Enters a generator of failures of a ``Case`` into ``LAWS``.

    Args:
        name, says, applies, proof, is_property: As in ``Law``.
    """

    def enter(broken: Broken) -> Broken:
        assert name not in LAWS, f"two laws are called {name}"
        LAWS[name] = Law(name, says, broken, applies, proof, is_property)
        return broken

    return enter


def law_of(function: Callable[[Case], object]) -> Law:
    """A user's own law: a function of a case that raises AssertionError, or returns False or what
    is wrong as text, where it is broken."""

    def broken(case: Case) -> Iterator[Failure]:
        try:
            result = function(case)
        except AssertionError as error:
            yield Failure(str(error) or "An assertion failed.")
            return
        if isinstance(result, str):
            yield Failure(result)
        elif result is not None and not result:
            yield Failure("It returned False.")

    name = getattr(function, "__name__", "law").replace("_", "-")
    says = (function.__doc__ or f"{name} is true").strip().split("\n")[0].rstrip(".")
    return Law(name, says.replace("{", "{{").replace("}", "}}"), broken, function=function)
