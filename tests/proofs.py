"""What proofs are compared with: the values of a mask at every pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from attnc.evaluate import evaluate
from attnc.ir import Expr
from attnc.program import build_program
from attnc.prove import Proof
from attnc.testing import Shape


def causal(b: Any, h: Any, q: Any, kv: Any) -> Any:
    return kv <= q


def dense(mask: Any, n_batch: int, n_heads: int, n_queries: int, n_keys: int) -> torch.Tensor:
    """Which pairs are visible, (B, H, n_queries, n_keys), from all pairs."""
    program = build_program(mask, None)
    assert program.mask is not None
    sizes = (n_batch, n_heads, n_queries, n_keys)
    return values_of(program.mask, program.tensors, sizes)


def values_of(
    predicate: Expr, tensors: Sequence[torch.Tensor], sizes: tuple[int, int, int, int]
) -> torch.Tensor:
    axes = [
        torch.arange(n, dtype=torch.int32).reshape([-1 if i == k else 1 for i in range(4)])
        for k, n in enumerate(sizes)
    ]
    values = evaluate(
        predicate, b=axes[0], h=axes[1], q_idx=axes[2], kv_idx=axes[3], tensors=tensors
    )
    return values.expand(sizes)


def sizes_of(visible: torch.Tensor) -> dict[str, int]:
    return dict(zip(("B", "H", "Q_LEN", "KV_LEN"), visible.shape, strict=True))


def assert_right(proof: Proof, violations: torch.Tensor) -> None:
    """What is proved has no violation; a counterexample is one."""
    if proof.holds is False:
        assert proof.counterexample is not None
        place = tuple(0 if i is None else i for i in proof.counterexample)
        assert violations[place]
    else:
        assert proof.counterexample is None
        assert proof.holds is None or not violations.any()


def assert_decided(proof: Proof, violations: torch.Tensor) -> None:
    assert proof.holds is not bool(violations.any())
    assert proof.holds is not None, proof
    assert_right(proof, violations)


def as_given(shape: Shape) -> tuple[int, int, int, int]:
    return shape.n_batch, shape.n_heads, shape.n_queries, shape.n_keys
