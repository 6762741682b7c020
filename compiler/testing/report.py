"""What a ``check`` has examined, law by law."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Examined:
    """How a law was examined.

    Attributes:
        law: Its name.
        n_examples: Inputs at which it was.
        proof: How it was proved for all inputs at once, or empty.
        is_broken: Whether it does not hold.
    """

    law: str
    n_examples: int = 0
    proof: str = ""
    is_broken: bool = False

    def once_more(self) -> Examined:
        """The same with one more input."""
        return replace(self, n_examples=self.n_examples + 1)

    def __str__(self) -> str:
        if self.is_broken:
            return "broken"
        if self.proof:
            return f"proved ({self.proof})"
        if not self.n_examples:
            return "not examined: there was nothing to examine"
        return f"{self.n_examples} example{'s' if self.n_examples > 1 else ''}"


@dataclass(frozen=True)
class CheckReport:
    """What a ``check`` has examined; ``table()`` lists the laws.

    Attributes:
        name: Of the function.
        n_examples: Random inputs.
        backends: Whose kernels ran.
        laws: What was examined, in order.
    """

    name: str
    n_examples: int
    backends: tuple[str, ...]
    laws: tuple[Examined, ...] = ()

    def __str__(self) -> str:
        where = " and ".join(self.backends) or "no backend"
        broken = [each.law for each in self.laws if each.is_broken]
        found = f"{', '.join(broken)} broken" if broken else "no law broken"
        return f"{self.name}: {self.n_examples} random inputs, kernels of {where}: {found}"

    def table(self) -> str:
        """A line for each law: its name, and how often it was examined."""
        width = max((len(each.law) for each in self.laws), default=0)
        return "\n".join(f"{each.law.ljust(width)}  {each}" for each in self.laws)
