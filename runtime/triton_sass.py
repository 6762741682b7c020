"""The loops of a compiled NVIDIA kernel, in the instructions that the machine runs."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from attnc.errors import ToolMissingError

_INSTRUCTION = re.compile(
    r"^\s+/\*(?P<address>[0-9a-f]{4,})\*/\s+(?P<text>[^;]+?)\s*;", re.MULTILINE
)
_BRANCH = re.compile(r"\bBRA\b.*?\b0x(?P<target>[0-9a-f]+)$")
_OPCODE = re.compile(r"^(?:@!?U?P\w+\s+)?(?P<name>[A-Z0-9]+)")
_TENSOR_CORE = re.compile(r"^(?:[HIDQ]G?MMA|UTC\w*MMA)$")
_FUSED = re.compile(r"^(?:[FD]FMA2?|HFMA2)$")


@dataclass(frozen=True)
class MachineLoop:
    """An innermost loop that uses tensor cores.

    Attributes:
        opcodes: How many instructions of each kind one warp runs per iteration, by name without
            suffixes, such as ``FFMA``.
        n_tensor_core: How many of them use the tensor cores.
        touches_stack: A register is kept in memory within the loop.
    """

    opcodes: Mapping[str, int]
    n_tensor_core: int
    touches_stack: bool

    @property
    def n_instructions(self) -> int:
        """Instructions of one warp per iteration."""
        return sum(self.opcodes.values())


def machine_loops(cubin: Path) -> list[MachineLoop]:
    """The innermost loops of ``cubin`` that use tensor cores, in order of address.

    A loop is what lies between the target of a backward branch and the last such branch.
    """
    instructions = [
        (int(match["address"], 16), match["text"])
        for match in _INSTRUCTION.finditer(_dumped(cubin))
    ]
    spans: dict[int, int] = {}
    for address, text in instructions:
        branch = _BRANCH.search(text)
        if branch is not None and (target := int(branch["target"], 16)) < address:
            spans[target] = address
    bodies = {
        (start, stop): [text for address, text in instructions if start <= address <= stop]
        for start, stop in spans.items()
    }
    busy = {span: loop for span, body in bodies.items() if (loop := _loop(body)).n_tensor_core}
    return [
        busy[start, stop]
        for start, stop in sorted(busy)
        if not any(start <= a and b <= stop and (a, b) != (start, stop) for a, b in busy)
    ]


def _loop(body: list[str]) -> MachineLoop:
    opcodes: Counter[str] = Counter()
    for text in body:
        match = _OPCODE.match(text)
        assert match is not None, f"not an instruction: {text}"
        opcodes[match["name"]] += 1
    return MachineLoop(
        opcodes=dict(opcodes),
        n_tensor_core=sum(n for name, n in opcodes.items() if _TENSOR_CORE.match(name)),
        touches_stack=bool(opcodes.keys() & {"LDL", "STL"}),
    )


def n_fused(cubin: Path) -> int:
    """Fused multiply-adds of vectors in ``cubin``; one that does two at once counts as one."""
    names = (_OPCODE.match(match["text"]) for match in _INSTRUCTION.finditer(_dumped(cubin)))
    return sum(bool(name and _FUSED.match(name["name"])) for name in names)


def disassembled(cubin: Path) -> str:
    """The instructions of ``cubin`` with labels, as people read them.

    Raises:
        ToolMissingError: Triton came without nvdisasm.
    """
    command = [str(nvidia_tool("nvdisasm")), "--print-code", str(cubin)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return text.partition("//----")[2].partition("\n")[2] or text


def _dumped(cubin: Path) -> str:
    command = [str(nvidia_tool("cuobjdump")), "-sass", str(cubin)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def nvidia_tool(name: str) -> Path:
    """Path of one of the programs of NVIDIA's that come with Triton.

    Raises:
        ToolMissingError: There is no Triton, or it came without the program.
    """
    found = importlib.util.find_spec("triton")  # its tools are wanted, not Triton
    if found is None or found.origin is None:
        problem, remedy = "it comes with Triton, which is not installed", "pip install triton"
    else:
        path = Path(found.origin).parent / "backends" / "nvidia" / "bin" / name
        if path.is_file():
            return path
        problem = f"{path} does not exist"
        remedy = "Install Triton from PyPI, whose packages have it: pip install triton"
    purpose = "reads binaries of NVIDIA's GPUs"
    raise ToolMissingError(tool=name, purpose=purpose, problem=problem, remedy=f"{remedy}.")
