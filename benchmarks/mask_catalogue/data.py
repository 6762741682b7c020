"""Masks that depend on captured data for each token."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.mask_catalogue.entry import Entry, Mod, int32, square


def data_masks() -> list[Entry]:
    """Patterns that depend on data for each token: documents, groups, flags, choices."""
    generator = torch.Generator().manual_seed(0)
    n = 4096

    def integers(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, high, shape, generator=generator, dtype=torch.int32)

    def flags(share: float, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator) < share

    documents = integers(20, n).sort().values
    by_batch = integers(20, 2, n).sort(dim=1).values
    starts = torch.searchsorted(documents, torch.arange(20, dtype=torch.int32)).int()
    kept = torch.arange(n) < int32(3000, 2500)[:, None]
    segment = torch.repeat_interleave(torch.arange(8, dtype=torch.int32), n // 8)
    groups = integers(6, n)
    objects = torch.repeat_interleave(integers(4, 2, n // 64), 64, dim=1)
    scenes = integers(16, 2, n)
    condition = torch.repeat_interleave(flags(0.3, 2, n // 32), 32, dim=1)
    chosen = flags(0.3, 2, 4, n // 128, n // 128)
    ends = integers(n, n).sort().values
    bias = torch.randn(2, 4, n, generator=generator)
    threshold = torch.randn(2, 4, n, generator=generator).abs()
    modality = torch.repeat_interleave(flags(0.5, 16), n // 16)
    permutation = torch.randperm(n, generator=generator).int()
    latitude = (torch.arange(64) + 0.5) * (torch.pi / 64)

    def ends_of(i: Any) -> Any:
        return starts[documents[i]]

    def sphere(b: Any, h: Any, q: Any, kv: Any) -> Any:
        a, c = latitude[q // 64], latitude[kv // 64]
        angle = (q % 64 - kv % 64) * (2 * torch.pi / 64)
        return a.cos() * c.cos() + a.sin() * c.sin() * angle.cos() >= 0.9

    def entry(name: str, mask: Mod) -> Entry:
        return square(name, n, mask, static=False)

    return [
        entry("documents", lambda b, h, q, kv: documents[q] == documents[kv]),
        entry("causal documents", lambda b, h, q, kv: (documents[q] == documents[kv]) & (kv <= q)),
        entry(
            "causal documents per batch",
            lambda b, h, q, kv: (by_batch[b, q] == by_batch[b, kv]) & (kv <= q),
        ),
        entry("first token of a document", lambda b, h, q, kv: (kv <= q) & (kv >= ends_of(q))),
        entry("padding", lambda b, h, q, kv: (kv <= q) & kept[b, kv]),
        entry("monotone ends", lambda b, h, q, kv: kv < ends[q]),
        entry(
            "PINE",
            lambda b, h, q, kv: (
                (q >= kv) | ((segment[q] > 0) & (segment[kv] > 0) & (segment[q] != segment[kv]))
            ),
        ),
        entry(
            "parallel contexts",
            lambda b, h, q, kv: (
                (kv <= q) & ((segment[kv] == 0) | (segment[q] == segment[kv]) | (segment[q] == 7))
            ),
        ),
        entry(
            "IR-Diffusion",
            lambda b, h, q, kv: (
                (objects[b, q] == 0) | (objects[b, kv] == 0) | (objects[b, q] == objects[b, kv])
            ),
        ),
        entry("BAMM", lambda b, h, q, kv: condition[b, kv] | ((kv <= q) & ~condition[b, q])),
        entry("M2T, random groups", lambda b, h, q, kv: groups[kv] <= groups[q]),
        entry("SASA", lambda b, h, q, kv: (h != 2) | ((scenes[b, q] & scenes[b, kv]) != 0)),
        entry("MoBA", lambda b, h, q, kv: (q >= kv) & chosen[b, h, q // 128, kv // 128]),
        entry("DMA", lambda b, h, q, kv: (q >= kv) & (bias[b, h, kv] >= threshold[b, h, q])),
        entry("Croc", lambda b, h, q, kv: (kv <= q) | (modality[q] & modality[kv])),
        entry("REOrder", lambda b, h, q, kv: permutation[kv] <= permutation[q]),
        entry("attention on the sphere", sphere),
    ]
