"""What the kernels of a function take of a machine: as a table for people, as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from attnc.stages.kernels import PassSource, role_of
from attnc.target import CpuTarget

if TYPE_CHECKING:
    from attnc.runtime.disassembly import CpuResources
    from attnc.runtime.triton_binary import Resources

Facts = dict[str, Any]

_GPU_NOTES = (
    "Spills are bytes of registers kept in memory, per thread; shared memory is bytes per program.",
    "Occupancy is the share of the warps of a core that fit at once, by the published limits of the",
    "machine, and what allows no more. Instructions are counted in the whole kernel, not per run.",
)
_CPU_NOTES = (
    "Registers are vector registers, of the function that names most. Spills are bytes of the stack",
    "that whole vector registers are stored to and read from, in functions that multiply matrices;",
    "arrays on the stack count too, so no more than this is spilled. Instructions are counted in the",
    "whole kernel, not per run. A CPU has neither shared memory nor occupancy.",
)


def kernel_facts(source: PassSource) -> Iterator[Facts]:
    """What each kernel of ``source`` takes, compiled for a machine that need not be here.

    Raises:
        NoCompilerError, CompilerError, OfflineCompileError, ToolMissingError: It cannot be compiled,
            or the result cannot be read.
    """
    if isinstance(source.spec.target, CpuTarget):
        from attnc.runtime.disassembly import cpu_resources_of

        yield _of_cpu(source, cpu_resources_of(source.machine_functions()))
        return
    from attnc.runtime.triton_binary import resources_of

    for name, binary in source.binaries():
        yield _of_gpu(name, source, resources_of(binary))


def _of_gpu(name: str, source: PassSource, found: Resources) -> Facts:
    fits = found.occupancy
    return {
        "name": name,
        "pass": source.name,
        "role": role_of(name),
        "registers": found.registers,
        "spills": found.spill_bytes,
        "shared_bytes": found.shared_bytes,
        "tensor_memory_columns": found.tensor_columns,
        "threads": found.n_threads,
        "warps": found.n_warps,
        "occupancy": None if fits is None else fits.share,
        "resident_programs": None if fits is None else fits.programs,
        "limited_by": None if fits is None else fits.limited_by,
        "tensor_core_instructions": found.n_tensor_core,
        "tensor_core": dict(found.tensor_core),
        "vector_fma_instructions": found.n_vector_fma,
        "instructions": found.n_instructions,
        "loops": [asdict(loop) for loop in found.loops],
    }


def _of_cpu(source: PassSource, found: CpuResources) -> Facts:
    return {
        "name": source.name,
        "pass": source.name,
        "role": role_of(source.name),
        "registers": found.vector_registers,
        "spills": found.spill_bytes,
        "shared_bytes": 0,
        "occupancy": None,
        "tensor_core_instructions": found.n_tile_products,
        "vector_fma_instructions": found.n_fma,
        "dot_product_instructions": found.n_dot_products,
        "instructions": found.n_instructions,
        "functions": [
            {
                "name": function.name,
                "tensor_core_instructions": function.n_tile_products,
                "vector_fma_instructions": function.n_fma,
                "dot_product_instructions": function.n_dot_products,
                "spills": sum(function.spilled_places.values()),
                "instructions": len(function.instructions),
            }
            for function in found.functions
        ],
    }


def resources_text(kernels: Sequence[Facts]) -> str:
    """One line per kernel, then its loops over tiles or its functions that multiply."""
    if not kernels:
        return "no kernel"
    is_gpu = "warps" in kernels[0]
    columns = _GPU_COLUMNS if is_gpu else _CPU_COLUMNS
    rows = [list(columns), *([_cell(facts, key) for key in columns.values()] for facts in kernels)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    details = [line for facts in kernels for line in _details(facts)]
    return "\n".join([*lines, "", *(_GPU_NOTES if is_gpu else _CPU_NOTES), *details])


_GPU_COLUMNS: Mapping[str, str] = {
    "kernel": "name",
    "registers": "registers",
    "spills": "spills",
    "shared": "shared_bytes",
    "warps": "warps",
    "occupancy": "occupancy",
    "limited by": "limited_by",
    "tensor-core instructions": "tensor_core",
    "vector FMA": "vector_fma_instructions",
}
_CPU_COLUMNS: Mapping[str, str] = {
    "kernel": "name",
    "registers": "registers",
    "spills": "spills",
    "tile products": "tensor_core_instructions",
    "dot products": "dot_product_instructions",
    "vector FMA": "vector_fma_instructions",
    "instructions": "instructions",
}


def _cell(facts: Facts, key: str) -> str:
    match facts[key]:
        case None:
            return "unknown"
        case float(share):
            return f"{share:.1%}"
        case dict(families):
            return ", ".join(f"{n} {name}" for name, n in families.items()) or "0"
        case value:
            return str(value)


def _details(facts: Facts) -> Iterator[str]:
    for function in facts.get("functions", ()):
        yield ""
        yield f"{facts['name']}: {function['name']}"
        counts = {
            "tile products": function["tensor_core_instructions"],
            "dot products": function["dot_product_instructions"],
            "vector FMA": function["vector_fma_instructions"],
            "bytes of spills": function["spills"],
        }
        shown = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        yield f"{function['instructions']:>8} instructions, of which {shown}"
    for loop in facts.get("loops", ()):
        yield ""
        yield from _loop_lines(facts["name"], loop)


def _loop_lines(kernel: str, loop: Mapping[str, Any]) -> Iterator[str]:
    families = dict(loop["tensor_core"]) or {"fused multiply-adds": loop["n_vector_fma"]}
    multiply = ", ".join(f"{n} {name}" for name, n in families.items())
    yield f"{kernel}: loop over {loop['kind']} tiles, per thread and iteration:"
    least, most = loop["n_least_instructions"], loop["n_instructions"]
    yield f"{most:>8} instructions, of which {multiply}"
    if least < most:
        yield f"{least:>8} instructions where all terms of the mask hold"
    yield f"{loop['n_integer_divisions']:>8} integer divisions"
    yield f"{loop['n_selects']:>8} selections by a predicate"
    yield f"{loop['n_mask_operations']:>8} operations of the mask on whole tiles"
