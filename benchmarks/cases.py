"""What is computed: masks and scores by name, problems, and how far a result is from float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

GRID_WIDTH = 64  # tokens in a row of the 2-D neighbourhood's grid
RADIUS = 7  # of the neighbourhood, in tokens, along both axes
_ROWS_AT_ONCE = 512

Mod = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """A mask_mod and a score_mod; None where there is none."""

    mask: Mod | None
    score: Mod | None


def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


def window(size: int) -> Mod:
    """The ``size`` keys up to the query's own."""
    return lambda b, h, q_idx, kv_idx: (q_idx >= kv_idx) & (q_idx - kv_idx < size)


def documents(length: int, device: str = "cpu") -> Mod:
    """Six documents of unequal length: 10, 7, 23, 20, 25 and 15 % of the tokens."""
    stops = torch.tensor([0.1, 0.17, 0.4, 0.6, 0.85])
    ids = torch.searchsorted(stops, torch.arange(length) / length).to(device)
    return lambda b, h, q_idx, kv_idx: ids[q_idx] == ids[kv_idx]


def neighbourhood(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    """Tokens on a grid see those at most ``RADIUS`` away along both axes."""
    rows_apart = abs(q_idx // GRID_WIDTH - kv_idx // GRID_WIDTH)
    columns_apart = abs(q_idx % GRID_WIDTH - kv_idx % GRID_WIDTH)
    return (rows_apart <= RADIUS) & (columns_apart <= RADIUS)


def softcap(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return 20 * torch.tanh(score / 20)


def alibi(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score - torch.exp2(-(h + 1.0)) * (q_idx - kv_idx)


CASES: dict[str, Callable[[int], Case]] = {
    "full": lambda length: Case(None, None),
    "causal": lambda length: Case(causal, None),
    "window 256": lambda length: Case(window(256), None),
    "documents": lambda length: Case(documents(length), None),
    "softcap+causal": lambda length: Case(causal, softcap),
    "ALiBi+causal": lambda length: Case(causal, alibi),
    "neighbourhood 2-D": lambda length: Case(neighbourhood, None),
}
"""By name: the case for sequences of that many tokens."""


@dataclass(frozen=True)
class Problem:
    """One row of a table: a case at given sizes and dtype."""

    case: str
    dtype: str
    head_dim: int
    n_queries: int
    n_keys: int
    batch: int = 1
    heads: int = 8
    kv_heads: int = 8

    def label(self) -> str:
        """The sizes that differ from the usual ones, in words."""
        parts = [self.case, {"float32": "fp32", "bfloat16": "bf16"}.get(self.dtype, self.dtype)]
        if (self.batch, self.heads, self.kv_heads) != (1, 8, 8):
            parts.append(f"B={self.batch} H={self.heads}")
        if self.kv_heads != self.heads:
            parts.append(f"Hkv={self.kv_heads}")
        length = f"S={self.n_keys}"
        if self.n_queries != self.n_keys:
            length = f"{self.n_queries} of {length}"
        return ", ".join([*parts, f"D={self.head_dim}", length])

    def fields(self) -> dict[str, Any]:
        """As they are written to JSON."""
        return asdict(self)

    def mods(self) -> Case:
        """Mask and score; a new mask_mod at each call."""
        return CASES[self.case](self.n_keys)

    def inputs(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """q, k and v: normally distributed, the same at each call."""
        generator = torch.Generator().manual_seed(0)
        shapes = [(self.heads, self.n_queries), *[(self.kv_heads, self.n_keys)] * 2]
        q, k, v = (
            torch.randn(self.batch, *shape, self.head_dim, generator=generator).to(
                getattr(torch, self.dtype)
            )
            for shape in shapes
        )
        return q, k, v

    def flops(self) -> float:
        """Operations of both products over the visible pairs: 4 * head_dim for each."""
        return 4.0 * self.head_dim * self.batch * self.heads * self._n_visible()

    def _n_visible(self) -> int:
        """Pairs (query, key) that the mask allows, in one head."""
        mask = self.mods().mask
        if mask is None:
            return self.n_queries * self.n_keys
        keys = torch.arange(self.n_keys)
        queries = torch.arange(self.n_queries)[:, None].split(_ROWS_AT_ONCE)
        return sum(int(mask(0, 0, rows, keys).sum()) for rows in queries)


@dataclass(frozen=True)
class Error:
    """Distance from float64 over sampled rows: the largest, and the root of the mean square."""

    largest: float
    rms: float


class Oracle:
    """The float64 result in some rows of every head, which are drawn once.

    Dense and from the definition, by plain operations of PyTorch; every row sees a key.
    """

    def __init__(self, problem: Problem, n_rows: int = 128) -> None:
        generator = torch.Generator().manual_seed(1)
        self.rows = torch.randperm(problem.n_queries, generator=generator)[:n_rows]
        q, k, v = (tensor.double() for tensor in problem.inputs())
        group = problem.heads // problem.kv_heads
        k, v = (tensor.repeat_interleave(group, 1) for tensor in (k, v))
        case = problem.mods()
        b = torch.arange(problem.batch)[:, None, None, None]
        h = torch.arange(problem.heads)[:, None, None]
        q_idx, kv_idx = self.rows[:, None], torch.arange(problem.n_keys)
        score = q[:, :, self.rows] @ k.transpose(2, 3) / problem.head_dim**0.5
        if case.score is not None:
            score = case.score(score, b, h, q_idx, kv_idx)
        if case.mask is not None:
            score = score.masked_fill(~case.mask(b, h, q_idx, kv_idx), -torch.inf)
        self.expected = score.softmax(3) @ v

    def error(self, out: torch.Tensor) -> Error:
        """Of ``out`` (batch, heads, n_queries, head_dim)."""
        difference = out[:, :, self.rows].double() - self.expected
        return Error(difference.abs().max().item(), difference.square().mean().sqrt().item())
