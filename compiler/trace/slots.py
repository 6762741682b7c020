"""Captured tensors as numbered slots."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from attnc.errors import FreedStorageError, UnsupportedDTypeError
from attnc.ir import DType, SlotType
from attnc.storage import ends_early, is_lazy, resolved
from attnc.trace.location import user_location

BOOL, INT32, INT64 = DType.BOOL, DType.INT32, DType.INT64
FLOAT32, FLOAT64 = DType.FLOAT32, DType.FLOAT64
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

#: Storage dtype of a captured tensor -> dtype of the loaded value.
LOAD_DTYPES: Mapping[torch.dtype, DType] = {
    torch.bool: BOOL,
    torch.int8: INT32,
    torch.int16: INT32,
    torch.uint8: INT32,
    torch.int32: INT32,
    torch.int64: INT64,
    torch.float16: FLOAT32,
    torch.bfloat16: FLOAT32,
    torch.float32: FLOAT32,
    torch.float64: FLOAT64,
}
TORCH_DTYPES: Mapping[DType, torch.dtype] = {
    BOOL: torch.bool,
    INT32: torch.int32,
    INT64: torch.int64,
    FLOAT32: torch.float32,
    FLOAT64: torch.float64,
}
#: Storage dtype -> its short name.
_NAMES = {dtype: str(dtype).removeprefix("torch.") for dtype in LOAD_DTYPES}


def load_dtype(dtype: torch.dtype) -> DType:
    """Dtype in which a kernel computes with values stored as ``dtype``.

    Raises:
        UnsupportedDTypeError: kernels do not read this dtype.
    """
    if (loaded := LOAD_DTYPES.get(dtype)) is not None:
        return loaded
    if dtype.is_complex:
        instead = "Capture its .real and .imag, or torch.view_as_real of it."
    elif dtype.is_floating_point:
        instead = "Convert it with .float()."
    else:
        instead = "Convert it with .to(torch.int64)."
    raise _unreadable(f"dtype {dtype}", instead)


def _unreadable(stored: str, instead: str) -> UnsupportedDTypeError:
    location = user_location()
    return UnsupportedDTypeError(
        location=location, source=location.source, stored=stored, instead=instead
    )


class SlotTable:
    """The captured tensors of one or several mods, numbered in order of first use.

    ``device`` is what ``q_idx.device`` shows to a mod.
    """

    __slots__ = ("device", "tensors", "types")

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = device if isinstance(device, torch.device) else torch.device(device)
        self.tensors: list[torch.Tensor] = []
        self.types: list[SlotType] = []

    def slot_of(self, tensor: torch.Tensor) -> int:
        """Number of ``tensor``: that of an equal view of the same memory, else a new one.

        Two objects that see one memory share a slot only if neither requires grad, because
        their gradients may have to go different ways.

        Raises:
            UnsupportedDTypeError: kernels do not read the tensor's dtype or layout.
        """
        for slot, known in enumerate(self.tensors):
            if known is tensor:
                return slot
        if tensor.layout is not torch.strided:
            stored = f"dtype {tensor.dtype} and layout {tensor.layout}"
            raise _unreadable(stored, "Convert it with .to_dense().")
        load_dtype(tensor.dtype)
        if ends_early(tensor):
            raise FreedStorageError(name="a captured tensor", shape=list(tensor.shape))
        # A view may negate when it is read, as z.conj().imag; dynamo does not know the question.
        if not torch.compiler.is_dynamo_compiling() and is_lazy(tensor):
            tensor = resolved(tensor)
        for slot, known in enumerate(self.tensors):
            if _is_same_view(known, tensor):
                return slot
        self.tensors.append(tensor)
        self.types.append(SlotType(_NAMES[tensor.dtype], tensor.dim()))
        return len(self.tensors) - 1

    def clear(self) -> None:
        """Takes every tensor out."""
        self.tensors.clear()
        self.types.clear()


def _is_same_view(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (
        a.dtype is b.dtype
        and a.shape == b.shape
        and a.stride() == b.stride()
        and a.device == b.device
        and not (a.requires_grad or b.requires_grad)
        and a.data_ptr() == b.data_ptr()
    )
