"""What differs between two inspected functions: in one line, and stage by stage."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch

from attnc.conjunction import conjuncts
from attnc.ir import Expr
from attnc.stages.inspection import Inspection
from attnc.stages.stage import Pass, Stage


@dataclass(frozen=True)
class Difference:
    """Attributes:
    summary: What differs, on one line.
    stages: A unified diff for each stage and kernel that differs, by its name.
    """

    summary: str
    stages: dict[str, str]

    @property
    def is_empty(self) -> bool:
        """The two are the same at every stage that was compared."""
        return not self.stages


def difference_of(
    before: Inspection,
    after: Inspection,
    names: Collection[str] | None = None,
    *,
    passes: Pass = "all",
) -> Difference:
    """Compares two inspections of one target.

    Args:
        before, after: Of the two functions.
        names: Stages to compare; None for ir, blocks, plan and the generated source.
        passes: Kernels of which passes.
    """
    if names is None:
        names = ("ir", "blocks", "plan", before.source_stage)
    first, second = (_by_name(i.stages(names, passes=passes)) for i in (before, after))
    diffs = {
        name: text
        for name in dict.fromkeys([*first, *second])
        if (text := _unified(name, first.get(name), second.get(name)))
    }
    parts = [*_parts(before, after), *_source_part(before, after, diffs)]
    return Difference("; ".join(parts), diffs)


def _by_name(stages: Collection[Stage]) -> dict[str, Stage]:
    return {f"{s.name} {s.kernel}".rstrip(): s for s in stages}


def _unified(name: str, before: Stage | None, after: Stage | None) -> str:
    old, new = ("" if stage is None else stage.text for stage in (before, after))
    lines = difflib.unified_diff(
        old.splitlines(), new.splitlines(), f"A/{name}", f"B/{name}", lineterm=""
    )
    return "\n".join(lines)


def _parts(before: Inspection, after: Inspection) -> Iterator[str]:
    yield f"mask: {_mask_change(before, after)}"
    old, new = before.program.score, after.program.score
    if old is not None or new is not None:
        yield f"score: {_change(old, new)}"
    if not _same_tensors(before, after):
        yield "other captured tensors"
    n_old, n_new = (_n_visited(i) for i in (before, after))
    yield f"tiles visited {n_old:,}" + ("" if n_old == n_new else f" -> {n_new:,}")


def _mask_change(before: Inspection, after: Inspection) -> str:
    old, new = (_terms(i.program.mask) for i in (before, after))
    gone, come = (old - new).total(), (new - old).total()
    if not gone and not come:
        return "same"
    counts = [
        f"{sign}{n} term{'s' if n > 1 else ''}" for sign, n in (("+", come), ("-", gone)) if n
    ]
    return ", ".join(counts)


def _terms(mask: Expr | None) -> Counter[Expr]:
    return Counter() if mask is None else Counter(conjuncts(mask))


def _change(old: Expr | None, new: Expr | None) -> str:
    if old is new:
        return "same"
    if old is None:
        return "added"
    return "removed" if new is None else "changed"


def _same_tensors(before: Inspection, after: Inspection) -> bool:
    old, new = before.program.tensors, after.program.tensors
    return len(old) == len(new) and all(
        a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
        for a, b in zip(old, new, strict=True)
    )


def _n_visited(inspection: Inspection) -> int:
    return inspection.costs(measure=False)["forward"].n_visited


def _source_part(before: Inspection, after: Inspection, diffs: dict[str, str]) -> Iterator[str]:
    source = before.source_stage
    names = [name for name in diffs if name.split()[0] == source]
    if names:
        yield f"other kernel source ({_n_changed(diffs, names)} lines)"
        return
    first, second = (i.stage(source).text for i in (before, after))
    yield "same kernel source" if first == second else "other kernel source"


def _n_changed(diffs: dict[str, str], names: list[str]) -> int:
    lines = (line for name in names for line in diffs[name].splitlines()[2:])
    return sum(line[:1] in ("+", "-") for line in lines)
