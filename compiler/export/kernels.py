"""The kernels of an exported module: planned and rendered, with what a launch must know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from attnc.derivative import Scatter
from attnc.export.sections import joined
from attnc.export.torch_text import TorchText, torch_text
from attnc.plan import Plan, Spec, make_plan
from attnc.render import cpp, triton
from attnc.render.names import DELTA, FORWARD, KEYS, QUERIES, elements
from attnc.runtime.build import COMMON_FLAGS
from attnc.runtime.composed import derivative_of
from attnc.runtime.isa import ISA_FLAGS
from attnc.runtime.triton_build import function_facts
from attnc.scatter import Reduction, reduction_of
from attnc.target import CpuTarget

_PREFIXES = ("", "backward", "captured")  # of names, for the kernels of ``passes``


@dataclass(frozen=True)
class Captured:
    """The captured tensors of a module and the values of lifted constants.

    Attributes:
        places: Of the slots that are read, in the order of the module's arguments.
        names: What they are called there.
        params: By number.
    """

    places: Mapping[int, int]
    names: Mapping[int, str]
    params: tuple[bool | int | float, ...]


@dataclass(frozen=True)
class CppKernel:
    """One entry of the C++ unit; ``slots`` are places among the module's captured tensors."""

    entry: str
    block_m: int
    block_n: int
    slots: tuple[int, ...]
    uses_table: bool


@dataclass(frozen=True)
class CppKernels:
    """C++ source of all passes, the flags it is compiled with, and its entries by pass."""

    source: str
    flags: tuple[str, ...]
    isa: str
    passes: Mapping[str, CppKernel]

    @property
    def uses_table(self) -> bool:
        return any(kernel.uses_table for kernel in self.passes.values())


@dataclass(frozen=True)
class Sum:
    """How the gradient of a captured tensor is summed from what a kernel leaves: see ``scatter``.

    Attributes:
        place: Of the tensor among those of the module.
        reduction: Name of the ``Reduction``.
        indices: The element that is read, one text per dimension; none where kernels say it.
        function: Name of the kernel for single pairs, or "".
        extents: Of the loops around the element, which take a launch for each round.
    """

    place: int
    reduction: str
    indices: tuple[TorchText, ...]
    function: str
    extents: tuple[int, ...]


@dataclass(frozen=True)
class TritonFunction:
    """A JIT function: its name in the module, its tiles, and the options of its launch."""

    name: str
    block_m: int
    block_n: int
    options: Mapping[str, int | bool]


@dataclass(frozen=True)
class TritonPass:
    """The kernels of one pass; ``block_m, block_n`` are the tiles of its table."""

    functions: Mapping[str, TritonFunction]
    slots: tuple[int, ...]
    block_m: int
    block_n: int
    uses_table: bool
    knows_terms: bool
    sums: tuple[Sum, ...]


@dataclass(frozen=True)
class TritonKernels:
    """Definitions of all passes, and what their launches must know."""

    source: str
    passes: Mapping[str, TritonPass]

    @property
    def uses_table(self) -> bool:
        return any(one.uses_table for one in self.passes.values())


def cpp_kernels(specs: Mapping[str, Spec], captured: Captured) -> CppKernels:
    """All passes of ``specs`` as one C++ unit."""
    plans = [make_plan(spec) for spec in specs.values()]
    target = plans[0].spec.target
    assert isinstance(target, CpuTarget)
    threads = (files("attnc.codegen_templates") / "threads.cpp.jinja").read_text()
    source = cpp.render_many(plans) + "\n" + threads.split("#}\n", 1)[1]
    kernels = {}
    for number, (name, plan) in enumerate(zip(specs, plans, strict=True)):
        direction = "forward" if plan.spec.gradients is None else "backward"
        kernels[name] = CppKernel(
            f"attnc{number}_{direction}",
            plan.tiles.block_m,
            plan.tiles.block_n,
            tuple(captured.places[slot] for slot in plan.slots),
            plan.uses_table,
        )
    flags = ("-O3", *COMMON_FLAGS, "-pthread", *ISA_FLAGS[target.isa])
    return CppKernels(source, flags, target.isa, kernels)


def triton_kernels(specs: Mapping[str, Spec], captured: Captured) -> TritonKernels:
    """All passes of ``specs`` as definitions of one file."""
    plans = [make_plan(spec) for spec in specs.values()]
    sources = [triton.render(plan) for plan in plans]
    sections = joined(list(zip(_PREFIXES, sources, strict=False)))
    passes = {
        name: _triton_pass(plan, section.names, captured)
        for name, plan, section in zip(specs, plans, sections, strict=True)
    }
    return TritonKernels("\n\n".join(section.text for section in sections), passes)


def _triton_pass(plan: Plan, renamed: Mapping[str, str], captured: Captured) -> TritonPass:
    functions = {}
    for function in triton.functions_of(plan):
        facts = function_facts(triton.tiles_of(plan, function))
        functions[_role(function)] = TritonFunction(
            renamed[function], facts.block_m, facts.block_n, facts.options
        )
    spec = plan.spec
    wanted = () if spec.gradients is None else spec.gradients.captured
    scatters = derivative_of(spec.score, wanted).captured if wanted and spec.score else ()
    sums = tuple(
        _sum(number, scatter, captured, renamed) for number, scatter in enumerate(scatters)
    )
    return TritonPass(
        functions=functions,
        slots=tuple(captured.places[slot] for slot in plan.slots),
        block_m=max((f.block_m for f in functions.values()), default=64),
        block_n=max((f.block_n for f in functions.values()), default=64),
        uses_table=plan.uses_table,
        knows_terms=plan.knows_terms,
        sums=sums,
    )


def _role(function: str) -> str:
    roles = {FORWARD: "forward", DELTA: "delta", QUERIES: "queries", KEYS: "keys"}
    return roles.get(function, function)


def _sum(number: int, scatter: Scatter, captured: Captured, renamed: Mapping[str, str]) -> Sum:
    reduction = reduction_of(scatter)
    is_element = reduction is Reduction.ELEMENT
    one_by_one = reduction in (Reduction.DIFFERENCE, Reduction.ELEMENT)
    texts = (torch_text(i, captured.names, captured.params) for i in scatter.indices)
    return Sum(
        place=captured.places[scatter.slot],
        reduction=reduction.name,
        indices=() if is_element else tuple(texts),
        function=renamed[elements(number)] if one_by_one else "",
        extents=tuple(loop.extent for loop in scatter.rows),
    )
