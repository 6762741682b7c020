"""What PARTIAL tiles check, and which of them check less than the whole mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from attnc.conjunction import terms_of
from attnc.ir import Expr, IndexName, Ref, replaced, walk
from attnc.limits import limits_of
from attnc.plan.record import Decision
from attnc.plan.spec import Spec
from attnc.plan.visits import EXCHANGED
from attnc.schedule import Schedule
from attnc.target import CpuTarget

if TYPE_CHECKING:
    from attnc.bounds import ClosedForm

Scheduled = Callable[[Expr, str], Schedule]

# Of ``Edges``: names, prefixes of names in kernels, and which tiles they are.
_PARTS = (
    ("low", "lo", "PARTIAL tiles before the FULL ones"),
    ("middle", "mi", "tiles between the limits"),
    ("high", "hi", "PARTIAL tiles after the FULL ones"),
)


@dataclass(frozen=True)
class Term:
    """A condition that a tile checks on its own, where it may not hold.

    ``side``: as in ``edges.Edges.terms``; "" where a table says which tiles check it.
    """

    schedule: Schedule
    side: str = ""


@dataclass(frozen=True)
class PartialMasks:
    """Schedules of what the tiles of a loop check.

    Attributes:
        whole: The mask.
        low, middle, high: What is left of it in parts of the last run, as ``edges.Edges`` says;
            None where there is no such part.
        low_stop, high_start: The ends of those parts, as in ``edges.Edges``.
        terms: Conditions whose conjunction is the mask, for tiles to branch on; none where a loop
            has all its tiles check the same.
    """

    whole: Schedule
    low: Schedule | None = None
    middle: Schedule | None = None
    high: Schedule | None = None
    low_stop: Any = None
    high_start: Any = None
    terms: tuple[Term, ...] = ()

    @property
    def has_parts(self) -> bool:
        return self.low is not None or self.middle is not None

    @property
    def schedules(self) -> dict[str, Schedule]:
        """By the name of what is checked, ``ALL`` last; with ``terms``, these are ``ALL``."""
        named = {"LOW": self.low, "MIDDLE": self.middle, "HIGH": self.high, "ALL": self.whole}
        return {name: part for name, part in named.items() if part is not None}

    @property
    def computed(self) -> tuple[Schedule, ...]:
        """Everything that tiles of GPUs compute of the mask."""
        return tuple(term.schedule for term in self.terms) or tuple(self.schedules.values())


def masks_by_keys(
    spec: Spec,
    mask: Expr | None,
    closed_form: ClosedForm | None,
    scheduled: Scheduled,
    decisions: list[Decision],
) -> PartialMasks | None:
    """What is checked in loops over tiles of keys; None without a mask."""
    if mask is None:
        return None
    if not isinstance(spec.target, CpuTarget):
        return _partial_masks(spec, mask, closed_form, scheduled, decisions)
    # One loop visits all tiles: what they check takes little of their time.
    whole = scheduled(mask, "m")
    if closed_form is None:
        return PartialMasks(whole, terms=_terms(spec, mask, scheduled, decisions))
    return _masks_of_sides(mask, closed_form, whole, "keys", {}, scheduled, decisions)


def masks_by_queries(
    spec: Spec,
    mask: Expr | None,
    transposed: ClosedForm | None,
    scheduled: Scheduled,
    decisions: list[Decision],
) -> PartialMasks | None:
    """What is checked in loops over tiles of queries; None where no kernel has one."""
    if mask is None or spec.gradients is None or isinstance(spec.target, CpuTarget):
        return None
    # More loops, which add to two sums, would have too few registers: here tiles branch.
    scheduled = _with_limits(mask, IndexName.Q, transposed, scheduled, decisions)
    whole = scheduled(mask, "m")
    if transposed is None:
        return PartialMasks(whole, terms=_terms(spec, mask, scheduled, decisions))
    if len(transposed.runs) > 1:
        return PartialMasks(whole)
    exchanged = replaced(mask, EXCHANGED)
    return _masks_of_sides(exchanged, transposed, whole, "queries", EXCHANGED, scheduled, decisions)


def _masks_of_sides(
    mask: Expr,
    closed_form: ClosedForm,
    whole: Schedule,
    of_what: str,
    indices: Mapping[Expr, Expr],
    scheduled: Scheduled,
    decisions: list[Decision],
) -> PartialMasks:
    """Terms of ``mask`` for tiles of the last run to branch on by their place in it.

    ``closed_form`` is solved from ``mask``; in kernels, its indices are those of ``indices``.
    """
    from attnc.plan.edges import edges_of
    from attnc.printer import format_expr

    edges = edges_of(mask, closed_form)
    if edges is None:
        return PartialMasks(whole)
    terms = []
    for letter, (side, part) in zip(_LETTERS, edges.terms, strict=False):
        condition = replaced(part, indices)
        terms.append(Term(scheduled(condition, f"m{letter}"), side))
        if side:
            where = "before the FULL ones" if side == "low" else "after them"
            what = f"of tiles of {of_what}, only those {where} check `{format_expr(condition)}`"
            decisions.append(Decision(what, "its own bounds say that it holds in the others"))
    return PartialMasks(
        whole, terms=tuple(terms), low_stop=edges.low_stop, high_start=edges.high_start
    )


_LETTERS = "abcd"  # of terms, in names of their values


def _with_limits(
    mask: Expr,
    own: IndexName,
    closed_form: ClosedForm | None,
    scheduled: Scheduled,
    decisions: list[Decision],
) -> Scheduled:
    """Schedules conditions of ``mask`` as limits of the index that a loop goes over."""
    # Closed forms are used only where no integer wraps around.
    limited = partial(limits_of, own=own, is_exact=closed_form is not None)
    if any(isinstance(node, Ref) for node in walk(limited(mask))):
        what = f"comparisons with {own.value} are limits of its place in a tile"
        why = "places are the same in every tile; of limits there is one per line of it"
        decisions.append(Decision(what, why))
    return lambda condition, prefix: scheduled(limited(condition), prefix)


def _terms(
    spec: Spec,
    mask: Expr,
    scheduled: Scheduled,
    decisions: list[Decision],
) -> tuple[Term, ...]:
    """What PARTIAL tiles of a table check each where the table says so; () for the whole mask."""
    terms = terms_of(mask)
    if len(terms) == 1:
        return ()
    if spec.from_table:
        why = "tiles that were given stay, while what the mask reads may change"
        decision = Decision("PARTIAL tiles check the whole mask", why)
        if decision not in decisions:
            decisions.append(decision)
        return ()
    what = f"PARTIAL tiles check those of {len(terms)} terms of the mask that may not hold there"
    decision = Decision(what, "the table says which, made by the analysis of each term")
    if decision not in decisions:
        decisions.append(decision)
    return tuple(
        Term(scheduled(term, f"m{letter}")) for letter, term in zip(_LETTERS, terms, strict=False)
    )


def _partial_masks(
    spec: Spec,
    mask: Expr,
    closed_form: ClosedForm | None,
    scheduled: Scheduled,
    decisions: list[Decision],
) -> PartialMasks:
    scheduled = _with_limits(mask, IndexName.KV, closed_form, scheduled, decisions)
    whole = scheduled(mask, "m")
    if closed_form is None:
        return PartialMasks(whole, terms=_terms(spec, mask, scheduled, decisions))
    from attnc.plan.edges import edges_of
    from attnc.printer import format_expr

    edges = edges_of(mask, closed_form)
    if edges is None:
        return PartialMasks(whole)
    parts: dict[str, Schedule] = {}
    for name, prefix, where in _PARTS:
        condition = getattr(edges, name)
        if condition is None:
            continue
        parts[name] = scheduled(condition, prefix)
        what = f"of a run of kv_idx, {where} check `{format_expr(condition)}`"
        why = "bounds of the mask's other conditions, each alone, say that they hold there"
        decisions.append(Decision(what, why))
    return PartialMasks(
        whole,
        low=parts.get("low"),
        middle=parts.get("middle"),
        high=parts.get("high"),
        low_stop=edges.low_stop,
        high_start=edges.high_start,
    )
