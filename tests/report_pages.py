"""Reports that several tests look at: a mask, a score with a mask, and heads that differ."""

from __future__ import annotations

import base64
import importlib.util
import json
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

import attnc
from attnc import report
from attnc.stages import Inspection

DOCUMENTS = torch.repeat_interleave(torch.arange(5), torch.tensor([300, 211, 700, 450, 387]))
SLOPES = torch.tensor([0.5, 0.25])
HEADS = [64, 300, 64]
WIDTHS = torch.tensor(HEADS)


@attnc.kernel
def documents(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    """Causal attention within documents, and to the first tokens."""
    same = DOCUMENTS[q_idx] == DOCUMENTS[kv_idx]
    return (q_idx >= kv_idx) & (same | (kv_idx < 40))


@attnc.kernel(mask=documents)
def biased(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    """Distances make scores less."""
    slopes = SLOPES
    return score + slopes[h] * (kv_idx - q_idx)


@attnc.kernel
def heads(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    """A window for each head."""
    return (q_idx - kv_idx).abs() < WIDTHS[h]


#: A name that would be a script, a template and the end of an element.
NASTY = "</script><img src=x onerror=alert(1)><!-- ]]> {{ 7*7 }} ' \" & \u2028 </pre></code>"

Shape = tuple[int, int, int, int, int]

#: Functions and shapes of calls.
PAGES: dict[str, tuple[attnc.Kernel, Shape]] = {
    "documents": (documents, (2, 2, 1000, 1000, 32)),
    "biased": (biased, (1, 2, 500, 500, 32)),
    "heads": (heads, (1, 3, 1000, 1100, 32)),
}

#: Stages for which no kernel is compiled.
QUICK = ("traced", "ir", "math", "derivative", "blocks", "plan", "cpp")


def inspection_of(name: str) -> Inspection:
    """The call that a page is about."""
    mod, shape = PAGES[name]
    return Inspection.of(mod, shape=shape)


def written(name: str, folder: Path, stages: Collection[str] | None = QUICK) -> Path:
    """The page, in ``folder``."""
    mod, shape = PAGES[name]
    return report.write(mod, folder / f"{name}.html", shape=shape, stages=stages)


def reasons_in(mask: Any) -> list[dict[tuple[int, int], str]]:
    """For each head the reasons of its tiles."""
    found = json.loads(zlib.decompress(base64.b64decode(mask["reasons"])))
    return [
        {(row, column): found["texts"][text] for row, column, text in tiles}
        for tiles in found["tiles"]
    ]


def nasty_report(folder: Path) -> Path:
    """The report of a function whose name, docstring and source are ``NASTY``."""
    module = folder / "nasty.py"
    module.write_text(
        "def mask(b, h, q_idx, kv_idx):\n"
        f"    return q_idx >= kv_idx  # {NASTY}\n"
        f"mask.__name__ = mask.__doc__ = {NASTY!r}\n"
    )
    spec = importlib.util.spec_from_file_location("nasty", module)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return report.write(
        loaded.mask, folder / "nasty.html", shape=(1, 1, 256, 256, 32), stages=QUICK
    )
