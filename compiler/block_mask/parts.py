"""A BlockMask as tuples, trees and PyTorch's own class."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import torch
from torch.utils._pytree import GetAttrKey

from attnc.block_mask.arguments import checked_flag
from attnc.block_mask.storage import KV_LISTS, Q_LISTS, BlockStorage
from attnc.block_mask.write_order import torch_has_write_order


class BlockParts(BlockStorage):
    """The parts of a BlockMask by PyTorch's names: lists, write orders, and what is no tensor."""

    _TENSOR_ATTRS = (*KV_LISTS, *Q_LISTS, "dq_write_order", "dq_write_order_full", "dq_kv_order")
    _CONTEXT_ATTRS = ("seq_lengths", "BLOCK_SIZE", "mask_mod", "dq_kv_order_spt")

    dq_write_order: torch.Tensor | None
    dq_write_order_full: torch.Tensor | None
    dq_kv_order: torch.Tensor | None
    dq_kv_order_spt: bool | None

    def as_tuple(self, flatten: bool = True) -> tuple[Any, ...]:
        """(lengths, the tensors, dq_kv_order_spt, block size, mask_mod), as the PyTorch at hand.

        The tensors are the eight lists and the three of the write order, in the order of the
        attributes; before PyTorch had a write order, the lists alone.

        Args:
            flatten: Give the two lengths and the two block sizes as separate items.
        """
        parts = [getattr(self, name) for name in (*KV_LISTS, *Q_LISTS)]
        if torch_has_write_order():
            parts += [getattr(self, name) for name in self._TENSOR_ATTRS[8:]]
            parts.append(self.dq_kv_order_spt)
        if checked_flag("flatten", flatten):
            return (*self.seq_lengths, *parts, *self.BLOCK_SIZE, self.mask_mod)
        return (self.seq_lengths, *parts, self.BLOCK_SIZE, self.mask_mod)

    def to_torch(self) -> Any:
        """The same as a ``torch.nn.attention.flex_attention.BlockMask``."""
        from torch.nn.attention.flex_attention import BlockMask as TorchBlockMask

        from attnc.decorator import Kernel

        parts: dict[str, Any] = {name: getattr(self, name) for name in (*KV_LISTS, *Q_LISTS)}
        for name in (*self._TENSOR_ATTRS[8:], "dq_kv_order_spt"):
            if (value := getattr(self, name)) is not None:  # older versions do not know the name
                parts[name] = value
        return TorchBlockMask(
            seq_lengths=self.seq_lengths,
            BLOCK_SIZE=self.BLOCK_SIZE,
            mask_mod=self.mask_mod.fn if isinstance(self.mask_mod, Kernel) else self.mask_mod,
            **parts,
        )

    # PyTorch's names, for those who register the class with torch.utils._pytree.

    def _flatten(self) -> tuple[tuple[torch.Tensor, ...], tuple[Any, ...]]:
        tensors, context = self._flatten_with_keys()
        return tuple(tensor for _, tensor in tensors), context

    def _flatten_with_keys(
        self,
    ) -> tuple[tuple[tuple[GetAttrKey, torch.Tensor], ...], tuple[Any, ...]]:
        tensors = {name: getattr(self, name) for name in self._TENSOR_ATTRS}
        present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        context = tuple(getattr(self, name) for name in self._CONTEXT_ATTRS)
        keyed = tuple((GetAttrKey(name), tensor) for name, tensor in present.items())
        return keyed, (*context, tuple(present))

    @classmethod
    def _unflatten(cls, leaves: Iterable[Any], context: tuple[Any, ...]) -> Self:
        *values, present = context
        given: dict[str, Any] = dict.fromkeys(cls._TENSOR_ATTRS)
        given |= dict(zip(present, leaves, strict=True))
        given |= dict(zip(cls._CONTEXT_ATTRS, values, strict=True))
        return cls(**given)
