"""What q, k, v, scale and switches of a call may be."""

from __future__ import annotations

from typing import Any

import torch

from attnc import checks
from attnc.errors import (
    DeviceError,
    DimensionsError,
    FlagError,
    InputDTypeError,
    InputLayoutError,
    ScaleError,
    ShapeError,
)
from attnc.storage import require_memory

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def lowered(*inputs: torch.Tensor) -> list[torch.Tensor]:
    """What autocast makes of ``inputs``; as in PyTorch, float64 stays."""
    for name, tensor in zip("qkv", inputs, strict=True):
        require_memory(**{name: tensor})
    dtype = torch.get_autocast_dtype(inputs[0].device.type)
    return [x if x.dtype is torch.float64 else x.to(dtype) for x in inputs]


def checked_scale(scale: Any) -> float:
    """``scale`` as a float.

    Raises:
        ScaleError: It is no finite number, or a tensor that requires grad.
    """
    number = checks.finite_number(scale)
    if number is not None:
        return number
    instead = "Give a finite number, or None for 1 / sqrt(head_dim)."
    if isinstance(scale, torch.Tensor):
        instead = (
            "Give a finite number, or multiply in a score_mod, which passes gradients on and takes "
            "one factor per head too: lambda score, b, h, q_idx, kv_idx: score * scale[h]."
        )
    raise ScaleError(value=scale, instead=instead)


def checked_flag(name: str, value: Any) -> bool:
    """``value`` as a bool.

    Raises:
        FlagError: It is none.
    """
    flag = checks.flag(value)
    if flag is None:
        raise FlagError(name=name, value=value)
    return flag


def class_of(value: Any) -> str:
    if value is None:
        return "None"
    cls = type(value)
    return f"a {cls.__module__}.{cls.__qualname__}".replace("a builtins.", "a ")


def check_inputs(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, enable_gqa: bool) -> None:
    require_strided(q, k, v)
    if enable_gqa is not True and enable_gqa is not False:
        enable_gqa = checked_flag("enable_gqa", enable_gqa)
    if q.dtype is not k.dtype or q.dtype is not v.dtype or q.dtype not in _DTYPES:
        raise InputDTypeError(q=q.dtype, k=k.dtype, v=v.dtype)
    for name, tensor in (("k", k), ("v", v)):
        if tensor.device != q.device:
            raise DeviceError(what=name, device=tensor.device, expected=q.device)
    if q.dim() != 4 or k.dim() != 4 or v.dim() != 4:
        raise DimensionsError(q=tuple(q.shape), k=tuple(k.shape), v=tuple(v.shape))
    problem = _shape_problem(q, k, v, enable_gqa)
    if problem is not None:
        what, advice = problem
        raise ShapeError(
            problem=what, q=tuple(q.shape), k=tuple(k.shape), v=tuple(v.shape), advice=advice
        )


def require_strided(q: Any, k: Any, v: Any) -> None:
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if not isinstance(tensor, torch.Tensor):
            continue
        if tensor.is_nested:
            instead = (
                "Pack its sequences one after another in a dense tensor, with a mask of documents: "
                "attnc.interchange.from_cu_seqlens."
            )
            raise InputLayoutError(name=name, kind="a nested tensor", instead=instead)
        if tensor.layout is not torch.strided:
            kind = f"a tensor of layout {tensor.layout}"
            instead = "Convert it with .to_dense()."
            raise InputLayoutError(name=name, kind=kind, instead=instead)


def _shape_problem(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, enable_gqa: bool
) -> tuple[str, str] | None:
    if q.shape[3] != k.shape[3] or q.shape[3] == 0:
        return "q and k differ in head_dim, or it is 0", "Their last dimensions must be equal."
    if k.shape[:3] != v.shape[:3]:
        return "k and v differ in batch, heads or length", "Only their last dimension may differ."
    if k.shape[0] not in (q.shape[0], 1):
        return "q and k differ in batch", "The batch of k and v must be that of q, or 1."
    if q.shape[1] == k.shape[1]:
        return None
    if not enable_gqa:
        return "q and k differ in heads", "Pass enable_gqa=True to share key heads among queries."
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        return "the heads of k do not divide those of q", "Hq must be a multiple of Hkv."
    return None
