"""Packed documents as FlashAttention's functions of variable length take them: ``cu_seqlens``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attnc.decorator import Kernel
from attnc.errors import NotDocumentsError
from attnc.interchange.arguments import made_kernel, require_flag, require_integers, wrong
from attnc.interchange.runs import Runs, sampled_runs, visible_runs
from attnc.interchange.subject import Subject, subject_of
from attnc.mods import Mod

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CuSeqlens:
    """Documents, by the names of FlashAttention's parameters: pass ``**vars(documents)``.

    Attributes:
        cu_seqlens_q: (n_documents + 1,) int32: where the queries of each document start; the last
            is the number of all queries.
        cu_seqlens_k: The same of keys.
        max_seqlen_q: Queries of the longest document.
        max_seqlen_k: Keys of the longest document.
        causal: Whether the last query of a document sees all its keys, and each one before it one
            key less.
    """

    cu_seqlens_q: torch.Tensor
    cu_seqlens_k: torch.Tensor
    max_seqlen_q: int
    max_seqlen_k: int
    causal: bool


def from_cu_seqlens(
    cu_seqlens: torch.Tensor, cu_seqlens_k: torch.Tensor | None = None, *, causal: bool = False
) -> Kernel:
    """Each query of a document sees the keys of the same document.

    Queries beyond the last document see nothing, and nothing sees keys beyond it. Lengths are data:
    one kernel serves every packing.

    Args:
        cu_seqlens: (n_documents + 1,), integers from 0 that do not descend: where the queries of
            each document start, and where the last one ends.
        cu_seqlens_k: The same of keys; that of queries if None.
        causal: Only keys up to the query, aligned at the end of each document: the last query sees
            all its keys. A query before the first key sees nothing.

    Raises:
        InterchangeArgumentError: They are no such numbers, or not as many documents.

    Source: ``flash_attn_varlen_func`` of FlashAttention 2.1 and later.
    """
    function = "from_cu_seqlens"
    require_flag(function, "causal", causal)
    starts_q = _checked(function, "cu_seqlens", cu_seqlens)
    starts_k = starts_q
    if cu_seqlens_k is not None:
        starts_k = _checked(function, "cu_seqlens_k", cu_seqlens_k)
        if len(starts_k) != len(starts_q):
            problem = f"it is of {len(starts_k) - 1} documents, cu_seqlens of {len(starts_q) - 1}"
            raise wrong(function, "cu_seqlens_k", cu_seqlens_k, problem)
    first, last = (
        torch.from_numpy(ends.astype(np.int32)).to(cu_seqlens.device)
        for ends in _visible_keys(starts_q, starts_k, causal)
    )

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (first[q_idx] <= kv_idx) & (kv_idx < last[q_idx])

    return made_kernel(mask, _from_cu_seqlens, cu_seqlens, cu_seqlens_k, causal)


def _from_cu_seqlens(
    cu_seqlens: torch.Tensor, cu_seqlens_k: torch.Tensor | None, causal: bool
) -> Kernel:
    """``from_cu_seqlens`` by position, as pickle calls."""
    return from_cu_seqlens(cu_seqlens, cu_seqlens_k, causal=causal)


def to_cu_seqlens(
    mask: Mod | Any,
    Q_LEN: int | None = None,
    KV_LEN: int | None = None,
    *,
    B: int | None = None,
    H: int | None = None,
) -> CuSeqlens:
    """The documents that a mask is made of.

    A query that sees nothing is a document without keys, or part of one; a key that nothing sees is
    in a document without queries.

    Args:
        mask: mask_mod, Kernel or BlockMask.
        Q_LEN: Number of queries; a BlockMask knows it.
        KV_LEN: Number of keys; that of queries if left out.
        B, H: Batches and heads, where the mask tells them apart: they must all be the same.

    Raises:
        NotDocumentsError: It is none of documents; the message names a pair that shows it.
        InterchangeArgumentError: A size is missing or wrong.
    """
    subject = subject_of("to_cu_seqlens", mask, Q_LEN, KV_LEN, B, H)
    # A mask of many runs would have as many tiles to look into: a few queries tell that first.
    few = sampled_runs(subject)
    many = np.flatnonzero(few.counts > 1)
    if len(many):
        raise _not_documents(subject, int(many[0]), few.of(int(many[0]))[0][1], "contiguous", False)
    runs = visible_runs(subject)
    starts_q, starts_k, causal = _nearest_documents(runs)
    different = runs.difference(_runs_of_documents(starts_q, starts_k, causal, runs))
    if different is not None:
        line, kv_idx = different
        seen = any(start <= kv_idx < stop for start, stop in runs.of(line))
        raise _not_documents(subject, line, kv_idx, "causal" if causal else "whole", seen)
    cu_seqlens_q, cu_seqlens_k = (
        torch.from_numpy(starts.astype(np.int32)).to(subject.device)
        for starts in (starts_q, starts_k)
    )
    longest_q, longest_k = (int(np.diff(s).max(initial=0)) for s in (starts_q, starts_k))
    return CuSeqlens(cu_seqlens_q, cu_seqlens_k, longest_q, longest_k, causal)


def _checked(function: str, argument: str, starts: Any) -> Ints:
    require_integers(function, argument, starts, (1,), "(n_documents + 1,)")
    numbers: Ints = starts.detach().cpu().numpy().astype(np.int64)
    problem = ""
    if not len(numbers) or numbers[0] != 0:
        problem = "its first number must be 0"
    elif (np.diff(numbers) < 0).any():
        at = int(np.flatnonzero(np.diff(numbers) < 0)[0])
        problem = f"it descends from {numbers[at]} to {numbers[at + 1]} at {at + 1}"
    elif numbers[-1] >= 1 << 31:
        problem = f"its last number, {numbers[-1]}, does not fit into int32"
    if problem:
        raise wrong(function, argument, starts, problem)
    return numbers


def _visible_keys(starts_q: Ints, starts_k: Ints, causal: bool) -> tuple[Ints, Ints]:
    """First and last key, half open, of each query, and after them those of no query: (n + 1,).

    A kernel clamps queries beyond the last document to that one.
    """
    n_queries = np.diff(starts_q)
    first = np.repeat(starts_k[:-1], n_queries)
    last = np.repeat(starts_k[1:], n_queries)
    if causal:
        before_end = np.repeat(starts_q[1:], n_queries) - 1 - np.arange(len(first))
        last = np.maximum(last - before_end, first)
    return np.append(first, 0), np.append(last, 0)


def _runs_of_documents(starts_q: Ints, starts_k: Ints, causal: bool, like: Runs) -> Runs:
    first, last = (ends[:-1] for ends in _visible_keys(starts_q, starts_k, causal))
    lines = np.arange(like.n_groups * like.n_lines)
    return like.kept(lines, np.tile(first, like.n_groups), np.tile(last, like.n_groups))


def _nearest_documents(runs: Runs) -> tuple[Ints, Ints, bool]:
    """Starts of queries and of keys, and whether they are causal: right if any documents are.

    Neighbouring queries of one batch and head that see nothing, or the same first key, are one
    document.
    """
    n_queries, n_keys = runs.n_lines, runs.n_across
    first, last = np.full(n_queries, -1), np.full(n_queries, -1)
    mine = np.flatnonzero(runs.lines < n_queries)
    first[runs.lines[mine]], last[runs.lines[mine]] = runs.starts[mine], runs.stops[mine]
    begins = np.flatnonzero(np.append(True, first[1:] != first[:-1])) if n_queries else first
    ends = np.append(begins[1:], n_queries)[: len(begins)] - 1
    causal = bool((last[begins] != last[ends]).any())
    # Keys before those that a document sees, and seen by none, are in a document of no query.
    queries, keys, reached = [0], [0], 0
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        start, stop = max(int(first[begin]), reached), max(int(last[end]), reached)
        if first[begin] >= 0 and start > reached:
            queries.append(begin)
            keys.append(start)
        reached = stop if first[begin] >= 0 else reached
        queries.append(end + 1)
        keys.append(reached)
    if reached < n_keys:
        queries.append(n_queries)
        keys.append(n_keys)
    return np.array(queries), np.array(keys), causal


def _not_documents(
    subject: Subject, line: int, kv_idx: int, kind: str, seen: bool
) -> NotDocumentsError:
    b, h, q_idx = subject.group(line, subject.n_queries)
    words = ("visible", "hidden") if seen else ("hidden", "visible")
    return NotDocumentsError(
        b=b, h=h, q_idx=q_idx, kv_idx=kv_idx, seen=words[0], instead=words[1], kind=kind
    )
