"""``attend`` while a graph is made, by torch.compile, export or another tracer.

The mask and the score become texts and tensors, which one operator takes: see ``operators``. Under
torch.compile dynamo runs all of this, so it is plain Python without locks, hashes or frames.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

import torch

from attnc.block_mask import BlockMask
from attnc.errors import TooLongModError
from attnc.in_graph.operators import attention_op
from attnc.ir import walk
from attnc.mods import Kind, Mod, require_alone, require_kind
from attnc.printer import format_program
from attnc.runtime.dispatch import Outputs
from attnc.trace import trace_mask, trace_score
from attnc.trace.in_graph import GraphSlots, GraphTracer
from attnc.trace.lines import read_lines
from attnc.trace.refusals import name_of
from attnc.trace.slots import FLOAT32, FLOAT64
from attnc.trace.traced import MOST_NODES


def attend_in_graph(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: Any,
    score: Mod | None,
    scale: float | None,
    wants_lse: bool,
    wants_max: bool,
    backend: str | None,
    strict: bool,
) -> Outputs:
    """As ``attend``, for checked inputs."""
    slots = GraphSlots(q.device)
    mask_text = score_text = ""
    blocks: list[torch.Tensor] = []
    geometry: list[int] = []
    if not callable(mask) and hasattr(mask, "mask_mod"):
        blocks, geometry = _blocks_of(mask)
        mask = mask.mask_mod
    if mask is not None:
        _require_mod(mask, "mask_mod", "mask")
        tracer = GraphTracer(slots, FLOAT32)
        traced = trace_mask(mask, slots, tracer=tracer)
        mask_text = _text_of(mask, "mask_mod", tracer.text(traced.expr))
    if score is not None:
        _require_mod(score, "score_mod", "score")
        float_dtype = FLOAT64 if q.dtype is torch.float64 else FLOAT32
        tracer = GraphTracer(slots, float_dtype)
        traced = trace_score(score, slots, float_dtype, tracer=tracer)
        score_text = _text_of(score, "score_mod", tracer.text(traced.expr))
    out, lse, max_scores = attention_op(
        q,
        k,
        v,
        slots.tensors,
        blocks,
        mask_text,
        score_text,
        slots.numbers,
        geometry,
        scale,
        wants_lse,
        wants_max,
        backend,
        strict,
    )
    return Outputs(out, lse if wants_lse else None, max_scores if wants_max else None)


def _require_mod(mod: Any, wanted: Kind, role: str) -> None:
    # dynamo does not run what tells the parameters of other things that can be called.
    if isinstance(mod, FunctionType) or not callable(mod):
        require_kind(mod, wanted, role)
    require_alone(mod, role)


def _blocks_of(mask: Any) -> tuple[list[torch.Tensor], list[int]]:
    """The tiles of a block mask, as ``blocks`` and ``block_geometry`` of the operator.

    No tiles where the mask implies them. Lists that nobody has looked at are not made.
    """
    if not isinstance(mask, BlockMask) or "kv_indices" in mask._lists:
        lists = [mask.kv_num_blocks, mask.kv_indices]
        if mask.full_kv_indices is not None:
            lists += [mask.full_kv_num_blocks, mask.full_kv_indices]
        return lists, [*mask.seq_lengths, *mask.BLOCK_SIZE]
    table = mask._table
    assert table is not None
    sizes = [table.n_batch, table.n_heads, table.n_queries, table.n_keys]
    geometry = [*sizes, table.block_m, table.block_n]
    if mask._frozen_mask is not None:
        return [], geometry
    return list(mask._runs), geometry


def _text_of(mod: Mod, kind: Kind, lines: str) -> str:
    """The text that graphs show of a traced mod.

    Raises:
        TooLongModError: It computes more values than kernels are made of.
    """
    text: str
    text, n_nodes = _readable(lines)
    if n_nodes > MOST_NODES:
        raise TooLongModError(name=name_of(mod), n_nodes=n_nodes, kind=kind, most=MOST_NODES)
    return text


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # PyTorch's
def _readable(lines: str) -> tuple[str, int]:
    """The text, and how many values it computes; dynamo calls this instead of tracing it."""
    expr = read_lines(lines)
    n_nodes = sum(1 for _ in walk(expr))
    return (format_program(expr) if n_nodes <= MOST_NODES else ""), n_nodes
