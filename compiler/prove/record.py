"""What a question about a mask was answered, and what answering it may cost."""

from __future__ import annotations

from dataclasses import dataclass

from attnc.trace import Location

Pair = tuple[int, int, int, int | None]


@dataclass(frozen=True)
class Proof:
    """Whether a property of a mask holds; as a condition it is True only where that is proved.

    Attributes:
        holds: True if proved, False if refuted, None if undecided within the budget.
        counterexample: ``(b, h, q_idx, kv_idx)``, evaluated, where the property fails. ``kv_idx``
            is None where no key can be named: a query that sees none.
        method: How that was found, and for which lengths it holds.
        detail: What is wrong at the counterexample; what is left open if undecided; that a proof is
            for one batch or head, where it depends on them and no number was given.
        location: The user's line that is to blame, where it is known.
        max_length: Lengths up to which a proof holds, of queries and of keys, beyond those that
            were asked for; None where it is for those only.
    """

    holds: bool | None
    counterexample: Pair | None
    method: str
    detail: str = ""
    location: Location | None = None
    max_length: int | None = None

    def __bool__(self) -> bool:
        return self.holds is True

    def __str__(self) -> str:
        word = {True: "holds", False: "refuted", None: "undecided"}[self.holds]
        lines = [f"{word} ({self.method})"]
        if self.counterexample is not None:
            lines.append(f"  at {pair_text(self.counterexample)}: {self.detail}")
        elif self.detail:
            lines.append(f"  {self.detail}")
        if self.location is not None:
            lines.append(f"  {self.location}: {self.location.source}")
        return "\n".join(lines)


def pair_text(pair: Pair) -> str:
    """A pair, or the row of a query, in the names of its coordinates."""
    names = ("b", "h", "q_idx", "kv_idx")
    named = zip(names, pair, strict=True)
    return ", ".join(f"{name}={number}" for name, number in named if number is not None)


#: Asking for the truth of a predicate on a box takes as long as evaluating so many pairs.
PAIRS_PER_BOX = 16


@dataclass
class Effort:
    """What may be spent on one question, in pairs evaluated, and what was."""

    budget: int
    n_boxes: int = 0
    n_pairs: int = 0

    def affords(self, *, n_boxes: int = 0, n_pairs: int = 0) -> bool:
        """Whether so much is left; if so, it is spent."""
        spent = PAIRS_PER_BOX * (self.n_boxes + n_boxes) + self.n_pairs + n_pairs
        if spent > self.budget:
            return False
        self.n_boxes += n_boxes
        self.n_pairs += n_pairs
        return True

    def __str__(self) -> str:
        parts = [f"intervals on {self.n_boxes:,} boxes"] if self.n_boxes else []
        parts += [f"{self.n_pairs:,} pairs evaluated"] if self.n_pairs else []
        return " and ".join(parts) or "nothing looked at"


def is_leaf(n_asked: int, n_left: int, area: int) -> bool:
    """Whether open rectangles are to be evaluated rather than split once more.

    Args:
        n_asked: Rectangles of which the truth was asked.
        n_left: Those of them that are open.
        area: Pairs in each.
    """
    if area == 1 or n_left * area <= _FEW_PAIRS:
        return True
    # If a split settles as large a share as the last one did, it saves so many pairs.
    saved = area * (1 - n_left / n_asked)
    return area <= _LEAF_PAIRS and saved <= 4 * PAIRS_PER_BOX


_FEW_PAIRS = 1 << 17
_LEAF_PAIRS = 1 << 12
