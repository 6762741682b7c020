"""What a picture shows, whatever it is drawn with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from attnc.analysis import Analysis, Picture
from attnc.analysis.counts import share_text
from attnc.evaluate import evaluate
from attnc.ir import TRUE, Expr, Gather, Index, walk
from attnc.mods import Kind
from attnc.stages import Inspection

#: Masks and scores of at most this length are drawn pair by pair.
MAX_PAIRS = 64

_ELBOW_RANGES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_USUAL_RANGE = 10
_N_SAMPLES = 201


@dataclass(frozen=True)
class Pairs:
    """Which key each query sees: (n_queries, n_keys), bool."""

    visible: NDArray[np.bool_]

    @property
    def note(self) -> str:
        return f"{int(self.visible.sum())} of {self.visible.size} pairs are visible"


@dataclass(frozen=True)
class Tiles:
    """Classes of tiles, drawn to scale."""

    picture: Picture
    analysis: Analysis

    @property
    def title(self) -> str:
        table = self.analysis.table
        sizes = f"{table.block_m} x {table.block_n}"
        return f"{table.n_queries} queries x {table.n_keys} keys in tiles of {sizes}"

    @property
    def note(self) -> str:
        found = self.analysis
        return (
            f"{found.n_full:,} full, {found.n_partial:,} partial, {found.n_empty:,} empty of "
            f"{found.table.n_tiles:,} tiles, {share_text(found.flops_saved)} of the work saved"
        )


@dataclass(frozen=True)
class Heat:
    """What a score becomes at pairs of positions.

    Attributes:
        values: (n_rows, n_columns), float32; NaN where the pair is masked.
        score: What was put in.
        row_step, column_step: Every so manieth query and key is shown.
    """

    values: NDArray[np.float32]
    score: float
    row_step: int
    column_step: int

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest finite value, 0 and 0 without any."""
        finite = self.values[np.isfinite(self.values)]
        return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)

    @property
    def levels(self) -> NDArray[np.float32]:
        """Values as 0 for the least to 1 for the largest; infinite ones at these ends."""
        least, largest = self.range
        scaled = (self.values - least) / ((largest - least) or 1.0)
        levels: NDArray[np.float32] = np.clip(scaled, 0.0, 1.0).astype(np.float32)
        return levels

    @property
    def note(self) -> str:
        least, largest = self.range
        became = f"{least:.4g}" if least == largest else f"{least:.4g} to {largest:.4g}"
        return f"a score of {self.score:g} becomes {became}"

    @property
    def scale(self) -> str:
        """Which positions are shown, or nothing where all are."""
        if self.row_step == self.column_step == 1:
            return ""
        return f"shown: every {self.row_step:,}. query and every {self.column_step:,}. key"


@dataclass(frozen=True)
class Curve:
    """What scores become, where positions do not matter: two float32 arrays of one length."""

    scores: NDArray[np.float32]
    values: NDArray[np.float32]

    @property
    def note(self) -> str:
        least, largest = float(self.values.min()), float(self.values.max())
        at = f"{self.scores[0]:g} to {self.scores[-1]:g}"
        return f"scores of {at} become {least:.4g} to {largest:.4g}"


Content = Pairs | Tiles | Heat | Curve


@dataclass(frozen=True)
class Drawing:
    """A picture with what is said about it.

    Attributes:
        title: What is drawn, as Python writes it or as it was typed.
        summary: What it does, in a sentence, or nothing.
        source: Where it was published, or nothing.
        label: Which batch and head of several, or nothing.
        content: What is seen.
    """

    title: str
    summary: str
    source: str
    label: str
    content: Content


def content_of(
    inspection: Inspection,
    kind: Kind,
    *,
    block: int,
    batch: int = 0,
    head: int = 0,
    max_rows: int,
    max_columns: int,
) -> Content:
    """The picture of one batch and head.

    A mask gives its pairs up to ``MAX_PAIRS`` tokens, its tiles beyond; a score what it makes of
    scores: a curve where positions do not matter, else a heat map.

    Args:
        inspection: The traced function at its lengths.
        kind: Whether the user's function is a mask_mod or a score_mod.
        block: Queries and keys per tile.
        batch: Which batch.
        head: Which head.
        max_rows: Rows of tiles or samples at the most.
        max_columns: Columns of tiles or samples at the most.
    """
    _, _, n_queries, n_keys, _ = inspection.shape
    is_small = max(n_queries, n_keys) <= MAX_PAIRS
    score = inspection.program.score
    if kind == "score_mod" and score is not None:
        if not any(isinstance(node, Index | Gather) for node in walk(score)):
            return _curve(inspection, score)
        rows, columns = (MAX_PAIRS, MAX_PAIRS) if is_small else (max_rows, max_columns)
        return _heat(inspection, score, batch, head, rows, columns)
    if is_small and inspection.table is None:
        mask = inspection.program.mask
        at = _evaluator(inspection, batch, head, 1, 1)
        return Pairs(at(TRUE if mask is None else mask, 0.0).numpy())
    analysis = inspection.analysis(block)
    return Tiles(analysis.drawn(max_columns, max_rows, batch, head), analysis)


def _heat(
    inspection: Inspection, score: Expr, batch: int, head: int, max_rows: int, max_columns: int
) -> Heat:
    _, _, n_queries, n_keys, _ = inspection.shape
    steps = -(-n_queries // max_rows), -(-n_keys // max_columns)
    at = _evaluator(inspection, batch, head, *steps)
    mask = inspection.program.mask
    # What multiplies scores shows nothing at 0; there 1 tells by how much.
    given, values = 0.0, at(score, 0.0)
    if bool((values == values[0, 0]).all()):
        given, values = 1.0, at(score, 1.0)
    if mask is not None:
        values = torch.where(at(mask, 0.0), values, torch.nan)
    return Heat(values.float().numpy(), given, *steps)


def _evaluator(
    inspection: Inspection, batch: int, head: int, row_step: int, column_step: int
) -> Callable[[Expr, float], torch.Tensor]:
    """Values of an expression for a score, at every so manieth query and key: (rows, columns)."""
    _, _, n_queries, n_keys, _ = inspection.shape
    q_idx = torch.arange(0, n_queries, row_step, dtype=torch.int32)[:, None]
    kv_idx = torch.arange(0, n_keys, column_step, dtype=torch.int32)

    def values_at(expr: Expr, score: float) -> torch.Tensor:
        found = evaluate(
            expr,
            b=torch.tensor(batch, dtype=torch.int32),
            h=torch.tensor(head, dtype=torch.int32),
            q_idx=q_idx,
            kv_idx=kv_idx,
            score=torch.tensor(score),
            tensors=inspection.program.tensors,
        )
        return found.detach().expand(q_idx.shape[0], kv_idx.shape[0])

    return values_at


def _curve(inspection: Inspection, score: Expr) -> Curve:
    """Over the shortest range in which it bends by half, or over the usual one."""

    def values_at(scores: torch.Tensor) -> torch.Tensor:
        zero = torch.zeros((), dtype=torch.int32)
        found = evaluate(
            score,
            b=zero,
            h=zero,
            q_idx=zero,
            kv_idx=zero,
            score=scores,
            tensors=inspection.program.tensors,
        )
        return found.detach().expand(scores.shape)

    ends = torch.tensor([0.0, *_ELBOW_RANGES])
    start, *reached = values_at(ends).tolist()
    small = 1e-3
    slope = (float(values_at(torch.tensor([small]))) - start) / small
    bends = (
        end
        for end, value in zip(_ELBOW_RANGES, reached, strict=True)
        if abs(value - start - slope * end) > 0.5 * abs(slope * end) + small
    )
    end = next(bends, _USUAL_RANGE)
    scores = torch.linspace(-end, end, _N_SAMPLES)
    return Curve(scores.numpy(), values_at(scores).float().numpy())
