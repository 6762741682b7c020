"""The kernels of an inspected function: what each is called, and its sources and binaries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from attnc.cost import backward_target
from attnc.plan import Plan, Spec, make_plan
from attnc.render.names import DELTA, FORWARD, KEYS, QUERIES
from attnc.stages.stage import Pass
from attnc.target import CpuTarget, GpuTarget, Target

if TYPE_CHECKING:
    from attnc.runtime.disassembly import MachineFunction
    from attnc.runtime.triton_compile import OfflineBinary
    from attnc.stages.inspection import Inspection

_NAMES = {FORWARD: "forward", DELTA: "delta", QUERIES: "dq", KEYS: "dkdv"}
_ROLES = {
    "forward": "the forward kernel",
    "backward": "the backward kernel",
    "delta": "of the backward: sums of out * grad_out",
    "dq": "of the backward: gradients of queries",
    "dkdv": "of the backward: gradients of keys and values",
}


@dataclass(frozen=True)
class PassSource:
    """The generated source of one pass; it may hold several kernels.

    Attributes:
        name: forward or backward.
        spec: What is asked of it.
    """

    name: str
    spec: Spec

    @cached_property
    def plan(self) -> Plan:
        return make_plan(self.spec)

    @cached_property
    def text(self) -> str:
        if isinstance(self.spec.target, CpuTarget):
            from attnc.render.cpp import render as render_cpp

            return render_cpp(self.plan)
        from attnc.render.triton import render as render_triton

        return render_triton(self.plan)

    def functions(self) -> dict[str, str]:
        """Names in the source of its kernels for GPUs, by their short names."""
        from attnc.render.triton import functions_of

        return {
            _NAMES.get(f, f.removeprefix("attention_backward_")): f for f in functions_of(self.plan)
        }

    def binaries(self) -> Iterator[tuple[str, OfflineBinary]]:
        """Each kernel by its short name, compiled for a GPU that need not be here."""
        from attnc.runtime.triton_compile import compile_offline

        assert isinstance(self.spec.target, GpuTarget)
        for name, function in self.functions().items():
            yield name, compile_offline(self.spec, self.spec.target, function)

    @cached_property
    def disassembly(self) -> str:
        """Machine code of the library of a CPU, compiled by the compiler at hand."""
        from attnc.runtime.cpu import library_of
        from attnc.runtime.disassembly import disassembled

        return disassembled(library_of(self.spec))

    def machine_functions(self) -> list[MachineFunction]:
        """Functions of the library of a CPU, without those that a linker adds."""
        from attnc.runtime.disassembly import functions_in

        return list(functions_in(self.disassembly))


def role_of(kernel: str) -> str:
    """What a kernel is for, by its short name."""
    return _ROLES.get(kernel, f"of the backward: gradients of a captured tensor ({kernel})")


def sources_of(inspection: Inspection, target: Target, passes: Pass) -> Iterator[PassSource]:
    """The sources for ``target``, forward first."""
    if passes != "backward":
        yield PassSource("forward", inspection.spec(target))
    if passes != "forward":
        spec = inspection.spec(backward_target(target), backward=True)
        yield PassSource("backward", spec)
