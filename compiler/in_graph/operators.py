"""``torch.ops.attnc.attention``: attention as an operator, for graphs.

torch.compile, export and other tracers see one operator with tensors as inputs; the mask and the
score are texts. In a process that only loads exported programs, import this module first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import forward_ad

from attnc.autograd import attend_followed
from attnc.errors import FunctionTransformError, GraphArgumentError
from attnc.in_graph.check import check_backward
from attnc.in_graph.dense import dense_outputs
from attnc.in_graph.texts import expr_of, program_of, table_of
from attnc.inputs import check_inputs, checked_scale
from attnc.parser import parse_expr
from attnc.runtime.composed import Attention
from attnc.runtime.dispatch import (
    Outputs,
    choose_backend,
    empty_outputs,
    run_program,
)
from attnc.runtime.gradients import differentiable_slots, empty_gradient, gradients
from attnc.storage import require_memory

_FORWARD = """attention(
    Tensor q, Tensor k, Tensor v, Tensor[] captured, Tensor[] blocks,
    str mask, str score, SymInt[] numbers, SymInt[] block_geometry, float? scale,
    bool wants_lse, bool wants_max, str? backend, bool strict
) -> (Tensor out, Tensor lse, Tensor max_scores)"""
_BACKWARD = """attention_backward(
    Tensor? grad_out, Tensor? grad_lse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse,
    Tensor[] captured, Tensor[] blocks, str mask, str score, SymInt[] numbers,
    SymInt[] block_geometry, float? scale, bool[] needs, str? backend, bool strict
) -> Tensor[]"""


def _attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    captured: Sequence[torch.Tensor],
    blocks: Sequence[torch.Tensor],
    mask: str,
    score: str,
    numbers: Sequence[int],
    block_geometry: Sequence[int],
    scale: float | None,
    wants_lse: bool,
    wants_max: bool,
    backend: str | None,
    strict: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attention of a traced mask and score.

    Args:
        q: As ``attnc.attention``; so are k, v, scale, backend and strict.
        captured: The tensors ``t0, t1, ...`` of the texts.
        blocks: The tiles of a block mask: kv_num_blocks, kv_indices, and perhaps
            full_kv_num_blocks and full_kv_indices; or offsets, starts, stops and kinds of a
            ``RunTable``; empty where the mask implies its tiles.
        mask: The mask as ``format_program`` writes it; "" for none.
        score: The same for the score.
        numbers: Values of ``p0, p1, ...`` in the texts, 32 bits each.
        block_geometry: Of lists: n_queries, n_keys, and queries and keys per block. Of a table:
            n_batch, n_heads, and the same. Empty without a block mask.

    Returns:
        out, lse and max_scores; the latter two are empty where they are not wanted.
    """
    check_inputs(q, k, v, True)
    if scale is not None:
        scale = checked_scale(scale)
    require_memory(q=q, k=k, v=v)
    q, k, v = q.resolve_neg(), k.resolve_neg(), v.resolve_neg()
    program = program_of(q, k, captured, blocks, mask, score, numbers, block_geometry)
    if scale is None:
        scale = 1.0 / math.sqrt(q.shape[3])
    chosen = choose_backend(q, backend)
    if chosen == "reference":
        outputs = dense_outputs(q, k, v, program, scale)
    else:
        outputs = run_program(
            q,
            k,
            v,
            program,
            scale,
            chosen,
            wants_lse=wants_lse,
            wants_max=wants_max,
            strict=strict,
        )
    return _as_tuple(outputs, wants_lse, wants_max)


def _fake_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    captured: Sequence[torch.Tensor],
    blocks: Sequence[torch.Tensor],
    mask: str,
    score: str,
    numbers: Sequence[int],
    block_geometry: Sequence[int],
    scale: float | None,
    wants_lse: bool,
    wants_max: bool,
    backend: str | None,
    strict: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Outputs of the shapes, dtypes and strides that ``_attention`` gives."""
    check_inputs(q, k, v, True)
    return _as_tuple(empty_outputs(q, v, wants_lse, wants_max), wants_lse, wants_max)


def _attention_backward(
    grad_out: torch.Tensor | None,
    grad_lse: torch.Tensor | None,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    captured: Sequence[torch.Tensor],
    blocks: Sequence[torch.Tensor],
    mask: str,
    score: str,
    numbers: Sequence[int],
    block_geometry: Sequence[int],
    scale: float | None,
    needs: Sequence[bool],
    backend: str | None,
    strict: bool,
) -> list[torch.Tensor]:
    """Gradients of ``_attention``.

    Args:
        grad_out: Gradient of ``out``; None for 0.
        grad_lse: Gradient of ``lse``; None for 0.
        q: As in ``_attention``; so are the others that are not named here.
        out, lse: What ``_attention`` gave.
        needs: Which gradients are wanted: of q, k, v, then of each captured tensor.

    Returns:
        The gradients that are wanted, in this order, in the shapes and dtypes of the inputs.
    """
    check_inputs(q, k, v, True)
    check_backward(grad_out, grad_lse, q, v, out, lse, captured, needs)
    require_memory(q=q, k=k, v=v)
    q, k, v = q.resolve_neg(), k.resolve_neg(), v.resolve_neg()
    program = program_of(q, k, captured, blocks, mask, score, numbers, block_geometry)
    if scale is None:
        scale = 1.0 / math.sqrt(q.shape[3])
    n_more = len(program.tensors) - len(captured)
    found = gradients(
        program,
        q,
        k,
        v,
        out,
        lse,
        scale,
        choose_backend(q, backend),
        grad_out,
        grad_lse,
        (*needs, *(False,) * n_more),
        strict=strict,
    )
    return [gradient for gradient in found if gradient is not None]


def _fake_attention_backward(
    grad_out: torch.Tensor | None,
    grad_lse: torch.Tensor | None,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    captured: Sequence[torch.Tensor],
    blocks: Sequence[torch.Tensor],
    mask: str,
    score: str,
    numbers: Sequence[int],
    block_geometry: Sequence[int],
    scale: float | None,
    needs: Sequence[bool],
    backend: str | None,
    strict: bool,
) -> list[torch.Tensor]:
    """Gradients of the shapes, dtypes and strides that ``_attention_backward`` gives."""
    pairs = zip((q, k, v, *captured), needs, strict=True)
    return [empty_gradient(x, number) for number, (x, needed) in enumerate(pairs) if needed]


@dataclass(frozen=True)
class OperatorCall:
    """Attention by the operators, so that graphs show them; fields as in ``_attention``.

    Captured tensors are followed by those of a block mask.
    """

    n_captured: int
    mask: str
    score: str
    numbers: Sequence[int]
    block_geometry: Sequence[int]
    scale: float | None
    wants_max: bool
    backend: str | None
    strict: bool

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tensors: Sequence[torch.Tensor]
    ) -> Outputs:
        with torch._C._AutoDispatchBelowAutograd():
            out, lse, max_scores = attention_op(
                q,
                k,
                v,
                tensors[: self.n_captured],
                tensors[self.n_captured :],
                self.mask,
                self.score,
                self.numbers,
                self.block_geometry,
                self.scale,
                True,
                self.wants_max,
                self.backend,
                self.strict,
            )
        return Outputs(out, lse, max_scores if self.wants_max else None)

    def gradients(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        out: torch.Tensor,
        lse: torch.Tensor,
        tensors: Sequence[torch.Tensor],
        grad_out: torch.Tensor | None,
        grad_lse: torch.Tensor | None,
        needs: Sequence[bool],
    ) -> list[torch.Tensor | None]:
        with torch._C._AutoDispatchBelowAutograd():
            present = attention_backward_op(
                grad_out,
                grad_lse,
                q,
                k,
                v,
                out,
                lse,
                tensors[: self.n_captured],
                tensors[self.n_captured :],
                self.mask,
                self.score,
                self.numbers,
                self.block_geometry,
                self.scale,
                needs[: 3 + self.n_captured],
                self.backend,
                self.strict,
            )
        following = iter(present)
        return [next(following) if needed else None for needed in needs]

    def attention(
        self, q: torch.Tensor, k: torch.Tensor, tensors: Sequence[torch.Tensor]
    ) -> Attention:
        numbers = tuple(self.numbers)
        table = None
        if self.block_geometry:
            table = table_of(tensors[self.n_captured :], self.block_geometry, q, k)
        scale = 1.0 / math.sqrt(q.shape[3]) if self.scale is None else self.scale
        return Attention(expr_of(self.mask, numbers), expr_of(self.score, numbers), table, scale)


def _attention_with_graph(
    keys: torch.DispatchKeySet,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    captured: Sequence[torch.Tensor],
    blocks: Sequence[torch.Tensor],
    mask: str,
    score: str,
    numbers: Sequence[int],
    block_geometry: Sequence[int],
    scale: float | None,
    wants_lse: bool,
    wants_max: bool,
    backend: str | None,
    strict: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``_attention`` as autograd sees it."""
    slots = differentiable_slots(parse_expr(score)) if score else frozenset()
    if slots and max(slots) >= len(captured):
        problem = f"are {len(captured)} tensors, but the score reads t{max(slots)}"
        raise GraphArgumentError(operator="attention", argument="captured", problem=problem)
    followed = [q, k, v, *(captured[slot] for slot in slots)]
    if forward_ad._current_level >= 0 and any(_has_tangent(tensor) for tensor in followed):
        raise FunctionTransformError(what="an input")
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in followed)):
        with torch._C._AutoDispatchBelowAutograd():
            return attention_op(  # type: ignore[no-any-return]
                q,
                k,
                v,
                captured,
                blocks,
                mask,
                score,
                numbers,
                block_geometry,
                scale,
                wants_lse,
                wants_max,
                backend,
                strict,
            )
    call = OperatorCall(
        len(captured), mask, score, numbers, block_geometry, scale, wants_max, backend, strict
    )
    outputs = attend_followed(call, q, k, v, [*captured, *blocks], slots, is_operator=True)
    return _as_tuple(outputs, wants_lse, wants_max)


def _has_tangent(tensor: torch.Tensor) -> bool:
    dual = forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]
    return dual.tangent is not None


def _as_tuple(
    outputs: Outputs, wants_lse: bool, wants_max: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    lse, max_scores = outputs.lse, outputs.max_scores
    return (
        outputs.out,
        lse if wants_lse and lse is not None else outputs.out.new_empty(0),
        max_scores if wants_max and max_scores is not None else outputs.out.new_empty(0),
    )


def _defined(make_library: Any = torch.library.Library) -> Any:
    library = make_library("attnc", "DEF")
    # The kernels take any strides, and the output has those of q: a graph must not change them.
    tags = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
    library.define(_FORWARD, tags=tags)
    library.impl("attention", _attention, "CompositeExplicitAutograd")
    library.impl("attention", _fake_attention, "Meta")
    library.impl("attention", _attention_with_graph, "Autograd", with_keyset=True)
    library.define(_BACKWARD, tags=tags)
    library.impl("attention_backward", _attention_backward, "CompositeExplicitAutograd")
    library.impl("attention_backward", _fake_attention_backward, "Meta")
    return library


_LIBRARY = _defined()
#: The operators, for calls without a look-up by name.
attention_op = torch.ops.attnc.attention.default
attention_backward_op = torch.ops.attnc.attention_backward.default
