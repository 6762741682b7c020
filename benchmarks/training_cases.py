"""What is trained through: masks and learned biases by name, and the gradients in float64."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmarks.cases import CASES, Mod, Problem

N_BUCKETS = 32  # of T5, for keys before the query
_NEAR = N_BUCKETS // 2  # distances with a bucket of their own
_N_DISTANCES, _N_EDGES = 40, 20  # rows of Graphormer's tables, which are one here
_GRID_WIDTH = 32
_FAR = 128  # from this distance on all are in the last bucket


@dataclass(frozen=True)
class Bias:
    """A learned addition to the scores.

    ``initial(heads, length)`` is a tensor whose dimension ``heads_at`` is heads.
    ``score(tensor, length)`` makes a score_mod of it. ``dense(length)`` gives a function from it to
    the bias of all pairs, (heads, length, length), which has made before what does not depend on it.
    """

    initial: Callable[[int, int], torch.Tensor]
    score: Callable[[torch.Tensor, int], Mod]
    dense: Callable[[int], Callable[[torch.Tensor], torch.Tensor]]
    heads_at: int = -1


@dataclass(frozen=True)
class TrainingCase:
    """``mask`` is a name in ``cases.CASES``, of a case without a score_mod."""

    mask: str
    bias: Bias | None = None


def _alibi(slopes: torch.Tensor, _: int) -> Mod:
    return lambda score, b, h, q_idx, kv_idx: score - slopes[h] * (q_idx - kv_idx)


def _dense_alibi(length: int) -> Callable[[torch.Tensor], torch.Tensor]:
    apart = _distance(length).float()
    return lambda slopes: -slopes[:, None, None] * apart


def bucket(distance: Any) -> Any:
    """T5's bucket of a distance that is not negative: one each at first, then by logarithm."""
    far = _NEAR + (torch.log(distance / _NEAR) / math.log(_FAR / _NEAR) * _NEAR).int()
    return torch.where(distance < _NEAR, distance, torch.clamp(far, max=N_BUCKETS - 1))


def _t5(table: torch.Tensor, _: int) -> Mod:
    return lambda score, b, h, q_idx, kv_idx: (
        score + table[bucket(torch.clamp(q_idx - kv_idx, min=0)), h]
    )


def _dense_t5(length: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return _looked_up(bucket(_distance(length).clamp(min=0)))


def _by_distance(table: torch.Tensor, _: int) -> Mod:
    return lambda score, b, h, q_idx, kv_idx: (
        score + table[torch.clamp(q_idx - kv_idx, 0, _FAR - 1), h]
    )


def _dense_by_distance(length: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return _looked_up(_distance(length).clamp(0, _FAR - 1))


def _pairs(table: torch.Tensor, _: int) -> Mod:
    return lambda score, b, h, q_idx, kv_idx: score + table[h, q_idx, kv_idx]


def _keys_by_queries(table: torch.Tensor, _: int) -> Mod:
    return lambda score, b, h, q_idx, kv_idx: score + table[h, kv_idx, q_idx]


@functools.lru_cache(maxsize=1)
def _grid(length: int) -> tuple[torch.Tensor, int]:
    """Swin's row for each pair of places in a grid _GRID_WIDTH wide, and how many rows there are."""
    places = torch.arange(length)
    down, across = places // _GRID_WIDTH, places % _GRID_WIDTH
    height = (length - 1) // _GRID_WIDTH + 1
    width = 2 * _GRID_WIDTH - 1
    rows = (down[:, None] - down + height - 1) * width + across[:, None] - across + _GRID_WIDTH - 1
    return rows.int(), (2 * height - 1) * width


def _swin(table: torch.Tensor, length: int) -> Mod:
    rows, _ = _grid(length)
    return lambda score, b, h, q_idx, kv_idx: score + table[rows[q_idx, kv_idx], h]


def _dense_swin(length: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return _looked_up(_grid(length)[0])


@functools.lru_cache(maxsize=1)
def _graph(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of Graphormer's table for each pair of nodes: of their distance, and of an edge."""
    generator = torch.Generator().manual_seed(5)
    distances = torch.randint(0, _N_DISTANCES, (length, length), generator=generator)
    edges = torch.randint(0, _N_EDGES, (length, length), generator=generator)
    return distances.int(), (_N_DISTANCES + edges).int()


def _graphormer(table: torch.Tensor, length: int) -> Mod:
    distances, edges = _graph(length)
    return lambda score, b, h, q_idx, kv_idx: (
        score + table[distances[q_idx, kv_idx], h] + table[edges[q_idx, kv_idx], h]
    )


def _dense_graphormer(length: int) -> Callable[[torch.Tensor], torch.Tensor]:
    by_distance, by_edge = (_looked_up(rows) for rows in _graph(length))
    return lambda table: by_distance(table) + by_edge(table)


def _looked_up(rows: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    # Five times as fast as F.embedding and its gradient, and twice as fast as plain indexing.
    return lambda table: table.T.index_select(1, rows.flatten()).unflatten(1, rows.shape)


def _distance(length: int) -> torch.Tensor:
    places = torch.arange(length)
    return places[:, None] - places


_ALIBI = Bias(lambda heads, _: 2.0 ** -(torch.arange(heads) + 1.0), _alibi, _dense_alibi)
_DISTANCE = Bias(lambda heads, _: _normal(_FAR, heads), _by_distance, _dense_by_distance)
_T5 = Bias(lambda heads, _: _normal(N_BUCKETS, heads), _t5, _dense_t5)
_PAIRS = Bias(
    lambda heads, length: _normal(heads, length, length),
    _pairs,
    lambda _: lambda table: table,
    heads_at=0,
)
_SHORT_PAIRS = replace(
    _PAIRS, initial=lambda heads, length: _normal(heads, length, length).bfloat16()
)
_KEYS_BY_QUERIES = replace(
    _PAIRS, score=_keys_by_queries, dense=lambda _: lambda table: table.transpose(1, 2)
)
_SWIN = Bias(lambda heads, length: _normal(_grid(length)[1], heads), _swin, _dense_swin)
_GRAPHORMER = Bias(
    lambda heads, _: _normal(_N_DISTANCES + _N_EDGES, heads), _graphormer, _dense_graphormer
)

TRAINING_CASES = {
    "causal": TrainingCase("causal"),
    "full": TrainingCase("full"),
    "window 256": TrainingCase("window 256"),
    "documents": TrainingCase("documents"),
    "ALiBi, learned, causal": TrainingCase("causal", _ALIBI),
    "distance bias, learned, causal": TrainingCase("causal", _DISTANCE),
    "T5 bias, learned, causal": TrainingCase("causal", _T5),
    "bias of pairs, learned, causal": TrainingCase("causal", _PAIRS),
    "bias of pairs in bfloat16, causal": TrainingCase("causal", _SHORT_PAIRS),
    "bias of keys by queries, causal": TrainingCase("causal", _KEYS_BY_QUERIES),
    "Swin table, learned, causal": TrainingCase("causal", _SWIN),
    "Graphormer, learned, causal": TrainingCase("causal", _GRAPHORMER),
}
"""By the name that ``Problem.case`` has here."""


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def mask_of(problem: Problem) -> Mod | None:
    """The mask of its training case; a new function at each call."""
    return CASES[TRAINING_CASES[problem.case].mask](problem.n_keys).mask


def leaves_of(problem: Problem) -> dict[str, torch.Tensor]:
    """What is trained, by name: q, k, v and perhaps the bias, all equal at each call."""
    leaves = dict(zip("qkv", problem.inputs(), strict=True))
    bias = TRAINING_CASES[problem.case].bias
    if bias is not None:
        leaves["bias"] = bias.initial(problem.heads, problem.n_keys)
    return {name: leaf.requires_grad_() for name, leaf in leaves.items()}


def grad_out_of(problem: Problem) -> torch.Tensor:
    """Gradient of the output, normally distributed, the same at each call."""
    generator = torch.Generator().manual_seed(2)
    shape = (problem.batch, problem.heads, problem.n_queries, problem.head_dim)
    return torch.randn(shape, generator=generator).to(getattr(torch, problem.dtype))


class GradientOracle:
    """Float64 gradients in the first and the last head, by autograd through the definition."""

    def __init__(self, problem: Problem) -> None:
        assert problem.heads == problem.kv_heads, "a key head would sum over heads not computed"
        self.heads = sorted({0, problem.heads - 1})
        bias = TRAINING_CASES[problem.case].bias
        self._heads_at = -1 if bias is None else bias.heads_at
        mask = mask_of(problem)
        double = {name: leaf.detach().double() for name, leaf in leaves_of(problem).items()}
        leaves = {name: leaf.requires_grad_() for name, leaf in double.items()}
        q, k, v = (leaves[name][:, self.heads] for name in "qkv")
        h = torch.tensor(self.heads)[:, None, None]
        q_idx, kv_idx = torch.arange(problem.n_queries)[:, None], torch.arange(problem.n_keys)

        score = q @ k.transpose(2, 3) / problem.head_dim**0.5
        if bias is not None:
            score = bias.score(leaves["bias"], problem.n_keys)(score, 0, h, q_idx, kv_idx)
        if mask is not None:
            score = score.masked_fill(~mask(0, h, q_idx, kv_idx), -torch.inf)
        out = score.softmax(3) @ v
        grad_out = grad_out_of(problem)[:, self.heads].double()
        found = torch.autograd.grad(out, list(leaves.values()), grad_out)
        self._expected = {
            name: self._sampled(name, gradient)
            for name, gradient in zip(leaves, found, strict=True)
        }

    def errors(self, gradients: dict[str, torch.Tensor]) -> dict[str, float]:
        """By name: the largest difference over the largest expected absolute value."""
        return {
            name: _relative(self._sampled(name, gradients[name]).double(), expected)
            for name, expected in self._expected.items()
        }

    def _sampled(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        heads_at = self._heads_at if name == "bias" else 1
        return gradient.index_select(heads_at, torch.tensor(self.heads))


def _relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()
