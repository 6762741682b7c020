"""What PARTIAL tiles check, and which of them check less than the whole mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from attnc.ir import Expr, IndexName, Ref, walk
from attnc.limits import limits_of
from attnc.plan.record import Decision
from attnc.plan.spec import Spec
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
class PartialMasks:
    """Schedules of what the tiles of a loop check.

    Attributes:
        whole: The mask.
        low, middle, high: What is left of it in parts of the last run, as ``edges.Edges`` says;
            None where there is no such part.
        low_stop, high_start: The ends of those parts, as in ``edges.Edges``.
    """

    whole: Schedule
    low: Schedule | None = None
    middle: Schedule | None = None
    high: Schedule | None = None
    low_stop: Any = None
    high_start: Any = None

    @property
    def has_parts(self) -> bool:
        return self.low is not None or self.middle is not None

    @property
    def schedules(self) -> dict[str, Schedule]:
        """By the name of what is checked, ``ALL`` last."""
        named = {"LOW": self.low, "MIDDLE": self.middle, "HIGH": self.high, "ALL": self.whole}
        return {name: part for name, part in named.items() if part is not None}


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
    if isinstance(spec.target, CpuTarget):
        what = "PARTIAL tiles check the whole mask"
        decisions.append(Decision(what, "on CPUs that takes a few percent of a tile's time"))
        return PartialMasks(scheduled(mask, "m"))
    return _partial_masks(mask, IndexName.KV, closed_form, scheduled, decisions)


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
    return _partial_masks(mask, IndexName.Q, transposed, scheduled, decisions)


def _partial_masks(
    mask: Expr,
    own: IndexName,
    closed_form: ClosedForm | None,
    scheduled: Scheduled,
    decisions: list[Decision],
) -> PartialMasks:
    # Closed forms are used only where no integer wraps around.
    limited = partial(limits_of, own=own, is_exact=closed_form is not None)
    whole = limited(mask)
    if any(isinstance(node, Ref) for node in walk(whole)):
        what = f"comparisons with {own.value} are limits of its place in a tile"
        why = "places are the same in every tile; of limits there is one per line of it"
        decisions.append(Decision(what, why))
    found = PartialMasks(scheduled(whole, "m"))
    if closed_form is None or own is IndexName.Q:
        return found  # more loops over queries, which add to two sums, have too few registers
    from attnc.plan.edges import edges_of
    from attnc.printer import format_expr

    edges = edges_of(mask, closed_form)
    if edges is None:
        return found
    parts: dict[str, Schedule | None] = {}
    for name, prefix, where in _PARTS:
        condition = getattr(edges, name)
        if condition is None:
            continue
        parts[name] = scheduled(limited(condition), prefix)
        what = f"of a run of {own.value}, {where} check `{format_expr(condition)}`"
        why = "bounds of the mask's other conditions, each alone, say that they hold there"
        decisions.append(Decision(what, why))
    return PartialMasks(found.whole, **parts, low_stop=edges.low_stop, high_start=edges.high_start)
