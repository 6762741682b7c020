"""Hidden queries per key, as FlashMask takes them: ``startend_row_indices``.

Source: Wang et al. 2024 (FlashMask), arXiv:2410.01359; ``flashmask_attention`` of PaddlePaddle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attnc import checks
from attnc.decorator import Kernel
from attnc.errors import NotFlashMaskError
from attnc.interchange.arguments import (
    OuterIndexed,
    made_kernel,
    require_flag,
    require_integers,
    wrong,
)
from attnc.interchange.runs import Runs, sampled_runs, visible_runs
from attnc.interchange.subject import Subject, subject_of
from attnc.mods import Mod

Ints = NDArray[np.int64]

_FUNCTION = "from_flashmask"


@dataclass(frozen=True, eq=False)
class FlashMask:
    """Hidden queries per key, by the names of FlashMask's parameters: pass ``**vars(rows)``.

    Attributes:
        startend_row_indices: (B, H, n_keys, 1, 2 or 4) int32; see ``from_flashmask``.
        causal: Whether keys after a query are hidden besides.
    """

    startend_row_indices: torch.Tensor
    causal: bool


def from_flashmask(
    startend_row_indices: torch.Tensor,
    causal: bool,
    *,
    n_queries: int | None = None,
    n_heads: int | None = None,
) -> Kernel:
    """Each key is hidden from the queries of at most two intervals.

    The numbers of a key are r1, or r1 and r2, or r1 to r4. With ``causal`` hidden are r1 and later;
    or r1 to r2 - 1; and queries before the key, where both end together. Without it, r1 and later,
    and those before r2; or r1 to r2 - 1 and r3 to r4 - 1.

    Args:
        startend_row_indices: (B or 1, heads, n_keys, w), integers, none negative: w is 1 or 2 with
            ``causal``, 2 or 4 without.
        causal: See above.
        n_queries: Number of queries; that of keys if None. Only ``causal`` depends on it.
        n_heads: Heads of q, where the numbers are for fewer (those of k), each then for a group of
            neighbouring heads; as many as there are numbers for if None.

    Raises:
        InterchangeArgumentError: They are no such numbers, or the heads do not make groups.
    """
    rows = startend_row_indices
    require_flag(_FUNCTION, "causal", causal)
    if n_queries is not None and checks.size(n_queries) is None:
        raise wrong(_FUNCTION, "n_queries", n_queries, "give a number of 0 or more")
    require_integers(_FUNCTION, "startend_row_indices", rows, (4,), "(B, H, n_keys, 1, 2 or 4)")
    _, heads, n_keys, width = rows.shape
    if width not in ((1, 2) if causal else (2, 4)):
        problem = f"with causal={causal} give {'1 or 2' if causal else '2 or 4'} numbers for a key"
        raise wrong(_FUNCTION, "startend_row_indices", rows, problem)
    if rows.numel() and int(rows.min()) < 0:
        raise wrong(_FUNCTION, "startend_row_indices", rows, "no query has a negative number")
    group = _heads_per_number(n_heads, heads)
    offset = 0 if n_queries is None else n_keys - n_queries
    ends = [
        OuterIndexed(rows[..., i].clamp(max=(1 << 31) - 1).to(torch.int32).clone(), group)
        for i in range(width)
    ]
    mask = _mask_of(ends, causal, offset)
    return made_kernel(mask, _from_flashmask, rows, causal, n_queries, n_heads)


def _from_flashmask(
    rows: torch.Tensor, causal: bool, n_queries: int | None, n_heads: int | None
) -> Kernel:
    """``from_flashmask`` by position, as pickle calls."""
    return from_flashmask(rows, causal, n_queries=n_queries, n_heads=n_heads)


def _heads_per_number(n_heads: int | None, heads: int) -> int:
    if n_heads is not None and checks.size(n_heads, least=1) is None:
        raise wrong(_FUNCTION, "n_heads", n_heads, "give a number of 1 or more")
    if n_heads is None or heads <= 1:
        return 1
    if n_heads % heads:
        raise wrong(_FUNCTION, "n_heads", n_heads, f"it must be a multiple of the {heads} given")
    return n_heads // heads


def _mask_of(ends: list[OuterIndexed], causal: bool, offset: int) -> Mod:
    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        number = [end.at(b, h, kv_idx) for end in ends]
        match len(number), causal:
            case 1, _:
                seen = q_idx < number[0]
            case 2, False:
                seen = (q_idx < number[0]) & (q_idx >= number[1])
            case 2, True:
                seen = (q_idx < number[0]) | (q_idx >= number[1])
            case _:
                lower = (q_idx < number[0]) | (q_idx >= number[1])
                seen = lower & ((q_idx < number[2]) | (q_idx >= number[3]))
        if causal:
            seen = seen & (q_idx + offset >= kv_idx)
        return seen

    return mask


def to_flashmask(
    mask: Mod | Any,
    Q_LEN: int | None = None,
    KV_LEN: int | None = None,
    *,
    B: int | None = None,
    H: int | None = None,
    causal: bool | None = None,
) -> FlashMask:
    """The fewest numbers per key that hold a mask exactly, at the cost of its boundary.

    Args:
        mask: mask_mod, Kernel or BlockMask.
        Q_LEN: Number of queries; a BlockMask knows it.
        KV_LEN: Number of keys; that of queries if left out.
        B, H: Batches and query heads, where the mask tells them apart. Where it does not there is
            one head in the result, but as many batches as were asked for.
        causal: Only with or only without the causal flag; whichever needs fewer numbers if None.

    Raises:
        NotFlashMaskError: A key hides more intervals than there are numbers for; it is named.
        InterchangeArgumentError: A size is missing or wrong.
    """
    if causal is not None:
        require_flag("to_flashmask", "causal", causal)
    subject = subject_of("to_flashmask", mask, Q_LEN, KV_LEN, B, H)
    columns = subject.transposed()
    # A mask of many runs would have as many tiles to look into: a few keys tell that first.
    few = sampled_runs(columns)
    many = np.flatnonzero(few.counts > 3)
    if len(many):
        raise _too_many(subject, few.complement(), int(many[0]), causal is True)
    runs = visible_runs(columns)
    numbers = numbers_of(runs, causal)
    if numbers is None:
        raise _not_causal(subject, runs) if causal else _of_three(subject, runs)
    rows, is_causal = numbers
    shape = (subject.n_batch, subject.n_heads, subject.n_keys, rows.shape[-1])
    rows = rows.to(subject.device).reshape(shape)
    if B is not None and subject.n_batch != B:
        rows = rows.expand(B, -1, -1, -1).contiguous()
    return FlashMask(rows, is_causal)


def numbers_of(runs: Runs, causal: bool | None = None) -> tuple[torch.Tensor, bool] | None:
    """The fewest numbers of each key, and whether they are causal; None where there are none.

    Args:
        runs: Visible queries of every key.
        causal: Only with or only without the causal flag; either if None.

    Returns:
        (n_groups * n_keys, 1, 2 or 4) int32.
    """
    n_queries, hidden = runs.n_across, runs.complement()
    below = None if causal is False else _hidden_below(runs, hidden)
    if below is not None and (below.stops == n_queries).all():
        return _together(_firsts(below, n_queries)), True
    if causal is not True and (hidden.counts <= 2).all():
        at_start, at_end = hidden.starts == 0, hidden.stops == n_queries
        if (at_start | at_end).all():
            tails, heads = _those(hidden, at_end), _those(hidden, at_start & ~at_end)
            return _together(_firsts(tails, n_queries), _lasts(heads, 0)), False
    if below is not None:
        return _together(_firsts(below, n_queries), _lasts(below, n_queries)), True
    if causal is True or (hidden.counts > 2).any():
        return None
    lower, upper = _two_sides(hidden)
    ends = (_firsts(lower, n_queries), _lasts(lower, n_queries))
    return _together(*ends, _firsts(upper, 0), _lasts(upper, 0)), False


def _together(*numbers: Ints) -> torch.Tensor:
    return torch.from_numpy(np.stack(numbers, -1).astype(np.int32))


def _those(runs: Runs, chosen: NDArray[np.bool_]) -> Runs:
    return runs.kept(runs.lines[chosen], runs.starts[chosen], runs.stops[chosen])


def _diagonal(runs: Runs) -> Ints:
    """The first query that may see each key of a causal mask: (n_groups * n_lines,)."""
    first = np.arange(runs.n_lines) - (runs.n_lines - runs.n_across)
    return np.tile(np.clip(first, 0, runs.n_across), runs.n_groups)


def _hidden_below(runs: Runs, hidden: Runs) -> Runs | None:
    """What a causal mask hides below the diagonal; None where it shows a pair above it, or a key
    hides more than one interval below."""
    diagonal = _diagonal(runs)
    if (runs.starts < diagonal[runs.lines]).any():
        return None
    starts = np.maximum(hidden.starts, diagonal[hidden.lines])
    below = hidden.kept(hidden.lines, starts, hidden.stops)
    return None if (below.counts > 1).any() else below


def _firsts(runs: Runs, default: int) -> Ints:
    """Start of the interval of each line that has one."""
    numbers = np.full(runs.n_groups * runs.n_lines, default)
    numbers[runs.lines] = runs.starts
    return numbers


def _lasts(runs: Runs, default: int) -> Ints:
    """Stop of the interval of each line that has one."""
    numbers = np.full(runs.n_groups * runs.n_lines, default)
    numbers[runs.lines] = runs.stops
    return numbers


def _two_sides(hidden: Runs) -> tuple[Runs, Runs]:
    """The later and the earlier interval of each key; one alone by its side of the diagonal."""
    lines = hidden.lines
    is_last = np.append(lines[1:] != lines[:-1], True)[: len(lines)]
    is_early = (hidden.starts < _diagonal(hidden)[lines]) & (hidden.stops < hidden.n_across)
    lower = is_last & ~((hidden.counts[lines] == 1) & is_early)
    return _those(hidden, lower), _those(hidden, ~lower)


def _of_three(subject: Subject, runs: Runs) -> NotFlashMaskError:
    hidden = runs.complement()
    return _too_many(subject, hidden, int(np.flatnonzero(hidden.counts > 2)[0]), False)


def _too_many(subject: Subject, hidden: Runs, line: int, causal: bool) -> NotFlashMaskError:
    of_line = hidden.of(line)
    shown = ", ".join(f"{start} to {stop - 1}" for start, stop in of_line[:3])
    more = " and more" if len(of_line) > 3 else ""
    fact = f"is hidden from {len(of_line)} intervals of queries ({shown}{more})"
    return _not_flashmask(subject, line, fact, causal)


def _not_causal(subject: Subject, runs: Runs) -> NotFlashMaskError:
    diagonal, hidden = _diagonal(runs), runs.complement()
    early = np.flatnonzero(runs.starts < diagonal[runs.lines])
    if len(early):
        line, q_idx = int(runs.lines[early[0]]), int(runs.starts[early[0]])
        return _not_flashmask(subject, line, f"is visible to the earlier query {q_idx}", True)
    starts = np.maximum(hidden.starts, diagonal[hidden.lines])
    below = hidden.kept(hidden.lines, starts, hidden.stops)
    return _too_many(subject, below, int(np.flatnonzero(below.counts > 1)[0]), True)


def _not_flashmask(subject: Subject, line: int, fact: str, causal: bool) -> NotFlashMaskError:
    b, h, kv_idx = subject.group(line, subject.n_keys)
    limit = "one below the diagonal" if causal else "two"
    instead = "Use to_dense or BlockMask.to_torch, or run the mask itself."
    if causal:
        instead = "Leave causal out, or use to_dense."
    return NotFlashMaskError(
        b=b, h=h, kv_idx=kv_idx, fact=fact, causal=causal, limit=limit, instead=instead
    )
