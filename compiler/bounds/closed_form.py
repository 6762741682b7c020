"""Bounds of the loops over key blocks, and what they say of one tile row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from attnc.bounds.algebra import Sympy
from attnc.bounds.printer import print_bound, print_condition
from attnc.bounds.runs import BlockRun
from attnc.ir import Expr
from attnc.run_table import Kind


@dataclass(frozen=True)
class TokenInterval:
    """Keys that a query may attend to: ``start <= kv_idx < stop``, functions of ``q_idx``.

    Attributes:
        guards: Functions of ``q_idx`` that are 0 or more for queries that see any of them.
        period: 0 if all of these keys are visible; else some are, repeating after so many.
    """

    start: Any
    stop: Any
    guards: tuple[Any, ...] = ()
    period: int = 0

    def __str__(self) -> str:
        start, stop = (print_bound(end, "math") for end in (self.start, self.stop))
        text = f"{start} <= kv_idx < {stop}"
        if self.period:
            text += f", of which some, repeating after {self.period}"
        if self.guards:
            text += " where " + " and ".join(print_condition(guard) for guard in self.guards)
        return text


@dataclass(frozen=True)
class ClosedForm:
    """Bounds of all tile rows of a mask.

    ``uniforms``: meaning of ``u0, u1, ...``, integer expressions over ``b, h`` and parameters.
    ``tokens``: the mask itself as a union of intervals of keys, for display.
    ``is_ordered``: each run starts no earlier than the one before it, unless one has no blocks;
    else the kernel puts them in order of their starts.
    """

    runs: tuple[BlockRun, ...]
    uniforms: Mapping[str, Expr]
    tokens: tuple[TokenInterval, ...]
    block_m: int
    block_n: int
    is_ordered: bool = True

    @property
    def exchanges(self) -> tuple[tuple[int, int], ...]:
        """Pairs of runs to compare, in turn: the second comes first if it starts earlier and has
        blocks. Then all are in order."""
        if self.is_ordered:
            return ()
        last = len(self.runs) - 1
        return tuple((i, i + 1) for n in range(last, 0, -1) for i in range(n))

    def evaluate(
        self,
        q_block: int,
        n_queries: int,
        n_keys: int,
        params: Sequence[int | float] = (),
        uniforms: Mapping[str, int] | None = None,
    ) -> list[tuple[int, int, Kind]]:
        """Runs (start, stop, kind) of key blocks that a kernel visits for one tile row, in order.

        Args:
            q_block: Number of the block of queries.
            n_queries, n_keys: Lengths, in tokens.
            params: Values of the lifted constants, by number.
            uniforms: Values of ``u0, u1, ...`` for one batch and head.
        """
        names: dict[str, Fraction] = {
            "q_block": Fraction(q_block),
            "n_queries": Fraction(n_queries),
            "n_keys": Fraction(n_keys),
            **{f"p{i}": Fraction(value) for i, value in enumerate(params)},
            **{name: Fraction(value) for name, value in (uniforms or {}).items()},
        }
        n_kv_blocks = -(-n_keys // self.block_n)
        cursor = 0
        visited: list[tuple[int, int, Kind]] = []
        runs = [
            tuple(
                int(_number(end, names))
                for end in (run.start, run.full_start, run.full_stop, run.stop)
            )
            for run in self.runs
        ]
        for i, j in self.exchanges:
            if runs[j][0] < runs[j][3] and (runs[i][0] >= runs[i][3] or runs[j][0] < runs[i][0]):
                runs[i], runs[j] = runs[j], runs[i]
        for start, full_start, full_stop, stop in runs:
            start, stop = max(start, cursor), min(stop, n_kv_blocks)
            end = max(start, stop)
            full_start = min(max(full_start, start), end)
            full_stop = min(max(full_stop, full_start), end)
            visited += [
                (start, full_start, Kind.PARTIAL),
                (full_start, full_stop, Kind.FULL),
                (full_stop, end, Kind.PARTIAL),
            ]
            cursor = max(cursor, stop)
        return [(first, last, kind) for first, last, kind in visited if first < last]


def _number(expr: Sympy, names: Mapping[str, Fraction]) -> Fraction:
    """Exact value of a bound."""
    if expr.is_Symbol:
        return names[expr.name]
    if expr.is_Rational:
        return Fraction(int(expr.p), int(expr.q))
    values = [_number(arg, names) for arg in expr.args]
    if expr.is_Add:
        return sum(values, Fraction(0))
    if expr.is_Mul:
        product_ = Fraction(1)
        for value in values:
            product_ *= value
        return product_
    match type(expr).__name__:
        case "Pow":
            return values[0] ** int(values[1])
        case "floor":
            return Fraction(values[0].__floor__())
        case "Max":
            return max(values)
        case "Min":
            return min(values)
        case _:
            raise AssertionError(f"{expr} is no bound")
