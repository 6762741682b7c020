"""What may be given to a BlockMask, and how it is indexed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from attnc import checks
from attnc.errors import (
    BlockMaskArgumentError,
    BlockMaskDimensionsError,
    BlockMaskIndexError,
    BlockMaskListsError,
    BlockMaskSizeError,
)
from attnc.errors.base import described
from attnc.storage import require_memory


def check_lists(
    kv_num_blocks: torch.Tensor,
    kv_indices: torch.Tensor,
    full_kv_num_blocks: torch.Tensor | None,
    full_kv_indices: torch.Tensor | None,
) -> None:
    """Raises unless lists can be those of key blocks.

    Raises:
        BlockMaskDimensionsError: There are no rows.
        BlockMaskListsError: One list of a pair is missing.
    """
    lists = {
        "kv_num_blocks": kv_num_blocks,
        "kv_indices": kv_indices,
        "full_kv_num_blocks": full_kv_num_blocks,
        "full_kv_indices": full_kv_indices,
    }
    if isinstance(kv_indices, torch.Tensor) and kv_indices.dim() < 2:
        raise BlockMaskDimensionsError(n_dims=kv_indices.dim())
    if kv_num_blocks is None or kv_indices is None:
        raise BlockMaskListsError(one="kv_num_blocks", other="kv_indices")
    if (full_kv_num_blocks is None) != (full_kv_indices is None):
        raise BlockMaskListsError(one="full_kv_num_blocks", other="full_kv_indices")
    for name, value in lists.items():
        check_list(name, value)
    for prefix in ("", "full_"):
        rows, indices = lists[f"{prefix}kv_num_blocks"], lists[f"{prefix}kv_indices"]
        if rows is None or indices is None:
            continue
        if rows.shape != indices.shape[:-1]:
            problem = (
                f"{prefix}kv_num_blocks has the shape {tuple(rows.shape)}, but the rows of "
                f"{prefix}kv_indices are {tuple(indices.shape[:-1])}"
            )
            raise BlockMaskArgumentError(problem=problem)


def check_list(name: str, value: Any) -> None:
    """Raises unless ``value`` can be a list of blocks; some may be None.

    Raises:
        BlockMaskArgumentError: It is no dense tensor of integers.
        FreedStorageError: Its memory ends before its elements do.
    """
    if value is None and name not in ("kv_num_blocks", "kv_indices"):
        return
    if not isinstance(value, torch.Tensor) or value.dtype not in checks.INTEGERS:
        problem = f"{name} is {described(value)!r}; give a tensor of int32"
        raise BlockMaskArgumentError(problem=problem)
    if value.layout is not torch.strided or value.is_nested:
        problem = f"{name} is no dense tensor; convert it with .to_dense()"
        raise BlockMaskArgumentError(problem=problem)
    require_memory(**{name: value})


def checked_lengths(seq_lengths: Any) -> tuple[int, int]:
    """(n_queries, n_keys).

    Raises:
        BlockMaskSizeError: They are no two lengths.
    """
    lengths = checks.items(seq_lengths)
    if torch.compiler.is_dynamo_compiling():  # sizes may be symbols
        return seq_lengths  # type: ignore[no-any-return]
    if lengths is None or (found := checks.sizes(lengths, 2)) is None:
        wanted = "two numbers of at least 0, (n_queries, n_keys)"
        raise BlockMaskSizeError(name="seq_lengths", size=described(seq_lengths), wanted=wanted)
    return found[0], found[1]


def checked_block_size(block_size: Any) -> tuple[int, int]:
    """(queries, keys) per block.

    Raises:
        BlockMaskSizeError: It is neither one number nor two.
    """
    found = checks.sizes(block_size, 2, least=1)
    if found is None:
        wanted = "a number above 0 or two of them, (queries, keys)"
        raise BlockMaskSizeError(name="BLOCK_SIZE", size=described(block_size), wanted=wanted)
    return found[0], found[1]


def checked_flag(name: str, value: Any) -> bool:
    """``value`` as a bool.

    Raises:
        BlockMaskArgumentError: It is none.
    """
    flag = checks.flag(value)
    if flag is None:
        raise BlockMaskArgumentError(problem=f"{name} is {described(value)!r}; give True or False")
    return flag


def kept_index(index: Any, sizes: Sequence[int]) -> tuple[Any, ...]:
    """An index of (batch, head, q_block) that keeps dimensions where it gives a number."""
    given = index if isinstance(index, tuple) else (index,)
    if len(given) > 4 or (len(given) == 4 and not any(i is Ellipsis for i in given)):
        raise _wrong_index(index, f"there are {len(given)} indices", sizes)
    for axis, i in enumerate(given[: len(sizes)]):
        is_at_its_axis = not any(j is Ellipsis for j in given[: axis + 1])
        if isinstance(i, int) and is_at_its_axis and not -sizes[axis] <= i < sizes[axis]:
            raise _wrong_index(
                index, f"{described(i)} is beyond the {sizes[axis]} of axis {axis}", sizes
            )
    if (n_missing := 4 - len(given)) > 0 and Ellipsis in [i for i in given if i is Ellipsis]:
        at = next(place for place, i in enumerate(given) if i is Ellipsis)
        given = (*given[:at], *[slice(None)] * n_missing, *given[at + 1 :])
    padded = (*given, slice(None), slice(None), slice(None))[:3]
    return tuple(
        (slice(i + n, i + n + 1) if -n <= i < 0 else slice(i, i + 1)) if isinstance(i, int) else i
        for i, n in zip(padded, (*sizes, 0, 0, 0), strict=False)
    )


def taken(lists: Sequence[torch.Tensor], kept: tuple[Any, ...], index: Any) -> list[torch.Tensor]:
    """``lists`` at ``kept``, which ``kept_index`` made of ``index``.

    Raises:
        BlockMaskIndexError: It is no index of theirs.
    """
    try:
        return [each[kept] for each in lists]
    except (IndexError, TypeError, ValueError, RuntimeError) as error:
        problem = str(error).partition("\n")[0].rstrip(".")
        raise _wrong_index(index, problem, lists[0].shape) from error


def _wrong_index(index: Any, problem: str, sizes: Sequence[int]) -> BlockMaskIndexError:
    parts = index if isinstance(index, tuple) else (index,)
    text = ", ".join(repr(described(part)) for part in parts)
    return BlockMaskIndexError(index=text, problem=problem, sizes=tuple(sizes))
