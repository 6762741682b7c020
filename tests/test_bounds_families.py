"""Families of published masks have loop bounds in closed form, in both directions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiles_of_bounds import check_tiles

from attnc.bounds import ClosedForm, solve
from attnc.intervals import Facts, never_wraps
from attnc.ir import KV_IDX, Q_IDX, Expr
from attnc.ir import replaced as replaced_in
from attnc.lift import lift
from attnc.simplify import simplify
from attnc.trace import SlotTable, trace_mask

Mask = Callable[[Any, Any, Any, Any], Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]
MAX_INT = 2**31 - 1


def sizes() -> st.SearchStrategy[int]:
    """Lengths, windows and offsets, some beyond any length."""
    return st.one_of(st.integers(0, 200), st.sampled_from([1, 16, 64, 100_000, MAX_INT]))


def divisors() -> st.SearchStrategy[int]:
    return st.sampled_from([2, 3, 5, 8, 12, 16, 20, 24, 48])


def offsets() -> st.SearchStrategy[int]:
    return st.integers(-80, 220)


def per_head(values: st.SearchStrategy[int]) -> st.SearchStrategy[torch.Tensor]:
    listed = st.lists(values, min_size=3, max_size=3)
    return listed.map(lambda numbers: torch.tensor(numbers, dtype=torch.int32))


@dataclass(frozen=True)
class Family:
    """How to draw a mask. ``is_exact``: its closed form skips every EMPTY tile; ``is_full``: it
    finds every FULL one."""

    draw: Callable[[Draw], Mask]
    is_exact: bool = True
    is_full: bool = False


def dilated_window(draw: Draw) -> Mask:
    window, step, rest = draw(sizes()), draw(st.sampled_from([2, 3, 4, 7, 16])), 0
    return lambda b, h, q, kv: (q >= kv) & (q - kv < window) & ((q - kv) % step == rest)


def dilated_on_both_sides(draw: Draw) -> Mask:
    window, step = draw(st.integers(1, 200)), draw(st.sampled_from([2, 3, 8]))
    return lambda b, h, q, kv: ((q - kv).abs() <= window) & ((kv - q) % step == 0)


def global_and_window(draw: Draw) -> Mask:
    window, first = draw(sizes()), draw(sizes())
    return lambda b, h, q, kv: (kv < first) | (q < first) | ((q - kv).abs() <= window)


def global_anywhere(draw: Draw) -> Mask:
    window, start, stop = draw(sizes()), draw(offsets()), draw(offsets())
    return lambda b, h, q, kv: ((kv >= start) & (kv < stop)) | ((q - kv).abs() <= window)


def prefix_of_batch(draw: Draw) -> Mask:
    prefix = draw(per_head(offsets()))
    return lambda b, h, q, kv: (kv < prefix[b]) | (q >= kv)


def window_of_head(draw: Draw) -> Mask:
    window = draw(per_head(sizes()))
    return lambda b, h, q, kv: (q >= kv) & (q - kv < window[h])


def real_window_of_head(draw: Draw) -> Mask:
    window = torch.tensor(draw(st.lists(st.floats(-10, 200, width=32), min_size=3, max_size=3)))
    return lambda b, h, q, kv: (q >= kv) & (q - kv < window[h] * 0.75 + 1)


def chunks_of_head(draw: Draw) -> Mask:
    chunk = draw(per_head(st.one_of(st.integers(1, 60), st.just(MAX_INT))))
    return lambda b, h, q, kv: q // chunk[h] == kv // chunk[h]


def chunks_back(draw: Draw) -> Mask:
    chunk, back = draw(divisors()), draw(st.integers(0, 4))
    return lambda b, h, q, kv: (q // chunk >= kv // chunk) & (q // chunk - kv // chunk <= back)


def sinks_and_window(draw: Draw) -> Mask:
    sinks, window = draw(sizes()), draw(sizes())
    return lambda b, h, q, kv: (q >= kv) & ((kv < sinks) | (q - kv < window))


def strided_ends(draw: Draw) -> Mask:
    stride, kept = draw(st.sampled_from([4, 8, 16])), draw(st.integers(1, 3))
    window = draw(sizes())
    return lambda b, h, q, kv: (q >= kv) & ((q - kv < window) | (kv % stride >= stride - kept))


def block_diffusion(draw: Draw) -> Mask:
    half, block = draw(st.integers(0, 140)), draw(divisors())

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        q_clean, kv_clean = q >= half, kv >= half
        q_part = torch.where(q_clean, (q - half) // block, q // block)
        kv_part = torch.where(kv_clean, (kv - half) // block, kv // block)
        own = (q_part == kv_part) & (q_clean == kv_clean)
        earlier = (q_part > kv_part) & kv_clean & ~q_clean
        return own | earlier | ((q_part >= kv_part) & kv_clean & q_clean)

    return mask


def block_diffusion_by_remainders(draw: Draw) -> Mask:
    half, block = draw(st.sampled_from([16, 24, 32, 100, 128])), draw(st.sampled_from([4, 8, 16]))

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        q_clean, kv_clean = q >= half, kv >= half
        q_part, kv_part = (q % half) // block, (kv % half) // block
        own = (q_part == kv_part) & (q_clean == kv_clean)
        return own | (kv_clean & ~q_clean & (q_part > kv_part)) | (kv_clean & (q_part >= kv_part))

    return mask


def neighbourhood(draw: Draw) -> Mask:
    width, rows, columns = draw(divisors()), draw(st.integers(0, 5)), draw(st.integers(0, 12))

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        near_rows = (q // width - kv // width).abs() <= rows
        return near_rows & ((q % width - kv % width).abs() <= columns)

    return mask


def disc(draw: Draw) -> Mask:
    width, radius = draw(divisors()), draw(st.integers(-3, 60))

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        dy, dx = q // width - kv // width, q % width - kv % width
        return dy * dy + dx * dx <= radius

    return mask


def ring(draw: Draw) -> Mask:
    inner, outer = draw(st.integers(-5, 3000)), draw(st.integers(-5, 9000))
    return lambda b, h, q, kv: ((q - kv) * (q - kv) >= inner) & ((q - kv) * (q - kv) < outer)


def clamped_neighbourhood(draw: Draw) -> Mask:
    width, rows, window, stride = draw(divisors()), draw(st.integers(3, 12)), 3, draw(divisors())

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        leader = (q // width // stride * stride + stride // 2).clamp(max=rows - 1)
        centre = leader.clamp(window // 2, rows - 1 - (window - 1) // 2)
        return (centre - kv // width <= window // 2) & (kv // width - centre <= (window - 1) // 2)

    return mask


def remainder_of_query(draw: Draw) -> Mask:
    period, shift = draw(st.sampled_from([40, 64, 100])), draw(offsets())
    return lambda b, h, q, kv: (kv >= q % period) & (kv <= (q + shift) % period)


def query_range(draw: Draw) -> Mask:
    start, stop, window = draw(offsets()), draw(offsets()), draw(sizes())
    return lambda b, h, q, kv: (q >= start) & (q < stop) & ((q - kv).abs() <= window)


def mode_of_head(draw: Draw) -> Mask:
    mode, width = draw(per_head(st.integers(0, 2))), draw(st.integers(1, 60))

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        local, dilated = (q - kv).abs() < width, (q % 8 - kv % 8).abs() < 3
        return (q < 16) | (kv < 16) | torch.where(mode[h] == 0, local, dilated)

    return mask


FAMILIES = {
    "dilated window": Family(dilated_window),
    "dilated on both sides": Family(dilated_on_both_sides),
    "global and window": Family(global_and_window),
    "global anywhere": Family(global_anywhere),
    "prefix of a batch": Family(prefix_of_batch),
    "window of a head": Family(window_of_head, is_full=True),
    "real window of a head": Family(real_window_of_head, is_full=True),
    "chunks of a head": Family(chunks_of_head, is_full=True),
    "chunks back": Family(chunks_back, is_full=True),
    "sinks and window": Family(sinks_and_window),
    "strided ends": Family(strided_ends, is_exact=False),
    "block diffusion": Family(block_diffusion),
    "block diffusion by remainders": Family(block_diffusion_by_remainders, is_exact=False),
    "neighbourhood": Family(neighbourhood, is_exact=False),
    "disc": Family(disc, is_exact=False),
    "ring": Family(ring, is_exact=False),
    "clamped neighbourhood": Family(clamped_neighbourhood, is_full=True),
    "remainder of the query": Family(remainder_of_query, is_exact=False),
    "range of queries": Family(query_range),
    "mode of a head": Family(mode_of_head, is_exact=False),
}
#: Where one direction has no closed form: a bound has an operator that is solved for one index.
ONE_WAY = {"remainder of the query"}
EXCHANGED: dict[Expr, Expr] = {Q_IDX: KV_IDX, KV_IDX: Q_IDX}
solved = functools.lru_cache(maxsize=None)(solve)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("n_examples", [6, pytest.param(150, marks=pytest.mark.slow)])
def test_families_have_sound_bounds(name: str, n_examples: int) -> None:
    """No visible pair is skipped and none hidden is called FULL, for tiles of queries and of
    keys; where a family is exact, no EMPTY tile is visited, or every FULL one is found."""
    family = FAMILIES[name]

    @settings(max_examples=n_examples, deadline=None)
    @given(
        st.data(),
        st.sampled_from([(64, 64), (32, 48)]),
        st.tuples(*[st.one_of(st.sampled_from([1, 64, 192]), st.integers(0, 260))] * 2),
        st.booleans(),
    )
    def law(
        data: st.DataObject, block: tuple[int, int], lengths: tuple[int, int], is_transposed: bool
    ) -> None:
        slots = SlotTable()
        mask = simplify(trace_mask(family.draw(data.draw), slots).expr)
        n_queries, n_keys = lengths
        extents = {"n_batch": 3, "n_heads": 3, "n_queries": n_queries, "n_keys": n_keys}
        if not never_wraps([mask], Facts(slots.tensors), **extents):
            return
        lifted = lift((mask,))
        (expr,) = lifted.exprs
        assert expr is not None
        if is_transposed:
            expr = replaced_in(expr, EXCHANGED)
        form: ClosedForm | None = solved(expr, *block)
        if form is None:
            assert is_transposed
            assert name in ONE_WAY
            return
        check_tiles(
            form,
            expr,
            lengths,
            lifted.values,
            slots.tensors,
            exact_empty=family.is_exact,
            exact_full=family.is_full,
        )

    law()


def test_halves_of_noised_and_clean_tokens_are_exact() -> None:
    """Positions by ``kv_idx % half``: with two halves of whole tiles no EMPTY tile is visited, and
    with more the bounds stay sound."""
    half, block = 128, 16

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        q_clean, kv_clean = q >= half, kv >= half
        q_part, kv_part = (q % half) // block, (kv % half) // block
        own = (q_part == kv_part) & (q_clean == kv_clean)
        earlier = kv_clean & ~q_clean & (q_part > kv_part)
        return own | earlier | (kv_clean & q_clean & (q_part >= kv_part))

    lifted = lift((simplify(trace_mask(mask, SlotTable()).expr),))
    (expr,) = lifted.exprs
    assert expr is not None
    for direction in (expr, replaced_in(expr, EXCHANGED)):
        form = solve(direction, 64, 32)
        assert form is not None
        for length in (256, 500):
            check_tiles(
                form,
                direction,
                (length, length),
                lifted.values,
                (),
                exact_empty=length == 256,
                exact_full=length == 256,
            )


_STAMP = torch.tensor([2**60, 5, 2**60 - 9])
_EARLIER = torch.tensor([2**60 - 5, 3, 2**60])
_SEED = torch.tensor([2**60 + 3, 2**55 + 1, 7])
_PAGES = torch.tensor([2**61, 1, 2**52])
_LAST = torch.tensor([MAX_INT, 4, -5], dtype=torch.int32)
_FIRST = torch.tensor([-1, 7, -MAX_INT - 1], dtype=torch.int32)
_PER = torch.tensor([-3, 2, 0])

HUGE: dict[str, Mask] = {
    "two that differ little": lambda b, h, q, kv: q - kv + _STAMP[b] >= _EARLIER[b],
    "a remainder": lambda b, h, q, kv: kv < (q + _SEED[b]) % 100,
    "a quotient": lambda b, h, q, kv: kv < (q + _SEED[b]) // 2**54,
    "beside a huge constant": lambda b, h, q, kv: kv < q + _SEED[b] - 2**60,
    "times a divisor": lambda b, h, q, kv: kv // 2**14 < _PAGES[b],
    "compared, 64 bits": lambda b, h, q, kv: (q >= kv) & (_STAMP[b] > _EARLIER[b]),
    "compared, 32 bits": lambda b, h, q, kv: (q >= kv) & (_LAST[b] > _FIRST[b]),
    "chosen, then compared": lambda b, h, q, kv: torch.where(q >= kv, q, _LAST[b]) > -MAX_INT,
    "a quotient by less than nothing": lambda b, h, q, kv: q // _PER[b] < -1,
    "a divisor": lambda b, h, q, kv: q // _PAGES[b] == kv // _PAGES[b],
}


@pytest.mark.parametrize("name", HUGE)
def test_huge_captured_numbers_have_sound_bounds(name: str) -> None:
    """Numbers of 64 bits are clamped in bounds, and differences of 32 bits may wrap around: where
    that would change a tile the bounds say PARTIAL, and all stays within 64 bits."""
    slots = SlotTable()
    mask = HUGE[name]
    lifted = lift((simplify(trace_mask(lambda b, h, q, kv: mask(b, h, q, kv), slots).expr),))
    (expr,) = lifted.exprs
    assert expr is not None
    extents = {"n_batch": 3, "n_heads": 1, "n_queries": 100, "n_keys": 130}
    assert never_wraps([expr], Facts(slots.tensors, lifted.values), **extents)
    form = solve(expr, 16, 16)
    assert form is not None

    check_tiles(
        form, expr, (100, 130), lifted.values, slots.tensors, exact_empty=False, exact_full=False
    )
