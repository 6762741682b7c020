"""Masks to and from the formats of other libraries, exactly.

>>> import torch
>>> from attnc import interchange
>>> packed = interchange.from_cu_seqlens(torch.tensor([0, 3, 5], dtype=torch.int32), causal=True)
>>> interchange.to_cu_seqlens(packed, 5).cu_seqlens_q.tolist()
[0, 3, 5]

What reads a format gives a ``Kernel``, which runs, combines and pickles as any other. What writes one
takes a mask_mod, a Kernel or a BlockMask, ours or PyTorch's (PyTorch's own is made by
``BlockMask.to_torch()``), and finds the runs of visible keys without looking at every pair.
"""

from attnc.interchange.dense import from_dense, to_dense
from attnc.interchange.documents import CuSeqlens, from_cu_seqlens, to_cu_seqlens
from attnc.interchange.flashmask import FlashMask, from_flashmask, to_flashmask

__all__ = [
    "CuSeqlens",
    "FlashMask",
    "from_cu_seqlens",
    "from_dense",
    "from_flashmask",
    "to_cu_seqlens",
    "to_dense",
    "to_flashmask",
]
