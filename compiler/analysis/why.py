"""Why a tile has its kind: the terms of the predicate that decide it, with evidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attnc.analysis.formula import Join
from attnc.analysis.tile import ValueRange
from attnc.intervals import Truth
from attnc.ir import Expr
from attnc.run_table import Kind
from attnc.trace import Location

Pair = tuple[int, int]

_WORDS = {
    Truth.NEVER: "never holds",
    Truth.MAYBE: "holds for some pairs",
    Truth.ALWAYS: "always holds",
}
_MAX_LISTED = 12


@dataclass(frozen=True)
class Term:
    """A term of the predicate on one tile.

    Attributes:
        text: The term, with captured tensors by their names where these are known.
        truth: Over the pairs of the tile: MAYBE is true for some and false for others.
        location: The user's line, or None where it is not known.
        ranges: The values that a comparison's operands, or their difference, take in the tile.
        follows: ``truth`` follows from ``ranges``; else it was found pair by pair.
        visible, hidden: The first (q_idx, kv_idx) where the term is true, and where it is false.
        join: How ``parts`` make the term; None for a condition.
        parts: The terms that decide: joined they have the value of the whole term at every pair of
            the tile. They are as few as possible, or, of very many terms, none can be left out.
            Where every term is needed to say that all hold, or that none does, these are all.
        expr: The term itself.
    """

    text: str
    truth: Truth
    location: Location | None
    ranges: tuple[ValueRange, ...]
    follows: bool
    visible: Pair | None
    hidden: Pair | None
    join: Join | None
    parts: tuple[Term, ...]
    expr: Expr

    def conditions(self) -> Iterator[Term]:
        """The conditions that decide, each once, in the order in which they are written."""
        seen: set[int] = set()
        stack = [self]
        while stack:
            term = stack.pop()
            if id(term) in seen:  # terms may share parts
                continue
            seen.add(id(term))
            if not term.parts:
                yield term
            stack.extend(reversed(term.parts))


@dataclass(frozen=True)
class Why:
    """Why a tile has its kind; ``str`` of it is made to be read.

    Attributes:
        q_block, kv_block, b, h: The tile.
        queries, keys: Its positions, in tokens.
        kind: Its class.
        term: What decides in the predicate.
        others: Conditions of the predicate that are not needed to tell its value in this tile.
        n_visible: Pairs that are visible.
        visible, hidden: A pair (q_idx, kv_idx) that is visible, and one that is hidden; None where
            there is none.
        is_given: The kind is what a BlockMask says, whatever its mask_mod is there.
    """

    q_block: int
    kv_block: int
    b: int
    h: int
    queries: range
    keys: range
    kind: Kind
    term: Term
    others: tuple[Term, ...]
    n_visible: int
    visible: Pair | None
    hidden: Pair | None
    is_given: bool = False

    @property
    def deciding(self) -> tuple[Term, ...]:
        """The conditions that decide, in the order in which they are written."""
        return tuple(self.term.conditions())

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        n_pairs = len(self.queries) * len(self.keys)
        yield (
            f"Tile ({self.q_block}, {self.kv_block}) of b={self.b}, h={self.h} is "
            f"{self.kind.name}: q_idx {self.queries.start}..{self.queries.stop - 1}, "
            f"kv_idx {self.keys.start}..{self.keys.stop - 1}."
        )
        if self.is_given:
            yield f"  {_GIVEN[self.kind]}"
        yield from _listed(self.term, 1, set())
        for pair, word in ((self.visible, "visible"), (self.hidden, "hidden")):
            if pair is None:
                yield f"  no pair is {word}"
            else:
                count = self.n_visible if word == "visible" else n_pairs - self.n_visible
                shown = f"  q_idx={pair[0]}, kv_idx={pair[1]} is {word}"
                yield shown if count == n_pairs else f"{shown}, as are {count:,} of {n_pairs:,}"
        if self.others:
            yield "Not needed to tell:"
            for term in self.others[:_MAX_LISTED]:
                yield f"  {_headline(term)}"
            if len(self.others) > _MAX_LISTED:
                yield f"  and {len(self.others) - _MAX_LISTED:,} more"


_GIVEN = {
    Kind.EMPTY: "The block mask does not list it, so that it is skipped. Of its mask_mod:",
    Kind.PARTIAL: "The block mask lists it as partial, so that its mask_mod decides each pair:",
    Kind.FULL: "The block mask lists it as full, so that its mask_mod is not asked. Of that:",
}


def _headline(term: Term) -> str:
    place = f"    {term.location}: {term.location.source}" if term.location else ""
    return f"{term.text}  {_WORDS[term.truth]}{place}"


def _listed(term: Term, depth: int, shown: set[int]) -> Iterator[str]:
    """Lines about ``term``, deeper parts further to the right."""
    indent = "  " * depth
    if id(term) in shown:
        yield f"{indent}{term.text}  {_WORDS[term.truth]}, as above"
        return
    shown.add(id(term))
    if not term.parts:
        yield f"{indent}{_headline(term)}"
        yield from (f"{indent}    {line}" for line in _evidence_lines(term))
        return
    yield f"{indent}{_relation(term, is_whole=depth == 1)}:"
    for part in term.parts[:_MAX_LISTED]:
        yield from _listed(part, depth + 1, shown)
    if len(term.parts) > _MAX_LISTED:
        yield f"{indent}  and {len(term.parts) - _MAX_LISTED:,} more"


def _evidence_lines(term: Term) -> Iterator[str]:
    if term.ranges:
        yield ", ".join(map(str, term.ranges))
    if term.truth is Truth.MAYBE:
        assert term.visible is not None
        assert term.hidden is not None
        pairs = [f"q_idx={q_idx}, kv_idx={kv_idx}" for q_idx, kv_idx in (term.visible, term.hidden)]
        yield f"true at {pairs[0]}; false at {pairs[1]}"
    elif not term.follows:
        yield "found pair by pair"


def _relation(term: Term, *, is_whole: bool) -> str:
    match term.join, term.truth:
        case Join.ALL, Truth.ALWAYS:
            return "all of these hold everywhere"
        case Join.ALL, Truth.NEVER:
            return "these never hold together"
        case _, Truth.ALWAYS:
            return "everywhere one of these holds"
        case _, Truth.NEVER:
            return "none of these ever holds"
        case join, _:
            held = "all of these hold" if join is Join.ALL else "one of these holds"
            return f"a pair is visible where {held}" if is_whole else f"for some pairs {held}"
