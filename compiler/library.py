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

from attnc.block_mask.fixed import as_function, listed_mod
from attnc.block_mask.lists import table_of_lists
from attnc.block_mask.mask import LARGE_BLOCK
from attnc.errors import (
    BlockMaskLengthError,
    BlockMaskShapeError,
    GradientNotSupportedError,
    SymbolicNumberError,
)
from attnc.evaluate import evaluate
from attnc.ir import TRUE, Const, DType, Expr, Param, SlotType, walk
from attnc.mods import Mod
from attnc.parser import parse_expr
from attnc.run_table import RunTable
from attnc.runtime.dispatch import (
    Fixed,
    Outputs,
    TracedProgram,
    choose_backend,
    empty_outputs,
    run_program,
)
from attnc.trace import SlotTable, trace_mask
from attnc.trace.slots import INT32_MAX, INT32_MIN
from attnc.trace.symbols import Symbol

_SCHEMA = """attention(
    Tensor q, Tensor k, Tensor v, Tensor[] captured, Tensor[] blocks,
    str mask, str score, SymInt[] numbers, SymInt[] block_geometry, float? scale,
    bool wants_lse, bool wants_max, str? backend, bool strict
) -> (Tensor out, Tensor lse, Tensor max_scores)"""


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
    q, k, v = q.resolve_neg(), k.resolve_neg(), v.resolve_neg()
    values = tuple(numbers)
    slots = SlotTable(q.device)
    slots.tensors += [tensor.resolve_neg() for tensor in captured]
    slots.types += [SlotType(str(t.dtype).removeprefix("torch."), t.dim()) for t in captured]
    mask_expr = _expr_of(mask, values)
    table = _table_of(blocks, block_geometry, q, k) if block_geometry else None
    if table is not None and (table.block_m % 16 or table.block_n % 16):
        mask_expr, table = _as_mask(table, mask_expr, slots), None  # no kernel has such tiles
    program = TracedProgram(mask_expr, _expr_of(score, values), slots.tensors, slots.types, table)
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
    blocks: Sequence[torch.Tensor],
    geometry: Sequence[int],
    q: torch.Tensor,
    k: torch.Tensor,
) -> RunTable | None:
    """The tiles of a block mask, or None where the mask implies them; see ``_attention``."""
    lengths = (q.shape[2], k.shape[2])
    if len(geometry) == 4:
        n_queries, n_keys, *block = geometry
        if block == [LARGE_BLOCK, LARGE_BLOCK]:  # "no blocks": it fits any lengths
            n_queries, n_keys = lengths
        full = (blocks[2], blocks[3]) if len(blocks) == 4 else None
        table = table_of_lists(
            (blocks[0], blocks[1]), full, (n_queries, n_keys), (block[0], block[1])
        )
        _check_sizes((table.n_batch, table.n_heads, n_queries, n_keys), q, k)
        return table
    n_batch, n_heads, n_queries, n_keys, block_m, block_n = geometry
    _check_sizes((n_batch, n_heads, n_queries, n_keys), q, k)
    if not blocks:
        return None
    offsets, starts, stops, kinds = (tensor.cpu().numpy() for tensor in blocks)
    return RunTable(
        offsets, starts, stops, kinds, n_batch, n_heads, n_queries, n_keys, block_m, block_n
    )


def _check_sizes(sizes: tuple[int, int, int, int], q: torch.Tensor, k: torch.Tensor) -> None:
    n_batch, n_heads, n_queries, n_keys = sizes
    lengths = (q.shape[2], k.shape[2])
    if (n_queries, n_keys) != lengths:
        raise BlockMaskLengthError(
            mask_q=n_queries, mask_kv=n_keys, n_queries=lengths[0], n_keys=lengths[1]
        )
    for axis, size, wanted in zip("BH", (n_batch, n_heads), q.shape[:2], strict=True):
        if size not in (1, wanted):
            raise BlockMaskShapeError(axis=axis, mask_size=size, size=wanted)


def _as_mask(table: RunTable, inside: Expr | None, slots: SlotTable) -> Expr:
    """The mask that says the same as a table and what holds inside its partial blocks."""

    def inside_mod(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return Symbol(b.context, TRUE if inside is None else inside, DType.BOOL)

    return trace_mask(listed_mod(table, inside_mod, slots.device), slots).expr


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


def _defined(make_library: Any = torch.library.Library) -> Any:
    library = make_library("attnc", "DEF")
    # The kernels take any strides, and the output has those of q: a graph must not change them.
    library.define(_SCHEMA, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides))
    library.impl("attention", _attention, "CompositeExplicitAutograd")
    library.impl("attention", _fake_attention, "Meta")
    library.impl("attention", _refusing_gradients, "Autograd", with_keyset=True)
    return library


_LIBRARY = _defined()
#: The operator, for calls without a look-up by name.
attention_op = torch.ops.attnc.attention.default
