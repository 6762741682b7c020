"""The targets of ``python -m benchmarks.cpu``, and what a run reached of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.measure import geometric_mean

Row = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A figure to reach: at least ``goal``, or at most where ``is_upper``."""

    name: str
    goal: float
    reached: float
    n_rows: int
    worst: str
    is_upper: bool = False

    @property
    def is_met(self) -> bool:
        return self.reached <= self.goal if self.is_upper else self.reached >= self.goal

    def fields(self) -> dict[str, Any]:
        """As they are written to JSON."""
        return {**asdict(self), "is_met": self.is_met}

    def cells(self) -> list[str]:
        """One row of the table "target / reached"."""
        sign = "<=" if self.is_upper else ">="
        verdict = "met" if self.is_met else "missed"
        return [self.name, f"{sign} {self.goal:.2f}", f"{self.reached:.2f}", verdict, self.worst]


def targets(rows: Sequence[Row], labels: Sequence[str]) -> list[Target]:
    """All targets that ``rows`` have measurements for; ``labels`` name the rows.

    ``worst`` is the label of the row that is furthest from the goal.
    """
    named = list(zip(labels, rows, strict=True))

    def of(case: str, dtype: str) -> list[tuple[str, Row]]:
        return [(at, r) for at, r in named if (r["case"], r["dtype"]) == (case, dtype)]

    def against_flex(dtype: str) -> list[tuple[str, Row]]:
        return [(at, row) for at, row in named if row["dtype"] == dtype]

    found = [
        _target("flex / attnc, geometric mean", 2.0, named, "flex_over_attnc", geometric_mean),
        *(
            _target(
                f"flex / attnc, geometric mean of {dtype}",
                2.0,
                against_flex(dtype),
                "flex_over_attnc",
                geometric_mean,
            )
            for dtype in ("float32", "bfloat16")
        ),
        _target("flex / attnc, each case", 1.2, named, "flex_over_attnc", min),
        _target(
            "SDPA / attnc, causal fp32, geometric mean",
            1.15,
            of("causal", "float32"),
            "sdpa_over_attnc",
            geometric_mean,
        ),
        _target(
            "SDPA / attnc, causal fp32, each", 1.05, of("causal", "float32"), "sdpa_over_attnc", min
        ),
        _target("full fp32, share of sgemm", 0.9, of("full", "float32"), "of_gemm", min),
        _target("full bf16, share of bf16 gemm", 0.5, of("full", "bfloat16"), "of_gemm", min),
        _target("error / flex's", 2.0, named, "error_over_flex", max),
    ]
    return [target for target in found if target is not None]


def _target(
    name: str,
    goal: float,
    rows: Iterable[tuple[str, Row]],
    field: str,
    summary: Callable[[list[float]], float],
) -> Target | None:
    measured = [(float(row[field]), label) for label, row in rows if field in row]
    if not measured:
        return None
    is_upper = summary is max
    _, worst = max(measured) if is_upper else min(measured)
    reached = summary([value for value, _ in measured])
    return Target(name, goal, reached, len(measured), worst, is_upper)
