"""attnc against ``torch.compile(flex_attention)`` and SDPA on this CPU, forward.

``python -m benchmarks.cpu`` prints a table and writes ``benchmarks/results/cpu.json``. Candidates
take turns in one process, so that a busy machine slows all of them alike; times are medians.
flex gets its better block size of 128 and (64, 128); making block masks is not timed, for attnc it
is part of the call.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import attnc

RESULTS = Path(__file__).parent / "results" / "cpu.json"
N_HEADS = 8


def processor() -> str:
    """The name the processor gives itself, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


def window(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return (q_idx >= kv_idx) & (q_idx - kv_idx < 256)


def documents(length: int) -> Callable[..., Any]:
    ids = torch.searchsorted(
        torch.tensor([0.1, 0.17, 0.4, 0.6, 0.85]), torch.arange(length) / length
    )
    return lambda b, h, q_idx, kv_idx: ids[q_idx] == ids[kv_idx]


def softcap(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return 20 * torch.tanh(score / 20)


def alibi(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score - torch.exp2(-(h + 1.0)) * (q_idx - kv_idx)


def cases(length: int) -> dict[str, tuple[Any, Any]]:
    """(mask_mod, score_mod) by name."""
    return {
        "full": (None, None),
        "causal": (causal, None),
        "window 256": (window, None),
        "documents": (documents(length), None),
        "softcap+causal": (causal, softcap),
        "ALiBi+causal": (causal, alibi),
    }


def candidates(mask: Any, score: Any, q: Any, k: Any, v: Any) -> dict[str, Callable[[], Any]]:
    """What is compared on one case, ready to be called."""
    calls: dict[str, Callable[[], Any]] = {
        "attnc": lambda: attnc.attention(q, k, v, mask=mask, score=score)
    }
    length = q.shape[2]
    visible = mask or (lambda b, h, q_idx, kv_idx: q_idx >= 0)
    for block in (128, (64, 128)):
        blocks = create_block_mask(visible, None, None, length, length, "cpu", block)
        # A function of its own for each: compiled code is kept per function.
        compiled = torch.compile(lambda *t, **kw: flex_attention(*t, **kw), dynamic=False)
        calls[f"flex {block}"] = lambda compiled=compiled, blocks=blocks: compiled(
            q, k, v, score_mod=score, block_mask=blocks
        )
    if score is None and mask in (None, causal):
        is_causal = mask is causal
        calls["sdpa"] = lambda: torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=is_causal
        )
    return calls


def medians(calls: dict[str, Callable[[], Any]], n_rounds: int) -> dict[str, float]:
    """Milliseconds of each call, in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_number in range(n_rounds + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if round_number >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--cases", nargs="+", default=list(cases(1)))
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    rows = []
    print(f"{'case':42} {'attnc':>9} {'flex':>9} {'sdpa':>9}  flex/attnc")
    for dtype in options.dtypes:
        for head_dim in options.dims:
            for length in options.lengths:
                for name in options.cases:
                    torch._dynamo.reset()
                    mask, score = cases(length)[name]
                    sizes = (1, N_HEADS, length, head_dim)
                    q, k, v = (torch.randn(sizes).to(getattr(torch, dtype)) for _ in range(3))
                    with torch.no_grad():
                        times = medians(candidates(mask, score, q, k, v), options.rounds)
                    flex = min(times["flex 128"], times["flex (64, 128)"])
                    row = {"case": name, "dtype": dtype, "head_dim": head_dim, "length": length}
                    rows.append({**row, "ms": times, "flex_over_attnc": flex / times["attnc"]})
                    label = f"{name}, {dtype}, D={head_dim}, S={length}"
                    sdpa = f"{times['sdpa']:9.2f}" if "sdpa" in times else f"{'-':>9}"
                    print(
                        f"{label:42} {times['attnc']:9.2f} {flex:9.2f} {sdpa}"
                        f"  {flex / times['attnc']:6.2f}",
                        flush=True,
                    )
    RESULTS.parent.mkdir(exist_ok=True)
    about = {"processor": processor(), "torch": torch.__version__}
    about |= {"n_threads": torch.get_num_threads(), "n_heads": N_HEADS}
    RESULTS.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
