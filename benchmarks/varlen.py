"""Attention over sequences of unequal length: attnc on ``cu_seqlens``, and what PyTorch has.

``python -m benchmarks.varlen`` times causal attention over a batch of sequences that are kept packed,
one after the other, and writes ``benchmarks/results/varlen.json`` and ``.md``. The candidates start
from the same packed q, k and v and give packed outputs:

- "attnc": ``interchange.from_cu_seqlens``, made anew in each call, as its lengths are new;
- "padded": copied into a batch of the longest length, ``scaled_dot_product_attention``, copied back;
- "one by one": a call of ``scaled_dot_product_attention`` for each sequence;
- "nested": a jagged nested tensor, for which q, k and v are copied, and ``scaled_dot_product_attention`` of it;
- "dense mask": ``scaled_dot_product_attention`` of the packed tokens under the mask as a tensor,
  which is made once and not timed.

That all outputs are equal is checked, and what this PyTorch has no kernel for is named. Times are
processor time on one thread, so that other programs do not count: medians of rounds in turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from attnc import interchange
from benchmarks.block_masks import processor_clock
from benchmarks.measure import (
    RESULTS,
    in_turns,
    machine_facts,
    markdown_table,
    thread_count,
    write_json,
)

N_HEADS, HEAD_DIM = 4, 64
BATCHES = {
    "equal": [256] * 8,
    "a few long": [1024, 512, 256, 128, 64, 32, 16, 16],
    "many short": [16, 48, 64, 96] * 7 + [480],
}


def candidates(sizes: list[int]) -> dict[str, Callable[[], Any]]:
    """Calls that give (1, heads, n_tokens, head_dim)."""
    torch.manual_seed(0)
    n = sum(sizes)
    q, k, v = torch.randn(3, 1, N_HEADS, n, HEAD_DIM)
    cu_seqlens = torch.tensor([0, *sizes]).cumsum(0, dtype=torch.int32)
    dense = interchange.to_dense(interchange.from_cu_seqlens(cu_seqlens, causal=True), n)

    def packed() -> torch.Tensor:
        mask = interchange.from_cu_seqlens(cu_seqlens, causal=True)
        out: torch.Tensor = mask(q, k, v)
        return out

    def padded() -> torch.Tensor:
        batch = [
            pad_sequence(list(x[0].transpose(0, 1).split(sizes)), batch_first=True).transpose(1, 2)
            for x in (q, k, v)
        ]
        out = F.scaled_dot_product_attention(*batch, is_causal=True)
        rows = [row[:, :size] for row, size in zip(out, sizes, strict=True)]
        return torch.cat(rows, dim=1)[None]

    def one_by_one() -> torch.Tensor:
        parts = zip(*(x.split(sizes, dim=2) for x in (q, k, v)), strict=True)
        outs = [F.scaled_dot_product_attention(*part, is_causal=True) for part in parts]
        return torch.cat(outs, dim=2)

    def nested() -> torch.Tensor:
        jagged = [
            torch.nested.nested_tensor_from_jagged(
                x[0].transpose(0, 1).contiguous(), cu_seqlens.long()
            )
            for x in (q, k, v)
        ]
        out = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in jagged), is_causal=True)
        return out.transpose(1, 2).values().transpose(0, 1)[None]

    def masked() -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, dense)

    return {
        "attnc": packed,
        "padded": padded,
        "one by one": one_by_one,
        "nested": nested,
        "dense mask": masked,
    }


def measured(name: str, n_rounds: int) -> dict[str, Any]:
    """One row of results: milliseconds by candidate, and why one is left out."""
    calls = candidates(BATCHES[name])
    expected = calls["one by one"]()
    refused: dict[str, str] = {}
    for candidate, call in list(calls.items()):
        try:
            torch.testing.assert_close(call(), expected, rtol=1e-3, atol=1e-4)
        except (RuntimeError, NotImplementedError) as error:  # what this PyTorch has no kernel for
            refused[candidate] = str(error).splitlines()[0]
            del calls[candidate]
    times = in_turns(calls, n_rounds, n_warmups=1, clock=processor_clock)
    ms = {candidate: taken.in_ms() for candidate, taken in times.items()}
    return {"batch": name, "n_tokens": sum(BATCHES[name]), "ms": ms, "refused": refused}


def table_of(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row["ms"]))

    def cells(row: dict[str, Any]) -> list[str]:
        ms = {name: taken["median"] for name, taken in row["ms"].items()}
        shown = [f"{ms[name]:,.2f} ms" if name in ms else "-" for name in names]
        best = min(value for name, value in ms.items() if name != "attnc")
        return [row["batch"], f"{row['n_tokens']:,}", *shown, f"{best / ms['attnc']:.2f}x"]

    return markdown_table(["batch", "tokens", *names, "best other / attnc"], map(cells, rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dry", action="store_true", help="print only, write no files")
    options = parser.parse_args()
    with thread_count(1), torch.no_grad():
        rows = [measured(name, options.rounds) for name in BATCHES]
        about = machine_facts()
    table = table_of(rows)
    for name, reason in {k: v for row in rows for k, v in row["refused"].items()}.items():
        table += f"\n{name}: {reason}\n"
    print(table)
    if not options.dry:
        write_json(RESULTS / "varlen.json", {"about": about, "rows": rows})
        heading = (
            f"Causal attention over packed sequences, {N_HEADS} heads of {HEAD_DIM}, float32, "
            f"one thread of {about['processor']}.\n\n"
        )
        (RESULTS / "varlen.md").write_text(heading + table)


if __name__ == "__main__":
    main()
