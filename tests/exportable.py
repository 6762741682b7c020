"""Functions that tests export, by name: what a mask or a score can hold on to; and exporting them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import attnc
from attnc.export import Request, export

# Compiled quickly: the figures are the same.
QUICK = ('"-O3"', '"-O1"')

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


def write(folder: Path, mod: Any, *, stem: str = "kernel", **options: Any) -> Path:
    """Exports ``mod`` into ``folder``, to be compiled quickly."""
    embed = options.pop("embed", False)
    exported = export(Request(mod, head_dim=16, **options), stem=stem, embed=embed)
    path = folder / f"{stem}.py"
    path.write_text(exported.text.replace(*QUICK))
    if exported.tensors:
        torch.save(exported.tensors, path.with_suffix(".tensors.pt"))
    return path


def names_of(module: Path, **own: Any) -> dict[str, Any]:
    """What a module of C++ kernels defines; nothing is compiled yet."""
    scope: dict[str, Any] = {"__name__": "exported", "__file__": str(module), **own}
    exec(compile(module.read_text(), str(module), "exec"), scope)  # noqa: S102 - generated here
    return scope
