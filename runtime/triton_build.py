"""Folders of the disk cache that hold Triton kernels: the source, and what a launch must know."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from attnc.plan import Plan, Spec, make_plan
from attnc.runtime import cache
from attnc.runtime.fingerprint import generator_digest

SOURCE = "kernel.py"
_FACTS = "facts.json"


@dataclass(frozen=True)
class KernelFacts:
    """What is known of a kernel without its plan.

    Attributes:
        block_m: Queries per tile.
        block_n: Keys per tile.
        n_warps: Warps per program.
        n_stages: Depth of the software pipeline.
        uses_table: It reads which tiles to visit.
        slots: Numbers of the captured tensors that it reads, ascending.
        functions: Names of the kernels in its source: one, or several of a backward pass.
    """

    block_m: int
    block_n: int
    n_warps: int
    n_stages: int
    uses_table: bool
    slots: tuple[int, ...]
    functions: tuple[str, ...]


def kernel_digest(spec: Spec, kind: str) -> str:
    """Name of a cache entry of the given kind; computed without sympy, Jinja or Triton."""
    return spec.digest("triton", kind, version("triton"), generator_digest(".py.jinja"))


def source_entry(spec: Spec) -> cache.Entry:
    """Cache entry with the source and the facts of the kernel of ``spec``."""

    def build(folder: Path) -> None:
        write_source(spec, folder)

    return cache.fetch(kernel_digest(spec, "source"), build)


def write_source(spec: Spec, folder: Path) -> Plan:
    """Plans and renders a kernel into ``folder``; the plan."""
    from attnc.render.triton import functions_of, render

    plan = make_plan(spec)
    (folder / SOURCE).write_text(render(plan))
    tiles = plan.tiles
    facts = KernelFacts(
        block_m=tiles.block_m,
        block_n=tiles.block_n,
        n_warps=tiles.n_warps,
        n_stages=tiles.n_stages,
        uses_table=plan.uses_table,
        slots=plan.slots,
        functions=functions_of(plan),
    )
    (folder / _FACTS).write_text(json.dumps(asdict(facts)))
    return plan


def read_facts(folder: Path) -> KernelFacts:
    """The facts that ``write_source`` left in ``folder``."""
    fields = json.loads((folder / _FACTS).read_text())
    tuples = {name: tuple(fields[name]) for name in ("slots", "functions")}
    return KernelFacts(**{**fields, **tuples})
