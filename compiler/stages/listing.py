"""The stages of an inspection, in order, each with its header and its structure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnc.errors import AttncError, InspectionOptionError
from attnc.stages.kernels import PassSource, role_of, sources_of
from attnc.stages.resources import kernel_facts, resources_text
from attnc.stages.stage import STAGES, Pass, Stage, StageKind
from attnc.stages.texts import assembly_text, plan_data, plan_text
from attnc.target import CpuTarget, GpuTarget, Target

if TYPE_CHECKING:
    from attnc.runtime.triton_compile import OfflineBinary
    from attnc.stages.inspection import Inspection


def list_stages(
    inspection: Inspection, names: Collection[str] | None, passes: Pass, *, measure: bool
) -> Iterator[Stage]:
    """See ``Inspection.stages``."""
    if names is not None:
        for name in names:
            _require_stage(inspection, name)
        for name in STAGES:
            if name in names:
                yield from _Maker(inspection, name, passes, measure).stages()
        return
    for name, kind in STAGES.items():
        if not _has(inspection.target, kind):
            continue
        maker = _Maker(inspection, name, passes, measure)
        try:
            yield from maker.stages()
        except AttncError as error:
            yield maker.absent(str(error))


def _require_stage(inspection: Inspection, name: str) -> None:
    if name not in STAGES:
        problem = f"use one of {', '.join(STAGES)}."
        raise InspectionOptionError(option="stage", value=name, problem=problem)
    target = inspection.target if STAGES[name].machine != "nvidia" else inspection.gpu
    if STAGES[name].machine == "nvidia" and not _has(target, STAGES[name]):
        problem = (
            f"only NVIDIA's machines have it, not {target.name}; use ptx, which is AMDGCN there."
        )
        raise InspectionOptionError(option="stage", value=name, problem=problem)


def _has(target: Target, kind: StageKind) -> bool:
    match kind.machine:
        case "any":
            return True
        case "cpu":
            return isinstance(target, CpuTarget)
        case "gpu":
            return isinstance(target, GpuTarget)
        case "nvidia":
            return isinstance(target, GpuTarget) and target.backend == "cuda"


@dataclass(frozen=True)
class _Maker:
    """Makes the stages of one name."""

    inspection: Inspection
    name: str
    passes: Pass
    measure: bool

    @property
    def kind(self) -> StageKind:
        return STAGES[self.name]

    @property
    def target(self) -> Target:
        """The machine that the stage is for: the nearest one that has it."""
        match self.kind.machine:
            case "any":
                return self.inspection.target
            case "cpu":
                return self.inspection.cpu
            case _:
                return self.inspection.gpu

    def stages(self) -> Iterator[Stage]:
        if self.name == "resources":
            yield self._resources()
        elif self.kind.by_kernel:
            for source in sources_of(self.inspection, self.target, self.passes):
                yield from self._of_pass(source)
        else:
            yield self._of_function()

    def absent(self, problem: str) -> Stage:
        """In place of a stage that cannot be made here."""
        return self._stage("", "", problem=" ".join(problem.split()))

    def _of_function(self) -> Stage:
        inspection = self.inspection
        if self.name == "blocks":
            return self._stage("", *inspection.blocks_and_data(measure=self.measure))
        makers: dict[str, Callable[[], str]] = {
            "traced": inspection.traced,
            "traced-ir": inspection.traced_ir,
            "ir": inspection.ir,
            "math": inspection.math,
            "derivative": inspection.derivative,
        }
        return self._stage("", makers[self.name]())

    def _of_pass(self, source: PassSource) -> Iterator[Stage]:
        match self.name:
            case "plan":
                yield self._stage(source.name, plan_text(source.plan), plan_data(source.plan))
            case "cpp" | "triton":
                yield self._stage(source.name, source.text)
            case "assembly":
                yield self._stage(source.name, assembly_text(source.machine_functions()))
            case _:
                for kernel, binary in source.binaries():
                    yield self._stage(kernel, self._text_of(binary))

    def _text_of(self, binary: OfflineBinary) -> str:
        match self.name:
            case "ttir":
                return binary.texts["ttir"]
            case "sass":
                from attnc.runtime.triton_sass import disassembled

                return disassembled(binary.binary)
            case _:
                return binary.texts.get("ptx") or binary.texts["amdgcn"]

    def _resources(self) -> Stage:
        kernels = [
            facts
            for source in sources_of(self.inspection, self.target, self.passes)
            for facts in kernel_facts(source)
        ]
        return self._stage("", resources_text(kernels), {"kernels": kernels})

    def _stage(
        self, kernel: str, text: str, data: dict[str, Any] | None = None, problem: str | None = None
    ) -> Stage:
        inspection = self.inspection
        sizes = "B={}, H={}, Lq={}, Lk={}, D={}".format(*inspection.shape)
        of_kernel = f", {role_of(kernel)}" if kernel else ""
        return Stage(
            name=self.name,
            kernel=kernel,
            title=f"{self.name}: {self.kind.title}{of_kernel}",
            summary=f"{inspection.name}({sizes}), {inspection.dtype}, for {self.target.name}",
            target=self.target.name,
            language=self.kind.language,
            text=text,
            data=data or {},
            problem=problem,
        )
