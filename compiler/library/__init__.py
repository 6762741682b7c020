"""Masks and scores of the literature, ready to run, to combine and to show.

>>> from attnc import library
>>> local = library.causal() & library.sliding_window(1023)
>>> library.alibi(8).where(local)
<attnc.Kernel alibi (score_mod)>

Each function gives a ``Kernel``. Its docstring says what it does, ``ENTRIES[name].source`` who
published it, and ``attnc show library:NAME`` draws it.
"""

from attnc.library.blocks import block_causal, block_diffusion, chunked
from attnc.library.entry import ENTRIES, Entry
from attnc.library.grids import axial, neighborhood, sliding_tiles, windows
from attnc.library.packing import documents, shared_prefix, tree
from attnc.library.scores import (
    alibi,
    alibi_slopes,
    exponential_decay,
    gaussian_decay,
    log_n_scaling,
    logarithmic_decay,
    periodic_bias,
    relative_bias,
    relative_bias_2d,
    softcap,
    t5_bias,
)
from attnc.library.sequences import (
    causal,
    dilated_window,
    fixed,
    global_window,
    power_of_two,
    prefix_lm,
    sink_window,
    sliding_window,
    strided,
    windows_per_head,
)

__all__ = [
    "ENTRIES",
    "Entry",
    "alibi",
    "alibi_slopes",
    "axial",
    "block_causal",
    "block_diffusion",
    "causal",
    "chunked",
    "dilated_window",
    "documents",
    "exponential_decay",
    "fixed",
    "gaussian_decay",
    "global_window",
    "log_n_scaling",
    "logarithmic_decay",
    "neighborhood",
    "periodic_bias",
    "power_of_two",
    "prefix_lm",
    "relative_bias",
    "relative_bias_2d",
    "shared_prefix",
    "sink_window",
    "sliding_tiles",
    "sliding_window",
    "softcap",
    "strided",
    "t5_bias",
    "tree",
    "windows",
    "windows_per_head",
]
