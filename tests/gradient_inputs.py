"""Inputs and functions that gradients are taken of."""

from __future__ import annotations

import torch


def causal(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


def softcap(score, b, h, q_idx, kv_idx):
    return 20.0 * torch.tanh(score / 20.0)


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(dtype)


def qkv(
    n_batch: int = 2,
    n_heads: int = 4,
    n_queries: int = 70,
    n_keys: int = 90,
    head_dim: int = 16,
    value_dim: int = 16,
    n_kv_heads: int = 2,
    n_kv_batch: int = 2,
    dtype: torch.dtype = torch.float64,
) -> list[torch.Tensor]:
    shapes = (
        (n_batch, n_heads, n_queries, head_dim),
        (n_kv_batch, n_kv_heads, n_keys, head_dim),
        (n_kv_batch, n_kv_heads, n_keys, value_dim),
    )
    return [random(*s, dtype=dtype, seed=i).requires_grad_() for i, s in enumerate(shapes)]
