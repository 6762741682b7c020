"""What a Kernel or a plain function is in a call of attention: mask, score and scale."""

from __future__ import annotations

from typing import Any

from attnc.block_mask import BlockMask
from attnc.decorator import Kernel
from attnc.mods import Mod, mod_kind


def roles_of(mod: Any) -> tuple[Any, Mod | None]:
    """Mask (function or BlockMask) and score of a Kernel or of a plain function; None for neither.

    Raises:
        ModSignatureError: It has neither 4 nor 5 parameters.
    """
    if isinstance(mod, Kernel):
        return mod.mask, mod.score
    return (mod, None) if mod_kind(mod) == "mask_mod" else (None, mod)


class OfFunction:
    """What is asked about one function, ``mod``, for q and k of width ``head_dim``."""

    mod: Any
    head_dim: int

    @property
    def mask(self) -> Any:
        """The mask_mod, or None."""
        return roles_of(self.mod)[0]

    @property
    def score(self) -> Mod | None:
        """The score_mod, or None."""
        return roles_of(self.mod)[1]

    @property
    def scale(self) -> float:
        """Factor of q . k, unless a call says another."""
        given = self._option("scale")
        return float(given) if given is not None else float(self.head_dim) ** -0.5

    @property
    def has_fixed_mask(self) -> bool:
        """Whether the mask is a BlockMask, a table for one pair of lengths, not a function."""
        mask = self.mask
        return isinstance(mask, BlockMask) or not (mask is None or callable(mask))

    @property
    def has_layout(self) -> bool:
        """Whether it computes in another order of tokens."""
        return self._option("layout") is not None

    def _option(self, name: str) -> Any:
        return self.mod.options.get(name) if isinstance(self.mod, Kernel) else None
