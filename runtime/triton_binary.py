"""What a compiled Triton kernel costs, read from its binary and assembly."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attnc.runtime.assembly_loops import AssemblyLoop, innermost_loops
from attnc.runtime.occupancy import Occupancy, occupancy_of
from attnc.runtime.triton_compile import OfflineBinary
from attnc.runtime.triton_sass import n_fused, nvidia_tool

_TENSOR_CORE = re.compile(r"(?<![\w.])(mma\.sync|wgmma\.mma_async|tcgen05\.mma|v_mfma)(?=[._])")
_VECTOR_FMA = re.compile(r"(?<![\w.])(fma\.rn\.f(?:32|64)|v_(?:pk_|dual_)?fmac?_f(?:32|64))")
# AMD has no integer division: it is expanded, and always begins with this reciprocal.
_DIVISION = re.compile(r"\b(?:div|rem)\.[su](?:16|32|64)\b|\bv_rcp_iflag_f32\w*")
_SELECT = re.compile(r"\bselp\.|\bv_cndmask")
_TILE_COMPARISON = re.compile(r"arith\.cmpi .* : tensor<")
_TILE_LOGIC = re.compile(r"arith\.(?:andi|ori|xori) .* : tensor<[0-9x]+xi1>")


@dataclass(frozen=True)
class LoopResources:
    """Instructions of one loop over kv tiles, per thread and iteration.

    Attributes:
        kind: PARTIAL or FULL.
        n_instructions: All instructions, on the longest way where tiles branch.
        n_least_instructions: The same on the shortest way.
        tensor_core: Number of tensor-core instructions, by family, such as ``wgmma.mma_async``.
        n_vector_fma: Fused multiply-adds in the assembly.
        n_integer_divisions: Integer divisions and remainders that take a division.
        n_selects: Selections by a predicate, as masking an element is.
        n_mask_operations: Integer comparisons and logic on whole tensors in Triton's IR.
    """

    kind: str
    n_instructions: int
    n_least_instructions: int
    tensor_core: Mapping[str, int]
    n_vector_fma: int
    n_integer_divisions: int
    n_selects: int
    n_mask_operations: int


@dataclass(frozen=True)
class Resources:
    """What a program of the kernel takes.

    Attributes:
        registers: Per thread.
        spill_bytes: Registers kept in memory, per thread.
        shared_bytes: Shared memory.
        n_warps: Warps.
        n_threads: Threads.
        tensor_columns: Columns of tensor memory, where the machine has it.
        tensor_core: Tensor-core instructions in the whole kernel, by family.
        n_vector_fma: Fused multiply-adds of vectors in the whole kernel, as the machine runs them.
        n_instructions: All instructions of the assembly.
        occupancy: Of a core of the machine; None if its limits are not known here.
        loops: Its loops over whole kv tiles, in order; none if the compiler merged or unrolled
            some.
    """

    registers: int
    spill_bytes: int
    shared_bytes: int
    n_warps: int
    n_threads: int
    tensor_columns: int
    tensor_core: Mapping[str, int]
    n_vector_fma: int
    n_instructions: int
    occupancy: Occupancy | None
    loops: tuple[LoopResources, ...]

    @property
    def n_tensor_core(self) -> int:
        """Tensor-core instructions of all families."""
        return sum(self.tensor_core.values())


def resources_of(binary: OfflineBinary) -> Resources:
    """Reads ``binary``.

    Raises:
        ToolMissingError: It is for NVIDIA, and Triton came without its tools.
    """
    if binary.target.backend == "cuda":
        registers, spill_bytes = resources_of_cubin(binary.binary)
        assembly = binary.texts["ptx"]
        n_vector_fma = n_fused(binary.binary)
    else:
        assembly = binary.texts["amdgcn"]
        registers, spill_bytes = _amd_registers(assembly)
        n_vector_fma = len(_VECTOR_FMA.findall(assembly))
    lines = assembly.splitlines()
    # Where no matrix instruction multiplies a dtype, loops are found by what does.
    multiplies = _TENSOR_CORE if any(map(_TENSOR_CORE.search, lines)) else _VECTOR_FMA
    loops = innermost_loops(lines, multiplies.search)
    mask_operations = [_n_mask_operations(body) for body in _tile_loops(binary.texts["ttir"])]
    # The incomplete tile may have a loop, the last one, which may be compiled to a branch.
    n_loops = len(binary.loop_kinds)
    n_tails = len(mask_operations) - n_loops
    if n_tails not in (0, 1) or len(loops) not in (n_loops, n_loops + n_tails):
        loops = []
    return Resources(
        registers=registers,
        spill_bytes=spill_bytes,
        shared_bytes=binary.shared_bytes,
        n_warps=binary.n_warps,
        n_threads=binary.n_warps * binary.target.warp_size,
        tensor_columns=binary.tensor_columns,
        tensor_core=_tensor_core(lines),
        n_vector_fma=n_vector_fma,
        n_instructions=_n_instructions(lines),
        occupancy=occupancy_of(
            binary.target,
            registers=registers,
            n_warps=binary.n_warps,
            shared_bytes=binary.shared_bytes,
            tensor_columns=binary.tensor_columns,
        ),
        loops=tuple(
            _loop_resources(kind, body, n)
            for kind, body, n in zip(binary.loop_kinds, loops, mask_operations, strict=False)
        ),
    )


def _tensor_core(lines: Iterable[str]) -> dict[str, int]:
    return dict(Counter(match[1] for line in lines if (match := _TENSOR_CORE.search(line))))


def _loop_resources(kind: str, loop: AssemblyLoop, n_mask_operations: int) -> LoopResources:
    body = loop.lines
    return LoopResources(
        kind=kind,
        n_instructions=loop.longest(_n_instructions),
        n_least_instructions=loop.shortest(_n_instructions),
        tensor_core=_tensor_core(body),
        n_vector_fma=sum(bool(_VECTOR_FMA.search(line)) for line in body),
        n_integer_divisions=sum(bool(_DIVISION.search(line)) for line in body),
        n_selects=sum(bool(_SELECT.search(line)) for line in body),
        n_mask_operations=n_mask_operations,
    )


def _n_instructions(lines: Iterable[str]) -> int:
    return sum(map(_is_instruction, lines))


def _is_instruction(line: str) -> bool:
    text = line.strip()
    return (
        bool(text)
        and not text.startswith((".", "//", ";", "$", "{", "}", "#"))
        and (not text.endswith(":"))
    )


def _tile_loops(ttir: str) -> Iterator[list[str]]:
    """Lines of each innermost ``scf.for`` of Triton's IR that multiplies matrices."""
    lines = ttir.splitlines()
    for number, line in enumerate(lines):
        if "scf.for" not in line:
            continue
        # The brace that closes the loop stands under its first letter.
        indent = line[: len(line) - len(line.lstrip())]
        stop = next(n for n in range(number, len(lines)) if lines[n].startswith(f"{indent}}}"))
        body = lines[number + 1 : stop]
        is_inner = not any("scf.for" in inner for inner in body)
        if is_inner and any("tt.dot" in inner for inner in body):
            yield body


def _n_mask_operations(body: Sequence[str]) -> int:
    return sum(bool(_TILE_COMPARISON.search(line) or _TILE_LOGIC.search(line)) for line in body)


def resources_of_cubin(cubin: Path) -> tuple[int, int]:
    """Registers and bytes of stack (nothing but spills in these kernels) per thread."""
    command = [str(nvidia_tool("cuobjdump")), "-res-usage", str(cubin)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}
    return usage["REG"], usage["STACK"] + usage["LOCAL"]


def _amd_registers(assembly: str) -> tuple[int, int]:
    """Vector registers, and bytes of them kept in memory, per thread.

    Scalar registers spill into lanes of vector registers, which takes no memory.
    """
    fields = dict(re.findall(r"^\s*\.?-? ?\.(\w+):\s+(\d+)$", assembly, flags=re.MULTILINE))
    return int(fields["vgpr_count"]), int(fields["private_segment_fixed_size"])
