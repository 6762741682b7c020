"""What a kernel is given at run time, and what every backend's kernel looks like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch

from attnc.run_table import RunTable
from attnc.runtime.layout import Layout


class Call(NamedTuple):
    """The run-time arguments of one forward call.

    Attributes:
        q: (B, Hq, n_queries, head_dim), any strides.
        k: (B or 1, Hkv, n_keys, head_dim), any strides.
        v: (B or 1, Hkv, n_keys, value_dim), any strides.
        out: (B, Hq, n_queries, value_dim), written.
        lse: (B, Hq, n_queries) contiguous, in the dtype of accumulation; or None.
        max_scores: The same, for the row maximum.
        scale: Factor of q . k.
        params: Values of the lifted constants, by number.
        tensors: Captured tensors, by slot number.
        table: The tiles to visit, for kernels that read a table; its blocks are the kernel's tiles.
        layout: That of q, k and v, where it is known.
    """

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    out: torch.Tensor
    lse: torch.Tensor | None
    max_scores: torch.Tensor | None
    scale: float
    params: Sequence[int | float]
    tensors: Sequence[torch.Tensor]
    table: RunTable | None
    layout: Layout | None = None


class BackwardCall(NamedTuple):
    """The run-time arguments of one backward call.

    Attributes:
        forward: The call whose results are differentiated; its ``out`` and ``lse`` are read.
        grad_out: Gradient of ``out``, any strides, dtype of q.
        grad_lse: Gradient of ``lse``, contiguous, in the dtype of ``lse``; or None for 0.
        grad_q, grad_k, grad_v: Written, in the dtype of q, any strides; or None where not wanted.
        grad_captured: Written: gradients of the captured tensors of ``Wanted.captured``, in their
            shapes, contiguous, in the dtype of accumulation.
        stored: Which of these are 0 before, with no two pairs that add to one element: a kernel for
            CPUs stores them, and takes 16-bit ones where the captured tensor is one.
    """

    forward: Call
    grad_out: torch.Tensor
    grad_lse: torch.Tensor | None
    grad_q: torch.Tensor | None
    grad_k: torch.Tensor | None
    grad_v: torch.Tensor | None
    grad_captured: Sequence[torch.Tensor] = ()
    stored: Sequence[bool] = ()


class CompiledKernel(Protocol):
    """A kernel that is ready to run."""

    @property
    def block_m(self) -> int: ...

    @property
    def block_n(self) -> int: ...

    @property
    def uses_table(self) -> bool: ...

    @property
    def knows_terms(self) -> bool:
        """The table says which terms of the mask hold all over its PARTIAL runs."""

    def run(self, call: Call) -> None:
        """Fills ``call.out`` and, where asked, ``call.lse`` and ``call.max_scores``."""

    def run_backward(self, call: BackwardCall) -> None:
        """Fills the gradients that ``call`` has tensors for."""
