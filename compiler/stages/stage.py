"""One stage of a compilation, with the header that says what the reader sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Language = Literal["text", "python", "cpp", "mlir", "asm"]
Pass = Literal["forward", "backward", "all"]

#: Names of Pygments' lexers.
LEXERS: Mapping[str, str] = {"python": "python", "cpp": "cpp", "mlir": "llvm", "asm": "nasm"}
PASSES: tuple[Pass, ...] = ("forward", "backward", "all")


@dataclass(frozen=True)
class Stage:
    """A stage as shown to people and, with ``data``, to programs.

    Attributes:
        name: Of the stage, a key of ``STAGES``.
        kernel: Of which kernel the text is, such as ``forward`` or ``dkdv``; "" where the stage is
            of the function as a whole.
        title: What the stage is, on one line.
        summary: Of what: function, shape, dtype and target, on one line.
        target: The machine's name.
        language: Of ``text``, for syntax colours.
        text: The stage itself.
        data: What of it is structure, of JSON's types; may be empty.
        problem: Why the stage could not be made here, on one line, or None; the text is empty then.
    """

    name: str
    kernel: str
    title: str
    summary: str
    target: str
    language: Language
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class StageKind:
    """What is known of a stage before it is made.

    Attributes:
        title: What the stage is, on one line.
        language: Of its text.
        machine: Whose kernels have it.
        by_kernel: There is one per pass or kernel.
    """

    title: str
    language: Language
    machine: Literal["any", "cpu", "gpu", "nvidia"] = "any"
    by_kernel: bool = False


#: Every stage, in the order in which a compilation makes them.
STAGES: dict[str, StageKind] = {
    "traced": StageKind("operations of the function, under the source lines they come from", "python"),
    "traced-ir": StageKind("mask and score in the typed IR, as traced", "python"),
    "ir": StageKind("mask and score in the typed IR, simplified", "python"),
    "math": StageKind("formulas: mask, score, the keys a query sees, loop bounds of a tile", "python"),
    "derivative": StageKind("derivatives of the score_mod, which the backward needs", "python"),
    "blocks": StageKind("tiles of the mask: picture, counts, loop bounds, cost", "text"),
    "plan": StageKind("every decision about the kernel, with its reason", "text", by_kernel=True),
    "cpp": StageKind("generated C++", "cpp", "cpu", by_kernel=True),
    "triton": StageKind("generated Triton", "python", "gpu", by_kernel=True),
    "ttir": StageKind("Triton's IR of the compiled kernel", "mlir", "gpu", by_kernel=True),
    "ptx": StageKind("assembly: PTX, or AMDGCN on AMD", "asm", "gpu", by_kernel=True),
    "sass": StageKind("machine instructions of the compiled kernel", "asm", "nvidia", by_kernel=True),
    "assembly": StageKind(
        "machine instructions of the compiled kernel", "asm", "cpu", by_kernel=True
    ),
    "resources": StageKind("registers, spills, memory and instructions of each kernel", "text"),
}  # fmt: skip
