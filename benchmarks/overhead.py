"""What a call costs beside its arithmetic: tiny problems, attnc, SDPA and compiled flex, on this CPU.

``python -m benchmarks.overhead`` times B=1 H=1 S=64 D=64 in float32 without gradients and writes
``benchmarks/results/overhead.json`` and ``.md``. SDPA runs without a mask, or with its causal one in
the causal rows. Flex gets its block mask ready-made, attnc reads the mask at every call except
where it is given a BlockMask too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask
from torch.nn.functional import scaled_dot_product_attention

import attnc
from benchmarks.measure import (
    RESULTS,
    Call,
    Times,
    compiled_flex,
    in_turns,
    machine_facts,
    markdown_table,
    thread_count,
    write_json,
)

SIZE, HEAD_DIM = 64, 64
_CALLS_PER_TURN = 10
_WINDOW = 16
_DOCUMENTS = torch.arange(SIZE) // 20
_HEADINGS = ("call", "attnc us", "SDPA us", "flex us", "above SDPA", "above SDPA, fastest")


def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


def window(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return (q_idx >= kv_idx) & (q_idx - kv_idx < _WINDOW)


def documents(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return (_DOCUMENTS[q_idx] == _DOCUMENTS[kv_idx]) & (q_idx >= kv_idx)


def alibi(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score - (q_idx - kv_idx) * 0.25


def softcap(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return 30.0 * torch.tanh(score / 30.0)


@dataclass(frozen=True)
class Case:
    """One way to call attnc: ``call(q, k, v)``; ``mask`` and ``score`` are flex's."""

    name: str
    call: Callable[..., Any]
    mask: Callable[..., Any] | None = None
    score: Callable[..., Any] | None = None


def cases() -> list[Case]:
    """The ways to call that are timed."""
    mask = attnc.create_block_mask(causal, None, None, SIZE, SIZE, device="cpu")
    kernel = attnc.kernel(causal)
    return [
        Case("attention", attnc.attention),
        *(
            Case(f"attention, mask={fn.__name__}", _with_mask(fn), mask=fn)
            for fn in (causal, window, documents)
        ),
        *(
            Case(f"attention, score={fn.__name__}", _with_score(fn), score=fn)
            for fn in (alibi, softcap)
        ),
        Case("kernel(causal)", kernel, mask=causal),
        Case("flex_attention", attnc.flex_attention),
        Case(
            "flex_attention, causal BlockMask",
            lambda q, k, v: attnc.flex_attention(q, k, v, block_mask=mask),
            mask=causal,
        ),
    ]


def _with_mask(mask: Callable[..., Any]) -> Callable[..., Any]:
    return lambda q, k, v: attnc.attention(q, k, v, mask=mask)


def _with_score(score: Callable[..., Any]) -> Callable[..., Any]:
    return lambda q, k, v: attnc.attention(q, k, v, score=score)


def measured(case: Case, n_rounds: int, *, flex: bool) -> dict[str, Any]:
    """One row of results, microseconds per call."""
    torch._dynamo.reset()
    q, k, v = (torch.randn(1, 1, SIZE, HEAD_DIM) for _ in range(3))
    is_causal = case.mask is causal
    calls: dict[str, Call] = {
        "attnc": lambda: case.call(q, k, v),
        "sdpa": lambda: scaled_dot_product_attention(q, k, v, is_causal=is_causal),
    }
    if flex:
        block_mask = None
        if case.mask is not None:
            block_mask = create_block_mask(case.mask, None, None, SIZE, SIZE, device="cpu")
        compiled = compiled_flex()
        calls["flex"] = lambda: compiled(q, k, v, case.score, block_mask)
    times = in_turns({name: _repeated(call) for name, call in calls.items()}, n_rounds, n_warmups=3)
    us = {name: _in_us(taken) for name, taken in times.items()}
    above = {kind: round(us["attnc"][kind] - us["sdpa"][kind], 2) for kind in ("median", "fastest")}
    return {"call": case.name, "us": us, "above_sdpa_us": above}


def _repeated(call: Call) -> Call:
    """Some calls in a row: the clock would show in one, a busy machine break into many."""

    def repeated() -> None:
        for _ in range(_CALLS_PER_TURN):
            call()

    return repeated


def _in_us(times: Times) -> dict[str, float]:
    factor = 1e6 / _CALLS_PER_TURN
    return {
        "median": round(factor * times.median, 2),
        "fastest": round(factor * times.fastest, 2),
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    shown = [
        f"{row['us'][name]['median']:.1f}" if name in row["us"] else ""
        for name in ("attnc", "sdpa", "flex")
    ]
    above = row["above_sdpa_us"]
    return (row["call"], *shown, f"{above['median']:+.1f}", f"{above['fastest']:+.1f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-flex", dest="flex", action="store_false", help="leave out flex")
    parser.add_argument("--output", type=Path, default=RESULTS, help="a folder")
    options = parser.parse_args(arguments)
    with thread_count(options.threads), torch.no_grad():
        facts = machine_facts()
        rows = [measured(case, options.rounds, flex=options.flex) for case in cases()]
    table = markdown_table(_HEADINGS, map(_cells, rows))
    print(table)
    write_json(options.output / "overhead.json", {"machine": facts, "rows": rows})
    about = f"{facts['processor']}, {facts['n_threads']} threads, torch {facts['torch']}\n"
    (options.output / "overhead.md").write_text(f"{about}\n{table}")


if __name__ == "__main__":
    main()
