"""Functions that tests export, by name: what a mask or a score can hold on to."""

from __future__ import annotations

from typing import Any

import torch

import attnc

_random = torch.Generator().manual_seed(0)
slopes = torch.rand(4, generator=_random) * 0.3
documents_of = torch.randint(0, 5, (200,), generator=_random).sort()[0]
table = torch.randn(2, 63, generator=_random).requires_grad_()
prefix = torch.tensor([3, 70])
shift, gates, rows = (torch.rand(n, generator=_random).requires_grad_() for n in (4, 150, 150))


def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


def documents(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return (documents_of[q_idx] == documents_of[kv_idx]) & (q_idx >= kv_idx)


def prefixes(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return (kv_idx < prefix[b]) | (q_idx >= kv_idx)


def window(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return (q_idx >= kv_idx) & (q_idx - kv_idx < 40) & (q_idx > 2)


@attnc.kernel(mask=window)
def capped(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return 20 * torch.tanh(score / 20)


@attnc.kernel(mask=causal)
def alibi(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score + slopes[h] * (kv_idx - q_idx)


@attnc.kernel(mask=documents)
def learned(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score + table[h, (q_idx - kv_idx).clamp(-31, 31) + 31]


@attnc.kernel(mask=causal)
def shifted(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score + shift[h] + gates[kv_idx] * rows[q_idx]


EXPORTABLE: dict[str, Any] = {
    "causal": causal,
    "capped": capped,
    "alibi": alibi,
    "documents": documents,
    "learned": learned,
    "shifted": shifted,
    "prefixes": prefixes,
}
