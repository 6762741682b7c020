"""Dense masks, as ``scaled_dot_product_attention`` takes them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attnc import checks
from attnc.block_mask import create_mask
from attnc.decorator import Kernel
from attnc.errors.base import described
from attnc.interchange.arguments import OuterIndexed, made_kernel, wrong
from attnc.interchange.flashmask import from_flashmask, numbers_of
from attnc.interchange.runs import Runs, edges_of_flags
from attnc.interchange.subject import subject_of
from attnc.mods import Mod

_MAX_ELEMENTS = 1 << 20
_BIAS_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def from_dense(mask: torch.Tensor) -> Kernel:
    """What a dense mask shows: true is visible.

    It holds for the lengths of the tensor. Where each query sees one interval of keys, as in windows
    and documents, or FlashMask can hold the mask, the kernel reads ends of intervals instead of
    elements: that is faster. Do not write to the tensor afterwards.

    Args:
        mask: (n_queries, n_keys) or (B or 1, H or 1, n_queries, n_keys), bool.

    Raises:
        InterchangeArgumentError: It is no such tensor.
    """
    _check(mask)
    dense = mask.detach() if mask.dim() == 4 else mask.detach()[None, None]
    ends = _ends_of_rows(dense)
    if ends is not None:
        first, last = (OuterIndexed(numbers) for numbers in ends)

        def mask_by_row(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return (first.at(b, h, q_idx) <= kv_idx) & (kv_idx < last.at(b, h, q_idx))

        return made_kernel(mask_by_row, from_dense, mask)
    columns = _runs_of_columns(dense)
    numbers = None if columns is None else numbers_of(columns)
    if numbers is not None:
        rows = numbers[0].to(mask.device).reshape(*dense.shape[:2], dense.shape[3], -1)
        by_column = from_flashmask(rows, numbers[1], n_queries=dense.shape[2])
        return made_kernel(by_column.fn, from_dense, mask)
    elements = OuterIndexed(dense)

    def mask_by_element(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return elements.at(b, h, q_idx, kv_idx)

    return made_kernel(mask_by_element, from_dense, mask)


def to_dense(
    mask: Mod | Any,
    Q_LEN: int | None = None,
    KV_LEN: int | None = None,
    *,
    B: int | None = None,
    H: int | None = None,
    dtype: torch.dtype = torch.bool,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Every pair: (B or 1, H or 1, n_queries, n_keys), true where visible.

    Args:
        mask: mask_mod, Kernel or BlockMask.
        Q_LEN: Number of queries; a BlockMask knows it.
        KV_LEN: Number of keys; that of queries if left out.
        B, H: Batches and query heads, where the mask tells them apart.
        dtype: bool, or a float dtype for a bias to add to scores: 0 where visible, else -inf.
        device: Of the result; that of the captured tensors if None.

    Raises:
        InterchangeArgumentError: A size is missing or wrong, or ``dtype`` is another one.
    """
    if not isinstance(dtype, torch.dtype) or dtype not in (torch.bool, *_BIAS_DTYPES):
        raise wrong("to_dense", "dtype", dtype, "give torch.bool, or a float dtype for a bias")
    if device is not None and checks.device(device) is None:
        raise wrong("to_dense", "device", device, "give a device, such as 'cpu' or 'cuda'")
    subject = subject_of("to_dense", mask, Q_LEN, KV_LEN, B, H)
    sizes = (subject.n_batch, subject.n_heads, subject.n_queries, subject.n_keys)
    place = subject.device if device is None else device
    visible = create_mask(subject.mod, *sizes, device=place)
    if dtype == torch.bool:
        return visible
    bias = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return bias.masked_fill_(~visible, -torch.inf)


def _check(mask: Any) -> None:
    problem = "give a tensor of bool, (n_queries, n_keys) or (B, H, n_queries, n_keys)"
    if not isinstance(mask, torch.Tensor) or not checks.is_readable(mask):
        raise wrong("from_dense", "mask", repr(described(mask)), problem)
    if mask.dtype == torch.bool and mask.dim() in (2, 4):
        return
    if mask.dtype != torch.bool:
        problem += "; of a bias pass `bias == 0`, and the rest of it as a score_mod"
    elif mask.dim() == 3:
        problem += "; add the missing axis with mask[:, None] or mask[None]"
    raise wrong("from_dense", "mask", mask, problem)


def _ends_of_rows(dense: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """First and last key, half open, of each query: (B, H, n_queries) each, int32.

    None where a query sees more than one interval of keys.
    """
    n_keys = dense.shape[3]
    lines = dense.reshape(math.prod(dense.shape[:3]), n_keys)
    ends = np.zeros((2, len(lines)), np.int32)
    step = max(_MAX_ELEMENTS // max(n_keys, 1), 1)
    for begin in range(0, len(lines), step):
        edges = edges_of_flags(lines[begin : begin + step].cpu().numpy())
        rows, places = np.divmod(_few(edges, 2 * len(edges)), n_keys + 1)
        if len(rows) > 2 * len(edges) or (rows[2:] == rows[:-2]).any():
            return None
        ends[:, begin + rows[::2]] = places[::2], places[1::2]
    first, last = (torch.from_numpy(x).reshape(dense.shape[:3]).to(dense.device) for x in ends)
    return first, last


def _runs_of_columns(dense: torch.Tensor) -> Runs | None:
    """The visible queries of each key; None if there are more than three intervals per key."""
    n_batch, n_heads, n_queries, n_keys = dense.shape
    sizes = (n_batch * n_heads, n_keys, n_queries)
    step = max(_MAX_ELEMENTS // max(n_keys, 1), 1)
    most, n_found = 6 * sizes[0] * n_keys, 0
    lines, places = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for group, seen in enumerate(dense.reshape(sizes[0], n_queries, n_keys)):
        above = np.zeros(n_keys, bool)
        for begin in range(0, n_queries + 1, step):
            part = seen[begin : begin + step].cpu().numpy()
            if begin + step > n_queries:  # what is seen by the last query ends after it
                part = np.concatenate([part, np.zeros((1, n_keys), bool)])
            edges = np.empty(part.shape, bool)
            np.not_equal(part[0], above, out=edges[0])
            np.not_equal(part[1:], part[:-1], out=edges[1:])
            above = part[-1]
            found = _few(edges, most - n_found)
            n_found += len(found)
            if n_found > most:
                return None
            place, key = np.divmod(found, max(n_keys, 1))
            lines.append(group * n_keys + key)
            places.append(begin + place)
    line, place = np.concatenate(lines), np.concatenate(places)
    order = np.argsort(line * (n_queries + 1) + place)
    line, place = line[order], place[order]
    return Runs(line[::2], place[::2], place[1::2], *sizes)


def _few(edges: NDArray[np.bool_], most: int) -> NDArray[np.int64]:
    """Places of true elements of an array as one line, or one more than ``most`` of them."""
    if int(np.count_nonzero(edges)) > most:
        return np.zeros(most + 1, np.int64)
    return np.flatnonzero(edges)
