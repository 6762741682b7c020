"""Which tiles a kernel visits: by bounds computed in registers, or from a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attnc.ir import FALSE, TRUE, Expr, Index, IndexName, replaced
from attnc.plan.record import Decision
from attnc.schedule import Schedule, schedule
from attnc.tiles import Tiles

if TYPE_CHECKING:
    from attnc.bounds import ClosedForm

#: The mask of keys and queries as one of queries and keys, and back.
EXCHANGED: Mapping[Expr, Expr] = {
    Index(IndexName.Q): Index(IndexName.KV),
    Index(IndexName.KV): Index(IndexName.Q),
}


def closed_form_of(mask: Expr | None, tiles: Tiles, decisions: list[Decision]) -> ClosedForm | None:
    from attnc.bounds import solve

    closed_form = solve(TRUE if mask is None else mask, tiles.block_m, tiles.block_n)
    if closed_form is None:
        decisions.append(
            Decision(
                "tiles come from a table, made anew for each call",
                "for a tile of queries the mask is no union of few intervals of kv_idx",
            )
        )
    elif mask is FALSE:
        decisions.append(Decision("no tile is visited", "the mask is never true"))
    else:
        n_runs = len(closed_form.runs)
        why = f"for a tile of queries the mask is a union of {n_runs} interval(s) of kv_idx"
        periods = sorted({interval.period for interval in closed_form.tokens} - {0})
        if periods:
            repeated = " and ".join(str(period) for period in periods)
            why += f"; what repeats after {repeated} keys does not tell tiles of {tiles.block_n}"
        if not closed_form.is_ordered:
            why += "; which of them starts first is found at run time"
        decisions.append(Decision("loop bounds are computed in registers", why))
    return closed_form


def transposed_form(
    mask: Expr | None, tiles: Tiles, decisions: list[Decision]
) -> ClosedForm | None:
    from attnc.bounds import solve

    closed_form = solve(
        TRUE if mask is None else replaced(mask, EXCHANGED), tiles.block_n, tiles.block_m
    )
    if closed_form is None:
        what = "tiles of both kernels come from a table, made anew for each call"
        why = "for a tile of keys, the mask is no union of few intervals of q_idx"
        decisions[-1] = Decision(what, why)
    return closed_form


def schedules_of_bounds(closed_form: ClosedForm | None) -> tuple[tuple[str, Schedule], ...]:
    if closed_form is None:
        return ()
    return tuple((name, schedule(expr, f"{name}_")) for name, expr in closed_form.uniforms.items())
