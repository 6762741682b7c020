"""Attention patterns of published systems: kernels equal dense attention, analysis is exact."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from systems_grids import GRID_SYSTEMS
from systems_masks import TEXT_SYSTEMS, System

import attnc
from attnc.blocks import classify
from attnc.program import build_program
from attnc.run_table import Kind
from attnc.runtime.reference import reference_attention, reference_mask

SYSTEMS = (*GRID_SYSTEMS, *TEXT_SYSTEMS)
HEAD_DIM, BLOCK = 16, 16

each_system = pytest.mark.parametrize("make", SYSTEMS, ids=lambda make: make.__name__)


def assert_kernel_is_dense_attention(system: System, backend: str) -> None:
    n_batch, n_heads, n_queries, n_keys = system.shape
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(n_batch, n_heads, n, HEAD_DIM, generator=generator)
        for n in (n_queries, n_keys, n_keys)
    )

    out, lse = attnc.attention(
        q, k, v, mask=system.mask, score=system.score, return_lse=True, backend=backend
    )

    expected = reference_attention(q, k, v, mask=system.mask, score=system.score)
    torch.testing.assert_close(out.double(), expected.out, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lse.double(), expected.lse, rtol=1e-4, atol=1e-5)


def tile_kinds(visible: torch.Tensor) -> torch.Tensor:
    """Kind of each tile of (B, H, n_queries, n_keys) bool, by looking at every pair."""
    rows = [
        torch.stack([_kind(tile) for tile in band.split(BLOCK, dim=3)], dim=-1)
        for band in visible.split(BLOCK, dim=2)
    ]
    return torch.stack(rows, dim=-2)


def _kind(tile: torch.Tensor) -> torch.Tensor:
    pairs = tile.flatten(2)
    some = torch.where(pairs.any(-1), int(Kind.PARTIAL), int(Kind.EMPTY))
    return torch.where(pairs.all(-1), int(Kind.FULL), some)


@each_system
def test_cpu_kernel_is_dense_attention(make: Callable[[], System]) -> None:
    """The C++ kernel of each system agrees with float64 dense attention."""
    assert_kernel_is_dense_attention(make(), "cpu")


@each_system
def test_tile_classes_are_exact(make: Callable[[], System]) -> None:
    """A tile is EMPTY, PARTIAL or FULL exactly where its pairs are, for each system."""
    system = make()
    if system.mask is None:
        system = System(system.paper, system.shape, attnc.noop_mask)
    n_batch, n_heads, n_queries, n_keys = system.shape
    program = build_program(system.mask, None)
    assert program.mask is not None

    table = classify(
        program.mask,
        program.tensors,
        n_batch=n_batch,
        n_heads=n_heads,
        n_queries=n_queries,
        n_keys=n_keys,
        block_m=BLOCK,
        block_n=BLOCK,
    ).table

    expected = tile_kinds(reference_mask(system.mask, *system.shape))
    kinds = torch.from_numpy(table.to_dense()).expand(expected.shape)
    torch.testing.assert_close(kinds, expected, check_dtype=False)


def test_triton_kernels_are_dense_attention() -> None:
    """The Triton kernel of each system, interpreted, agrees with float64 dense attention.

    In a process of its own: Triton decides at import whether its functions are interpreted.
    """
    command = [sys.executable, str(Path(__file__))]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}

    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert result.returncode == 0, f"{result.stdout.splitlines()[-1:]}\n{result.stderr}"


if __name__ == "__main__":
    for make_system in SYSTEMS:
        print(make_system.__name__, flush=True)
        assert_kernel_is_dense_attention(make_system(), "triton")
