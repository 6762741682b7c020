"""What is asked of a kernel: the key of the cache."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from attnc.ir import DType, Expr, SlotType, canonical_text
from attnc.target import Target


@dataclass(frozen=True)
class Wanted:
    """The gradients that a backward kernel computes: of q, k and v, and of captured tensors by
    slot number."""

    query: bool
    key: bool
    value: bool
    captured: tuple[int, ...] = ()


@dataclass(frozen=True)
class Spec:
    """What is static about a call.

    Attributes:
        mask: Lifted boolean expression, or None where every key is visible.
        score: Lifted expression in the dtype of accumulation, or None for the plain score.
        slots: Storage of every captured tensor, by slot number.
        params: Dtypes of the lifted constants, by number.
        dtype: Storage dtype of q, k, v and out: a torch dtype's short name.
        head_dim: Width of q and k.
        value_dim: Width of v and out.
        target: The machine.
        from_table: Visit what a given block table lists (a BlockMask): the mask then holds in
            PARTIAL tiles only. Without it the kernel visits what the mask implies.
        block_multiple: Tile sizes must divide these (queries, keys); (0, 0) leaves them free.
        wide_index: Offsets into some tensor need 64 bits.
        short_queries: There are at most 16 queries, as in decoding.
        wants_lse: The kernel stores the log-sum-exp of each row.
        wants_max: The kernel stores the maximum of each row.
        gradients: What a backward kernel computes; None for the forward pass.
    """

    mask: Expr | None
    score: Expr | None
    slots: tuple[SlotType, ...]
    params: tuple[DType, ...]
    dtype: str
    head_dim: int
    value_dim: int
    target: Target
    from_table: bool = False
    block_multiple: tuple[int, int] = (0, 0)
    wide_index: bool = False
    short_queries: bool = False
    wants_lse: bool = False
    wants_max: bool = False
    gradients: Wanted | None = None

    @property
    def float_dtype(self) -> DType:
        """Dtype of scores and accumulators."""
        return DType.FLOAT64 if self.dtype == "float64" else DType.FLOAT32

    def digest(self, *environment: str) -> str:
        """SHA-256 in hexadecimal; ``environment`` names what else the binary depends on."""
        fields = (
            canonical_text(self.mask, self.score),
            repr(self.slots),
            " ".join(dtype.value for dtype in self.params),
            f"{self.dtype} {self.head_dim} {self.value_dim} {self.target!r}",
            f"{self.from_table} {self.block_multiple} {self.wide_index} {self.short_queries}",
            f"{self.wants_lse} {self.wants_max} {self.gradients}",
            *environment,
        )
        return hashlib.sha256("\0".join(fields).encode()).hexdigest()
