"""Whether tensors still have the memory that their shapes and strides reach into."""

from __future__ import annotations

import torch

from attnc.errors import FreedStorageError

_NO_DISPATCH = torch._C._disabled_torch_dispatch_impl


def ends_early(tensor: torch.Tensor) -> bool:
    """Whether a tensor's memory ends before its elements do; to read it could end the process.

    False for tensors without memory of their own: of other layouts, on the meta device, of torch's
    transforms and of classes that dispatch.
    """
    if torch.compiler.is_dynamo_compiling():
        return False
    cls = type(tensor)
    if cls is not torch.Tensor and cls is not torch.nn.Parameter and not _is_plain(cls):
        return False
    try:
        n_held = tensor.untyped_storage().nbytes()
        n_bytes = (
            tensor.nbytes
            if tensor.is_contiguous()
            else reach(tensor.shape, tensor.stride(), tensor.element_size())
        )
    except RuntimeError:
        return False
    if offset := tensor.storage_offset():
        n_bytes += int(offset) * tensor.element_size() if n_bytes else 0
    return n_held < n_bytes and not tensor.is_meta


def is_lazy(tensor: torch.Tensor) -> bool:
    """Whether elements come about as they are read: views that negate, zeros without memory."""
    return tensor.is_neg() or tensor._is_zerotensor()


def resolved(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, with all of its elements in memory as they are."""
    return tensor.clone() if tensor._is_zerotensor() else tensor.resolve_neg()


def require_memory(**tensors: torch.Tensor) -> None:
    """Raises FreedStorageError if the memory of one of the tensors ends before its elements do."""
    for name, tensor in tensors.items():
        if ends_early(tensor):
            raise FreedStorageError(name=name, shape=list(tensor.shape))


def reach(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> int:
    """Bytes from the first element of a tensor to the end of its last one; 0 without elements."""
    last = 0
    for size, stride in zip(shape, strides, strict=True):
        if not size:
            return 0
        last += (size - 1) * stride
    return (last + 1) * itemsize


def _is_plain(cls: type[torch.Tensor]) -> bool:
    return getattr(cls, "__torch_dispatch__", _NO_DISPATCH) is _NO_DISPATCH
