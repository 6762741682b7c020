"""Compile attention score and mask functions to block-sparse kernels.

>>> import attnc
>>> @attnc.kernel
... def sliding_window(b, h, q_idx, kv_idx):
...     return (q_idx >= kv_idx) & (q_idx - kv_idx < 1024)
>>> out = sliding_window(q, k, v)  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from attnc.runtime.forks import forks_wait as _forks_wait

if TYPE_CHECKING:
    from attnc.analysis import Analysis, analyze
    from attnc.attend import attention
    from attnc.block_mask import BlockMask, create_block_mask, create_mask
    from attnc.decorator import Kernel, kernel
    from attnc.errors import AttncError
    from attnc.flex import AuxOutput, AuxRequest, FlexKernelOptions, flex_attention
    from attnc.mods import and_masks, noop_mask, or_masks

__version__ = "0.1.0"

_HOMES = {
    "Analysis": "attnc.analysis",
    "AttncError": "attnc.errors",
    "AuxOutput": "attnc.flex",
    "AuxRequest": "attnc.flex",
    "BlockMask": "attnc.block_mask",
    "FlexKernelOptions": "attnc.flex",
    "Kernel": "attnc.decorator",
    "analyze": "attnc.analysis",
    "and_masks": "attnc.mods",
    "attention": "attnc.attend",
    "create_block_mask": "attnc.block_mask",
    "create_mask": "attnc.block_mask",
    "flex_attention": "attnc.flex",
    "kernel": "attnc.decorator",
    "noop_mask": "attnc.mods",
    "or_masks": "attnc.mods",
}
_MODULES = frozenset({"interchange", "layout", "library", "prove", "report", "testing"})
# Written out for static checkers; _HOMES has the same names.
__all__ = [
    "Analysis",
    "AttncError",
    "AuxOutput",
    "AuxRequest",
    "BlockMask",
    "FlexKernelOptions",
    "Kernel",
    "analyze",
    "and_masks",
    "attention",
    "create_block_mask",
    "create_mask",
    "flex_attention",
    "kernel",
    "noop_mask",
    "or_masks",
]


def __getattr__(name: str) -> Any:
    # Each name is imported when it is first used: `import attnc` costs next to nothing.
    if name in _MODULES:
        with _forks_wait():
            return import_module(f"attnc.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'attnc' has no attribute {name!r}")
    with _forks_wait():
        value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
