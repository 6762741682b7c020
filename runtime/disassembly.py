"""What a compiled C++ kernel costs, read from its machine code."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from attnc.errors import ToolMissingError

_LABEL = re.compile(r"^[0-9a-f]+ <(?P<name>.+)>:$")
_INSTRUCTION = re.compile(r"^\s+(?P<address>[0-9a-f]+):\s+(?P<text>\S.*)$")
# What a linker adds around the functions of the source.
_NOT_OURS = re.compile(r"@plt|^_init$|^_fini$|_tm_clones$|^__do_global|^frame_dummy$")
_FMA = re.compile(r"^v?fn?m(?:add|sub)\d*p[sdh]\b|^vfmaddsub\d*p[sd]\b")
_DOT = re.compile(r"^v?dpbf16ps\b")
_TILE = re.compile(r"^tdp\w+")
_VECTOR = re.compile(r"\b[xyz]mm(?P<number>\d+)\b")
_STACK = re.compile(
    r"(?P<width>XMMWORD|YMMWORD|ZMMWORD) PTR \[(?P<place>r[sb]p(?:[+-]0x[0-9a-f]+)?)\]"
)
_WIDTHS = {"XMMWORD": 16, "YMMWORD": 32, "ZMMWORD": 64}


@dataclass(frozen=True)
class MachineFunction:
    """One function of a library, as it was compiled.

    Attributes:
        name: As in the source.
        instructions: Of the machine, in Intel's syntax, without addresses.
        addresses: Of each instruction in the library, in hexadecimal digits.
    """

    name: str
    instructions: tuple[str, ...]
    addresses: tuple[str, ...]

    @cached_property
    def n_fma(self) -> int:
        """Fused multiply-adds of vectors."""
        return sum(bool(_FMA.match(text)) for text in self.instructions)

    @cached_property
    def n_dot_products(self) -> int:
        """Products of pairs of bfloat16 in vectors, summed in float32."""
        return sum(bool(_DOT.match(text)) for text in self.instructions)

    @cached_property
    def n_tile_products(self) -> int:
        """Products of tiles of registers (AMX)."""
        return sum(bool(_TILE.match(text)) for text in self.instructions)

    @property
    def n_products(self) -> int:
        """Instructions that multiply, of any of these kinds."""
        return self.n_fma + self.n_dot_products + self.n_tile_products

    @cached_property
    def vector_registers(self) -> int:
        """How many vector registers it names."""
        return len({m["number"] for text in self.instructions for m in _VECTOR.finditer(text)})

    @cached_property
    def spilled_places(self) -> dict[str, int]:
        """Bytes by place on the stack that a whole vector register is stored to and read from."""
        stored, read = {}, set()
        for text in self.instructions:
            match = _STACK.search(text)
            if match is None:
                continue
            operands = text.partition(" ")[2].lstrip()
            if operands.startswith(match[0]):
                stored[match["place"]] = _WIDTHS[match["width"]]
            else:
                read.add(match["place"])
        return {place: width for place, width in stored.items() if place in read}


@dataclass(frozen=True)
class CpuResources:
    """What a kernel for CPUs takes.

    Attributes:
        vector_registers: Named by the function that names most.
        spill_bytes: Of vector registers kept on the stack, in functions that multiply matrices.
        n_fma, n_dot_products, n_tile_products: Instructions, as in ``MachineFunction``.
        n_instructions: All of them.
        functions: Those that multiply, the ones with most multiplications first.
    """

    vector_registers: int
    spill_bytes: int
    n_fma: int
    n_dot_products: int
    n_tile_products: int
    n_instructions: int
    functions: tuple[MachineFunction, ...]


def by_products(functions: Sequence[MachineFunction]) -> list[MachineFunction]:
    """Those that multiply most first."""
    return sorted(functions, key=lambda function: -function.n_products)


def cpu_resources_of(functions: Sequence[MachineFunction]) -> CpuResources:
    """Counts over the functions of one library."""
    busy = [function for function in by_products(functions) if function.n_products]
    return CpuResources(
        vector_registers=max((f.vector_registers for f in functions), default=0),
        spill_bytes=sum(sum(f.spilled_places.values()) for f in busy),
        n_fma=sum(f.n_fma for f in functions),
        n_dot_products=sum(f.n_dot_products for f in functions),
        n_tile_products=sum(f.n_tile_products for f in functions),
        n_instructions=sum(len(f.instructions) for f in functions),
        functions=tuple(busy),
    )


def functions_in(disassembly: str) -> Iterator[MachineFunction]:
    """The functions of the source in what ``disassembled`` returns."""
    name, body = "", list[tuple[str, str]]()
    for line in [*disassembly.splitlines(), "0 <end>:"]:
        if label := _LABEL.match(line):
            if name:
                yield MachineFunction(
                    name, tuple(text for _, text in body), tuple(address for address, _ in body)
                )
            name, body = "" if _NOT_OURS.search(label["name"]) else label["name"], []
        elif name and (match := _INSTRUCTION.match(line)):
            body.append((match["address"], match["text"]))


def disassembled(library: Path) -> str:
    """Machine code of a shared library with the names of the source, in Intel's syntax on x86.

    Raises:
        ToolMissingError: There is no objdump.
    """
    tool = shutil.which("objdump")
    if tool is None:
        raise ToolMissingError(
            tool="objdump",
            problem="it is not on the PATH",
            purpose="reads machine code of CPUs",
            remedy="Install it, in Debian the package binutils.",
        )
    command = [tool, "--disassemble", "--demangle", "--no-show-raw-insn", "-M", "intel"]
    found = subprocess.run([*command, str(library)], capture_output=True, text=True, check=True)
    return found.stdout.replace("(anonymous namespace)::", "")
