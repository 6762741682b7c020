"""Folders of the disk cache that hold Triton kernels: the source, and what a launch must know."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from attnc.plan import Plan, Spec, make_plan
from attnc.runtime import cache
from attnc.runtime.entries import Entry
from attnc.runtime.fingerprint import generator_digest
from attnc.tiles import Tiles

SOURCE = "kernel.py"
_FACTS = "facts.json"


@dataclass(frozen=True)
class FunctionFacts:
    """Tiles of a function of a kernel: queries and keys; its warps and pipeline stages; registers
    per thread at most, 0 for no limit."""

    block_m: int
    block_n: int
    n_warps: int
    n_stages: int
    max_registers: int

    @property
    def options(self) -> dict[str, int | bool]:
        """What Triton's compiler is told."""
        options = {
            "num_warps": self.n_warps,
            "num_stages": self.n_stages,
            # A fused multiply-add rounds once where the analysis of the mask rounds twice.
            "enable_fp_fusion": False,
        }
        return options | ({"maxnreg": self.max_registers} if self.max_registers else {})


@dataclass(frozen=True)
class KernelFacts:
    """What is known of a kernel without its plan.

    Attributes:
        uses_table: It reads which tiles to visit.
        knows_terms: The table says which terms of the mask hold all over its PARTIAL runs.
        slots: Numbers of the captured tensors that it reads, ascending.
        functions: Those in its source, by name: one, or several of a backward pass.
    """

    uses_table: bool
    knows_terms: bool
    slots: tuple[int, ...]
    functions: dict[str, FunctionFacts]

    @property
    def block_m(self) -> int:
        """Queries per block of a table, a multiple of those per tile."""
        return max((f.block_m for f in self.functions.values()), default=64)

    @property
    def block_n(self) -> int:
        """The same for keys."""
        return max((f.block_n for f in self.functions.values()), default=64)


def kernel_digest(spec: Spec, kind: str) -> str:
    """Name of a cache entry of the given kind; computed without sympy, Jinja or Triton."""
    return spec.digest("triton", kind, version("triton"), generator_digest(".py.jinja"))


def source_entry(spec: Spec) -> Entry:
    """Cache entry with the source and the facts of the kernel of ``spec``."""

    def build(folder: Path) -> None:
        write_source(spec, folder)

    return cache.fetch(kernel_digest(spec, "source"), build)


def write_source(spec: Spec, folder: Path) -> Plan:
    """Plans and renders a kernel into ``folder``; the plan."""
    from attnc.render.triton import functions_of, render, tiles_of

    plan = make_plan(spec)
    (folder / SOURCE).write_text(render(plan), encoding="utf-8")
    functions = {name: function_facts(tiles_of(plan, name)) for name in functions_of(plan)}
    knows_terms = plan.knows_terms
    facts = KernelFacts(plan.uses_table, knows_terms, plan.slots, functions)
    (folder / _FACTS).write_text(json.dumps(asdict(facts)))
    return plan


def function_facts(tiles: Tiles) -> FunctionFacts:
    """What a launch of a function with ``tiles`` must know."""
    return FunctionFacts(
        tiles.block_m, tiles.block_n, tiles.n_warps, tiles.n_stages, tiles.max_registers
    )


def read_facts(folder: Path) -> KernelFacts:
    """The facts that ``write_source`` left in ``folder``."""
    fields = json.loads((folder / _FACTS).read_text())
    return KernelFacts(
        uses_table=fields["uses_table"],
        knows_terms=fields["knows_terms"],
        slots=tuple(fields["slots"]),
        functions={name: FunctionFacts(**f) for name, f in fields["functions"].items()},
    )
