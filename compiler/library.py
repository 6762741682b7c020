"""``torch.ops.attnc.attention``: attention as an operator, for graphs.

torch.compile, export and other tracers see one operator with tensors as inputs; the mask and the
score are texts. In a process that only loads exported programs, import this module first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from attnc.block_mask.fixed import as_function
from attnc.block_mask.lists import table_of_lists
from attnc.errors import GradientNotSupportedError, SymbolicNumberError
from attnc.evaluate import evaluate
from attnc.ir import Const, Expr, Param, SlotType, walk
from attnc.mods import Mod
from attnc.parser import parse_expr
from attnc.run_table import RunTable
from attnc.runtime.contents import ContentMemory
from attnc.runtime.dispatch import (
    Fixed,
    Outputs,
    TracedProgram,
    choose_backend,
    empty_outputs,
    run_program,
)
from attnc.trace.slots import INT32_MAX, INT32_MIN

_SCHEMA = """attention(
    Tensor q, Tensor k, Tensor v, Tensor[] captured, Tensor[] blocks,
    str mask, str score, SymInt[] numbers, SymInt[] block_geometry, float? scale,
    bool wants_lse, bool wants_max, str? backend, bool strict
) -> (Tensor out, Tensor lse, Tensor max_scores)"""
_tables: ContentMemory[RunTable] = ContentMemory()


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
        blocks: kv_num_blocks, kv_indices, and perhaps full_kv_num_blocks and full_kv_indices of a
            block mask; empty where the mask implies its blocks.
        mask: The mask as ``format_program`` writes it; "" for none.
        score: The same for the score.
        numbers: Values of ``p0, p1, ...`` in the texts, 32 bits each.
        block_geometry: Queries and keys per block; empty without ``blocks``.

    Returns:
        out, lse and max_scores; the latter two are empty where they are not wanted.
    """
    q, k, v = q.resolve_neg(), k.resolve_neg(), v.resolve_neg()
    values = tuple(numbers)
    program = TracedProgram(
        mask=_expr_of(mask, values),
        score=_expr_of(score, values),
        tensors=[tensor.resolve_neg() for tensor in captured],
        slots=[SlotType(str(t.dtype).removeprefix("torch."), t.dim()) for t in captured],
        given=_table_of(blocks, block_geometry, q.shape[2], k.shape[2]) if blocks else None,
    )
    if scale is None:
        scale = 1.0 / math.sqrt(q.shape[3])
    chosen = choose_backend(q, backend)
    if chosen == "reference":
        outputs = _reference(q, k, v, program, scale)
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
    return _as_tuple(empty_outputs(q, v, wants_lse, wants_max), wants_lse, wants_max)


def _refusing_gradients(keys: torch.DispatchKeySet, *args: Any) -> Any:
    """What the operator does with inputs that autograd follows: there is no backward yet."""
    q, k, v, captured = args[:4]
    named = [("q", q), ("k", k), ("v", v)]
    named += [(f"captured tensor {i} of shape {tuple(t.shape)}", t) for i, t in enumerate(captured)]
    if torch.is_grad_enabled():
        for name, tensor in named:
            if tensor.requires_grad:
                raise GradientNotSupportedError(what=name)
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.attnc.attention.default(*args)


def _as_tuple(
    outputs: Outputs, wants_lse: bool, wants_max: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    lse, max_scores = outputs.lse, outputs.max_scores
    return (
        outputs.out,
        lse if wants_lse and lse is not None else outputs.out.new_empty(0),
        max_scores if wants_max and max_scores is not None else outputs.out.new_empty(0),
    )


@lru_cache(maxsize=4096)
def _expr_of(text: str, numbers: tuple[int, ...]) -> Expr | None:
    """The expression with its numbers in place; None for no text."""
    if not text:
        return None
    expr = parse_expr(text)
    done: dict[Expr, Expr] = {}
    for node in walk(expr):
        if isinstance(node, Param):
            value = numbers[node.number]
            if not INT32_MIN <= value <= INT32_MAX:
                raise SymbolicNumberError(value=value)
            done[node] = Const(value, node.dtype)
        else:
            operands = tuple(done[child] for child in node.children)
            done[node] = node if operands == node.children else node.rebuild(operands)
    return done[expr]


def _table_of(
    blocks: Sequence[torch.Tensor], block_size: Sequence[int], n_queries: int, n_keys: int
) -> RunTable:
    block = (block_size[0], block_size[1])
    lengths = (n_queries, n_keys)

    def made() -> RunTable:
        full = (blocks[2], blocks[3]) if len(blocks) == 4 else None
        return table_of_lists((blocks[0], blocks[1]), full, lengths, block)

    return _tables.get((block, lengths), blocks, made)


def _reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, program: TracedProgram, scale: float
) -> Outputs:
    from attnc.runtime.reference import reference_attention

    mask = None if program.mask is None else _as_mod(program.mask, program.tensors)
    if program.given is not None:
        mask = as_function(Fixed(program.given, mask, None), q.device)
    score = None if program.score is None else _as_score_mod(program.score, program.tensors)
    result = reference_attention(q, k, v, mask=mask, score=score, scale=scale, enable_gqa=True)
    stat_dtype = torch.float64 if q.dtype is torch.float64 else torch.float32
    return Outputs(
        result.out.to(q.dtype), result.lse.to(stat_dtype), result.max_scores.to(stat_dtype)
    )


def _as_mod(expr: Expr, tensors: Sequence[torch.Tensor]) -> Mod:
    def mask_mod(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return evaluate(expr, b=b, h=h, q_idx=q_idx, kv_idx=kv_idx, tensors=tensors)

    return mask_mod


def _as_score_mod(expr: Expr, tensors: Sequence[torch.Tensor]) -> Mod:
    def score_mod(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return evaluate(expr, b=b, h=h, q_idx=q_idx, kv_idx=kv_idx, score=score, tensors=tensors)

    return score_mod


def _defined() -> torch.library.Library:
    library = torch.library.Library("attnc", "DEF")
    # The kernels take any strides, and the output has those of q: a graph must not change them.
    library.define(_SCHEMA, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides))
    library.impl("attention", _attention, "CompositeExplicitAutograd")
    library.impl("attention", _fake_attention, "Meta")
    library.impl("attention", _refusing_gradients, "Autograd", with_keyset=True)
    return library


_LIBRARY = _defined()
#: The operator, for calls without a look-up by name.
attention_op = torch.ops.attnc.attention.default
