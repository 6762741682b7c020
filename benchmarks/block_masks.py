"""How long a block mask takes to build: PyTorch's ``create_block_mask`` and attnc's, on this CPU.

``python -m benchmarks.block_masks`` builds the mask of packed documents with causal attention in
each and writes ``benchmarks/results/block_masks.json`` and ``.md``. "to_torch" is attnc's, converted
for PyTorch's own ``flex_attention``, which is what it takes to adopt it in one line. That all of
them have equal lists is checked.

Times are processor time on one thread, so that other programs do not count: medians of rounds, but
of PyTorch's eager one, which takes seconds, a single call. It holds some ten bytes for each pair of
tokens; where that does not fit into memory it is left out.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.attention import flex_attention as pytorch

import attnc
from benchmarks.measure import (
    RESULTS,
    Call,
    Times,
    in_turns,
    machine_facts,
    markdown_table,
    thread_count,
    write_json,
)

_EAGER_BYTES_PER_PAIR = 12
HEADINGS = {
    "eager": "PyTorch, eager",
    "compiled": "PyTorch, compiled",
    "attnc": "attnc",
    "to_torch": "attnc and `to_torch()`",
}


def packed_causal(length: int) -> Callable[..., Any]:
    """Causal attention within documents of 20 to 2,000 tokens."""
    torch.manual_seed(0)
    cuts = torch.randint(20, 2000, (length // 20,)).cumsum(0)
    ids = torch.searchsorted(cuts, torch.arange(length), right=True)

    def packed(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (q_idx >= kv_idx) & (ids[q_idx] == ids[kv_idx])

    return packed


def processor_clock(call: Call) -> float:
    """Seconds of processor time that a call takes, on all threads."""
    start = time.process_time()
    call()
    return time.process_time() - start


def builders(length: int) -> dict[str, Callable[[], Any]]:
    """Calls that build the same mask."""
    arguments = (packed_causal(length), None, None, length, length, "cpu")
    compiled = torch.compile(pytorch.create_block_mask, dynamic=False)
    return {
        "eager": lambda: pytorch.create_block_mask(*arguments),
        "compiled": lambda: compiled(*arguments),
        "attnc": lambda: attnc.create_block_mask(*arguments),
        "to_torch": lambda: attnc.create_block_mask(*arguments).to_torch(),
    }


def require_equal_lists(masks: Sequence[Any]) -> None:
    for name in ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_q_indices"):
        for mask in masks[1:]:
            assert torch.equal(getattr(mask, name), getattr(masks[0], name)), name


def available_bytes() -> int:
    """Memory that the system could give to this process."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def measured(length: int, n_rounds: int) -> dict[str, Any]:
    """One row of results: milliseconds by builder."""
    torch._dynamo.reset()
    calls = builders(length)
    eager = calls.pop("eager")
    masks = [call() for call in calls.values()]
    times = in_turns(calls, n_rounds, n_warmups=1, clock=processor_clock)
    if length**2 * _EAGER_BYTES_PER_PAIR < available_bytes():
        times["eager"] = Times((processor_clock(lambda: masks.append(eager())),))
    require_equal_lists(masks)
    return {"length": length, "ms": {name: taken.in_ms() for name, taken in times.items()}}


def table_of(rows: list[dict[str, Any]]) -> str:
    def cells(row: dict[str, Any]) -> list[str]:
        ms = {name: taken["median"] for name, taken in row["ms"].items()}
        shown = [f"{ms[name]:,.1f} ms" if name in ms else "-" for name in HEADINGS]
        return [f"{row['length']:,}", *shown, f"{ms['compiled'] / ms['to_torch']:,.0f}x"]

    headings = ["tokens", *HEADINGS.values(), "compiled / `to_torch()`"]
    return markdown_table(headings, map(cells, rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[8192, 32768, 65536])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="print only, write no files")
    options = parser.parse_args()
    with thread_count(1), torch.no_grad():
        rows = [measured(length, options.rounds) for length in options.lengths]
        about = machine_facts()
    table = table_of(rows)
    print(table)
    if not options.dry:
        write_json(RESULTS / "block_masks.json", {"about": about, "rows": rows})
        heading = f"Causal attention in packed documents, one thread of {about['processor']}.\n\n"
        (RESULTS / "block_masks.md").write_text(heading + table)


if __name__ == "__main__":
    main()
